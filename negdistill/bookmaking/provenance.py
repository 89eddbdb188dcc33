"""Provenance: what executed notebooks say of themselves, as tables of the pages.

executed notebook  --Execution-->  file, title, manifest  -->  times, machines, versions, parameters, digests
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from negdistill.bookmaking.documents import read_notebook
from negdistill.runs.folder import Manifest

SHORT = 12  # hexadecimal digits of a digest that are shown
SECONDS = 60  # from so many on, a duration is shown in minutes


@dataclass(frozen=True, slots=True)
class Execution:
    """An executed notebook as the pages refer to it: name of its file, its title, and where it came from."""

    name: str
    title: str
    made: Manifest

    @classmethod
    def read(cls, path: Path) -> Execution | None:
        """None where the notebook does not say what it was made from."""
        notebook = read_notebook(path)
        manifest = notebook.metadata.get("negdistill", {}).get("manifest")
        heading = re.search(r"^# (.+)$", "\n".join(cell.source for cell in notebook.cells), re.MULTILINE)
        title = heading[1] if heading else path.stem
        return None if manifest is None else cls(path.name, title, Manifest.from_dict(manifest))

    @property
    def link(self) -> str:
        return f"[{self.title}](executed/{self.name})"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown; cells are MyST already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def code(value: object) -> str:
    """A value as code in a cell, as it is: in more backticks than stand in it in a row."""
    text = " ".join(str(value).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    inside = text if len(fence) == 1 and text else f" {text} "
    return f"{fence}{inside}{fence}".replace("|", r"\|")


def execution_table(root: Path, runs: Sequence[Execution]) -> str:
    """How long each notebook took, on what, with which seeds."""
    rows = [
        [run.link, duration(run.made.seconds), hardware(run.made.machine), seeds(run.made)] for run in runs
    ]
    rows.append(["all", duration(sum(run.made.seconds for run in runs)), "", ""])
    return table(["chapter", "time", "machine", "seeds"], rows)


def version_table(root: Path, runs: Sequence[Execution]) -> str:
    """Versions of Python and of what the package requires; more than one where notebooks differ."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        for name, version in run.made.versions.items():
            found.setdefault(name, {})[version] = None
    return table(["package", "version"], ([name, ", ".join(found[name])] for name in sorted(found)))


def provenance(root: Path, runs: Sequence[Execution]) -> str:
    """A section for each notebook: parameters, and digests of what went in and what came out."""
    return "\n\n".join(f"### {run.title}\n\n{listing(run)}" for run in runs)


def listing(run: Execution) -> str:
    """Parameters of a run, and digests of what went in and what came out, folded below its file's name."""
    made = run.made
    rows = [["parameter", code(name), code(made.parameters[name])] for name in sorted(made.parameters)]
    for kind, digests in (("input", made.inputs), ("artefact", made.artifacts)):
        rows += [[kind, code(name), code(digests[name][:SHORT])] for name in sorted(digests)]
    return f"````{{dropdown}} {run.name}\n{table(['kind', 'name', 'value or sha256'], rows)}\n````"


def duration(seconds: float) -> str:
    """In seconds, or in minutes where they are many."""
    return f"{seconds:.0f} s" if seconds < SECONDS else f"{seconds / 60:.1f} min"


def hardware(machine: Mapping[str, object]) -> str:
    """Processor, cores and GPU, as far as a manifest tells them."""
    cores = machine.get("cores")
    parts = [str(machine.get("cpu") or ""), f"{cores} core{'s' * (cores != 1)}" if cores else ""]
    return ", ".join(filter(None, [*parts, str(machine.get("gpu") or "")]))


def seeds(made: Manifest) -> str:
    """Seed of the data, and those of training where a notebook tells them apart."""
    training = made.parameters.get("seeds")
    text = str(made.seed) if made.seed is not None else ""
    return f"{text}; training {', '.join(map(str, training))}" if training else text
