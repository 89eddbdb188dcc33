"""Planning: which notebooks there are, under which parameters, and which of them are out of date.

    key = code cells and tags, parameters, all modules that these import, pinned versions, data at hand,
          results of the notebooks needed                        equal to the key stored: up to date

A module that only draws is not among those modules: a figure changes no result.

`bookmaking.pipeline` says what a notebook has to look like and where its results go.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nbformat import NotebookNode

from negdistill.bookmaking.damage import MISSING, damage, is_run, present
from negdistill.bookmaking.documents import python, read_notebook, read_yaml
from negdistill.bookmaking.named_files import data_at_hand, named_files, reads_data
from negdistill.bookmaking.pins import digest_pins
from negdistill.checks import check_choice
from negdistill.data.tasks import check_grading
from negdistill.runs.digests import PACKAGE, digest_code, digest_json, digest_tree, imported
from negdistill.runs.folder import Manifest, machine, versions

NOTEBOOK = re.compile(r"[0-9]{2}_\w+\.ipynb")
FORCED = "forced"
DRAWING = f"{PACKAGE}.bookmaking.plots"  # and what goes on from there: figures change no result


class Failure(RuntimeError):
    """A notebook raised, or pages did not render; the message is what the reader should see."""

    done: Collection[str] = ()  # names of the notebooks that were finished all the same


@dataclass(frozen=True)
class Job:
    """One notebook under one profile.

    source      notebooks/NN_name.ipynb
    target      where the executed notebook goes
    given       parameters that differ from the notebook's defaults
    parameters  all parameters
    needs       names of the notebooks whose artefacts it reads
    work        what its metadata declares of its cost, see `estimate.work`
    """

    source: Path
    target: Path
    given: Mapping[str, object]
    parameters: Mapping[str, object]
    needs: tuple[str, ...]
    work: Mapping[str, Sequence[Sequence[int | str]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.source.stem

    @property
    def run_dir(self) -> Path | None:
        """Folder of its artefacts; None where it has none."""
        return self.source.parent / str(self.parameters["run_dir"]) if "run_dir" in self.parameters else None


# --- the repository -----------------------------------------------------------------------------------


def find_root(start: str | Path = ".") -> Path:
    """The clone around a folder; FileNotFoundError outside of one."""
    start = Path(start).resolve()
    for folder in (start, *start.parents):
        if (folder / "notebooks" / "profiles").is_dir():
            return folder
    raise FileNotFoundError(f"no notebooks/profiles in or above {start}: go to a clone of the repository")


def profiles(root: Path) -> list[str]:
    """Names of the profiles."""
    return sorted(path.stem for path in (root / "notebooks" / "profiles").glob("*.yml"))


def notebooks(folder: Path) -> list[Path]:
    """The numbered notebooks of a folder in order; those that failed or are being written do not count."""
    return sorted(path for path in folder.glob("*.ipynb") if NOTEBOOK.fullmatch(path.name))


def executed_folder(root: Path, profile: str) -> Path:
    """Where the executed notebooks of a profile are: in the book where it shows them, else in _build."""
    shown = root / "book" / "executed" / ("" if profile == "book" else profile)
    return shown if profile == "book" or shown.is_dir() else root / "_build" / profile / "executed"


# --- parameters ---------------------------------------------------------------------------------------


def known_parameters(path: Path) -> dict[str, object]:
    """Name and default of every parameter of a notebook; ValueError for one that is not a plain value."""
    cells = [cell for cell in read_notebook(path).cells if "parameters" in cell.metadata.get("tags", [])]
    known = {}
    for node in python(cells[0].source, path).body if cells else ():
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        try:
            (name,) = (target.id for target in targets)
            known[name] = ast.literal_eval(node.value)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"the parameters cell of {path.name} must assign plain values; got {ast.unparse(node)}"
            ) from error
    return known


def parse_parameter(text: str) -> tuple[str, object]:
    """`name=value` of the command line: a literal of Python, else JSON, else a text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"-p takes name=value; got {text!r}")
    for parse in (ast.literal_eval, json.loads):
        try:
            return name, parse(value)
        except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError):  # TypeError: {[1]: 2}
            continue
    return name, value


def assign(given: dict, known: dict, owners: Sequence[str], values: Mapping[str, object], where: str) -> None:
    """Give each value to those of `owners` that know the parameter.

    ValueError for a parameter that none of them knows, and for a value of another type than the default.
    """
    names = sorted(set().union(*(known[owner] for owner in owners)))
    for name, value in values.items():
        check_choice(f"parameter of {where}", name, names)
        for taker in (owner for owner in owners if name in known[owner]):
            default = known[taker][name]
            value = list(value) if type(value) is tuple and type(default) is list else value
            if wanted := _other_type(value, default):
                raise ValueError(
                    f"{name} of {taker} must be of type {wanted} as its default {default!r}; "
                    f"got {value!r} from {where} (in YAML write 0.001 for 1e-3)"
                )
            given[taker][name] = value


def _other_type(value: object, default: object) -> str:
    """The type that a value in the place of a default must have; "" where it has that."""
    kinds = (int, float) if type(default) is float else (type(default),)
    if default is not None and type(value) not in kinds:
        return type(default).__name__
    if type(value) is dict and not all(isinstance(key, str) for key in value):
        return "dict with texts as keys"
    if default and type(value) is list and any(_other_type(one, default[0]) for one in value):
        return f"list of {type(default[0]).__name__}"
    return ""


def select(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """The notebooks that `only` names, by number or in full; all where it is empty."""
    for choice in only:
        check_choice("only", choice, [*names, *(name[:2] for name in names)])
    return [name for name in names if not only or name in only or name[:2] in only]


def read_profile(path: Path) -> dict[str, dict]:
    """Sections of a profile; ValueError with file and line where it is no YAML of sections and values."""
    found = read_yaml(path) or {}
    sections = {"the file": found, **found} if isinstance(found, dict) else {"the file": found}
    for section, values in sections.items():
        if not isinstance(values or {}, dict):
            raise ValueError(f"{section} of {path} must hold lines `name: value`; got {values!r}")
    return {section: values or {} for section, values in found.items()}


def plan(
    root: Path, profile: str, only: Sequence[str] = (), overrides: Mapping[str, object] | None = None
) -> list[Job]:
    """Every notebook with its parameters; `overrides` go to the notebooks that `only` selects."""
    check_choice("profile", profile, profiles(root))
    folder, where = root / "notebooks", f"{profile}.yml"
    known = {path.stem: known_parameters(path) for path in notebooks(folder)}
    if not known:
        raise FileNotFoundError(f"no notebook named like 00_name.ipynb in {folder}")
    given: dict[str, dict] = {name: {} for name in known}
    for section, values in read_profile(folder / "profiles" / where).items():
        check_choice(f"section of {where}", section, ["common", *known])
        assign(given, known, list(known) if section == "common" else [section], values, where)
    assign(given, known, select(list(known), only), overrides or {}, "-p")

    jobs = []
    for number, (name, defaults) in enumerate(known.items()):
        if "run_dir" in defaults:
            given[name].setdefault("run_dir", f"../_runs/{profile}/{name}")
        source = folder / f"{name}.ipynb"
        declared = read_notebook(source).metadata.get("negdistill", {})
        needs = declared.get("needs", [])
        for need in needs:
            check_choice(f"needs of {name}", need, list(known)[:number])
        for rule in ("grading", "other_grading"):
            check_grading({**defaults, **given[name]}.get(rule, ""))
        changed = {key: value for key, value in given[name].items() if value != defaults[key]}
        target = executed_folder(root, profile) / source.name
        values, costs = {**defaults, **given[name]}, declared.get("work", {})
        jobs.append(Job(source, target, changed, values, tuple(needs), costs))
    return jobs


def apart(root: Path, profile: str, job: Job) -> Job:
    """The same notebook with folders of its own, others for other packages and another class of machine: what
    the profile has stays as it is, and what was made elsewhere counts for nothing."""
    here = f"reproduced/{digest_json([versions(), machine()])[:8]}/{profile}"
    run_dir = {"run_dir": f"../_runs/{here}/{job.name}"} if job.run_dir else {}
    given, parameters = {**job.given, **run_dir}, {**job.parameters, **run_dir}
    return replace(job, target=root / "_build" / here / job.target.name, given=given, parameters=parameters)


# --- what is up to date -------------------------------------------------------------------------------


def digest_cells(notebook: NotebookNode) -> str:
    """Digest of the code cells that are run and of their tags: what decides the outputs."""
    code = [(cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells if is_run(cell)]
    return digest_json(code)


def shared_inputs(root: Path, profile: str) -> dict[str, str]:
    """Digests of what every notebook depends on, and of the data that some do."""
    files = {
        name: digest
        for name, digest in digest_tree(root / PACKAGE).items()
        if not name.endswith(".py") and not name.startswith("bookmaking/")  # templates of pages
    }
    return {
        "files": digest_json(files),
        "constraints": digest_pins(root / "constraints.txt"),
        "data": digest_json([] if profile == "smoke" else data_at_hand()),
    }


def stored(job: Job) -> Manifest | None:
    """Provenance of the executed notebook; None where there is none that can be read."""
    try:
        return Manifest.from_dict(read_notebook(job.target).metadata["negdistill"]["manifest"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # never run, or damaged
        return None


def inputs_of(job: Job, shared: Mapping[str, str], done: Mapping[str, Manifest | None]) -> dict[str, str]:
    """Digests of all that the outputs of a notebook depend on, but its parameters."""
    results = {
        need: digest_json([made.key, made.artifacts]) if (made := done[need]) else "" for need in job.needs
    }
    source = read_notebook(job.source)
    code = "\n".join(cell.source for cell in source.cells if is_run(cell))
    modules = imported(python(code, job.source))
    package = digest_code(
        *(name for name in modules if not name.startswith(DRAWING)), source=job.source.parents[1]
    )
    named = {key: value for key, value in job.parameters.items() if key != "run_dir"}
    own = {f"file of {name}": digest for name, digest in named_files(job.source.parent, named).items()}
    given = {name: digest for name, digest in shared.items() if name != "data" or reads_data(job.parameters)}
    return {"notebook": digest_cells(source), "package": package, **own, **given, **results}


def changes(job: Job, inputs: Mapping[str, str]) -> list[str]:
    """Why a notebook has to run, in words; empty where it is up to date.

    Artefacts that are gone are no reason by themselves, since a fresh clone has none: see `survey`.
    """
    made = stored(job)
    if made is None:
        return ["never run"]
    wrong = damage(read_notebook(job.target), job.target, job.run_dir, made)
    before = {name: value for name, value in made.inputs.items() if name in inputs or name != "data"}
    names = {name for name in inputs.keys() | before.keys() if inputs.get(name) != before.get(name)}
    if digest_json(job.parameters) != digest_json(made.parameters):
        names.add("parameters")
    return [f"{name} changed" for name in sorted(names)] + [one for one in wrong if one != MISSING]


def survey(
    jobs: Sequence[Job], shared: Mapping[str, str], forced: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Why each notebook has to run: forced, changed, behind what it needs, or read by one that has to run."""
    why: dict[str, list[str]] = {}
    done = {job.name: stored(job) for job in jobs}
    for job in jobs:
        reasons = changes(job, inputs_of(job, shared, done)) + [FORCED] * (job.name in forced)
        why[job.name] = reasons or [f"{need} out of date" for need in job.needs if why[need]]
    by_name = {job.name: job for job in jobs}
    for job in reversed(jobs):
        for need in job.needs if why[job.name] else ():
            if not why[need] and not present(by_name[need].run_dir, done[need]):
                why[need] = [MISSING]
    return why
