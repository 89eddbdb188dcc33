"""Pages: the book's sources and the executed notebooks, staged side by side and rendered strictly.

    _config.yml, _toc.yml, book/  +  executed notebooks of a profile  -->  src/  --jupyter-book-->  html/

    profile   src                    html
    book      _build/src             _build/html
    <other>   _build/<other>/src     _build/<other>/html

What follows from other files is written while staging, nowhere else: book/api/ gets a page per module, and
a line `<!-- generated: name -->` gives way to what GENERATED[name] makes of the package's source and of the
provenance in the executed notebooks.

Strict: a warning, a reference to nothing, or a traceback stored in a notebook ends the build. Where anything
changed, all is rendered: an incremental build does not repeat the warnings of pages that did not change.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd

from negdistill import PUBLIC
from negdistill.bookmaking import other_tasks, parameters, reference, reproduction, results
from negdistill.bookmaking.claims_page import plan_page
from negdistill.bookmaking.claims_plan import read_plan
from negdistill.bookmaking.damage import BESIDE
from negdistill.bookmaking.documents import put_rows, read_notebook
from negdistill.bookmaking.finishing import drop_bundles, launch_sources, name_language, name_toggles
from negdistill.bookmaking.locks import taking_turns
from negdistill.bookmaking.moved import lead_on
from negdistill.bookmaking.planning import Failure, executed_folder, notebooks, profiles
from negdistill.bookmaking.predictions import chapters, other_teachers
from negdistill.bookmaking.provenance import (
    Execution,
    duration,
    execution_table,
    provenance,
    table,
    version_table,
)
from negdistill.bookmaking.texts import TEXTS, texts_page
from negdistill.checks import check_choice
from negdistill.runs.digests import digest_code, digest_file, digest_json, digest_tree
from negdistill.runs.files import atomic_write_text, remove

MARK = re.compile(r"^<!-- generated: (.+?) -->$", re.MULTILINE)
SCALES = ("smoke", "quick", "book")
COSTS = "costs.csv"  # in book/


def check_outputs(path: Path) -> None:
    """ValueError where a notebook holds a traceback, which a strict render would print without complaint."""
    for cell in read_notebook(path).cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                cell_name = f"{output.ename} in cell [{cell.execution_count}]"
                raise ValueError(f"{path} holds a traceback ({cell_name}): mend and run it again")


def stage(root: Path, profile: str, folder: Path) -> None:
    """Copy what the pages are made from into `folder`."""
    executed = notebooks(executed_folder(root, profile))
    if not executed:
        raise FileNotFoundError(
            f"no executed notebooks in {executed_folder(root, profile)}; "
            f"make them with `python -m negdistill run --profile {profile}`"
        )
    if lost := sorted({one.name for one in notebooks(root / "notebooks")} - {one.name for one in executed}):
        raise FileNotFoundError(
            f"the pages need every chapter; profile {profile} has not run {', '.join(lost)}: run them, or "
            f"open those that were run, in {executed[0].parent}, with Jupyter"
        )
    remove(folder)
    left_out = shutil.ignore_patterns("executed", "artifacts", ".*")
    shutil.copytree(root / "book", folder / "book", ignore=left_out)
    (folder / "book" / "executed").mkdir()
    for path in executed:
        check_outputs(path)
        shutil.copy2(path, folder / "book" / "executed")
    for path in (root / "book" / "executed").glob(f"*{BESIDE[TEXTS]}"):
        shutil.copy2(path, folder / "book" / "executed")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy2(root / name, folder)
    generate(root, executed, folder / "book")


# --- what is generated --------------------------------------------------------------------------------


def generate(root: Path, executed: Sequence[Path], book: Path) -> None:
    """Write the API pages below a staged `book` and fill in the marks of its pages.

    ValueError for a mark that nothing is generated for.
    """
    runs = [run for run in map(Execution.read, executed) if run]
    for page in sorted(book.rglob("*.md")):
        text = page.read_text("utf-8")
        for name in MARK.findall(text):
            check_choice(f"generated in {page.relative_to(book)}", name, GENERATED)
        filled = MARK.sub(lambda mark: GENERATED[mark[1]](root, runs), text)
        if filled != text:
            atomic_write_text(page, filled)
    for module, text in reference.pages(root).items():
        atomic_write_text(book / "api" / f"{module}.md", text)


def module_table(root: Path, runs: Sequence[Execution]) -> str:
    """Every public module and what it is about, by rooms in the order of the README's file map."""
    trees, readme = reference.modules(root), (root / "README.md").read_text("utf-8")
    order = sorted(trees, key=lambda name: (readme.find(f"\n  {name.partition('.')[0]}/"), name))
    known = reference.names(trees)
    rows = (
        [
            f"[`{name}`](api/{name}.md)",
            reference.prose(reference.says(trees[name]), f"{reference.PACKAGE}.{name}", known),
        ]
        for name in order
    )
    return table(["module", "what it is about"], rows)


def public_table(root: Path, runs: Sequence[Execution]) -> str:
    """The names that come from the package itself, in the order of its rooms, and what each is."""
    trees = reference.modules(root)
    known, rows = reference.names(trees), []
    places = {name: module.removeprefix(f"{reference.PACKAGE}.") for name, module in PUBLIC.items()}
    for name, place in places.items():
        if place not in trees:  # a clone without the package
            continue
        module, node = f"{reference.PACKAGE}.{place}", reference.public(trees[place])[name]
        first = (ast.get_docstring(node) or "").partition("\n\n")[0]
        rows.append([f"{{py:obj}}`{name} <{module}.{name}>`", reference.prose(first, module, known)])
    return table(["name", "what it is"], rows)


def result_tables(root: Path, runs: Sequence[Execution]) -> str:
    """All committed tables of results, with their files."""
    return results.results_page(root / "book" / "tables", {run.name: run.title for run in runs})


def answers(root: Path, runs: Sequence[Execution]) -> str:
    """All committed answers as they were given."""
    return texts_page(root / "book" / "executed", {run.name: run.title for run in runs})


def cost_table(root: Path, runs: Sequence[Execution]) -> str:
    """What every chapter took at every scale that was run, from book/costs.csv."""
    frame = pd.read_csv(root / "book" / COSTS).set_index(["chapter", "scale"])
    cells = {
        key: f"{duration(row.seconds)}, {row.peak_mib:,.0f} MiB" if row.peak_mib else duration(row.seconds)
        for key, row in frame.fillna({"peak_mib": 0}).iterrows()
    }
    titles = {run.name.removesuffix(".ipynb"): run.link for run in runs}
    rows = (
        [titles.get(name, name), *(cells.get((name, scale), "") for scale in SCALES)]
        for name in sorted({name for name, _ in cells})
    )
    return table(["chapter", *SCALES], rows)


def with_other_teachers(root: Path, runs: Sequence[Execution]) -> list[Execution]:
    """The runs, and those of the same chapters with other teachers that are committed."""
    folder, more = root / "book" / "executed", []
    for chapter in chapters(folder):
        for path in other_teachers(folder, chapter):
            run = Execution.read(path.with_suffix(".ipynb"))
            more.append(replace(run, title=f"{run.title}, {run.made.parameters['teacher']} teacher"))
    return [*runs, *more]


GENERATED: dict[str, Callable[[Path, Sequence[Execution]], str]] = {
    "public": public_table,
    "modules": module_table,
    "executions": lambda root, runs: execution_table(root, with_other_teachers(root, runs)),
    "versions": version_table,
    "provenance": lambda root, runs: provenance(root, with_other_teachers(root, runs)),
    "results": result_tables,
    "answers": answers,
    "costs": cost_table,
    "reproduced": reproduction.listing,
    "parameters": parameters.listing,
    "other tasks": lambda root, runs: other_tasks.sections(
        root / "book" / "executed", read_plan(root / "book" / "plan.yml")
    ),
    "plan": lambda root, runs: plan_page(root),
}


def refresh_costs(root: Path) -> Path:
    """Write book/costs.csv: seconds and memory of the scales that were run here; others stay as they are."""
    path = root / "book" / COSTS
    rows = []
    for scale in SCALES:
        for run in filter(None, map(Execution.read, notebooks(executed_folder(root, scale)))):
            name, peak = run.name.removesuffix(".ipynb"), run.made.machine.get("peak_mib")
            rows.append(dict(scale=scale, chapter=name, seconds=run.made.seconds, peak_mib=peak))
    put_rows(path, rows, ("scale", "chapter"))
    return path


# --- rendering ----------------------------------------------------------------------------------------


def jupyter_book() -> str:
    """The path of the tool that renders; ValueError where it is not installed beside Python."""
    folder = Path(sys.executable).parent
    if found := shutil.which("jupyter-book", path=folder):
        return found
    raise ValueError(f"pages need jupyter-book in {folder}; type `pip install 'negdistill[book]'`")


@contextmanager
def rendering(root: Path, profile: str, say: Callable[[str], None]) -> Iterator[Path]:
    """The folder of what is rendered of a profile, within the block for this process alone.

    ValueError for an unknown profile and without `jupyter_book`, before anything is written.
    """
    check_choice("profile", profile, profiles(root))
    jupyter_book()
    build = root / "_build" if profile == "book" else root / "_build" / profile
    with taking_turns(build / "pages", f"the pages of profile {profile} are", say):
        yield build


def render(root: Path, profile: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """Render the pages of a profile and return their folder; Failure where the render warns.

    Where another process renders them, wait, and take its pages if nothing changed since. ValueError as
    `rendering`."""
    with rendering(root, profile, say) as build:
        return _rendered(root, profile, build, say)


def _rendered(root: Path, profile: str, build: Path, say: Callable[[str], None]) -> Path:
    source, html, work, stamp = (build / name for name in ("src", "html", "render", "html.sha256"))
    stage(root, profile, source)
    made_by = digest_code(__name__)  # what is done to the pages afterwards, too
    digest = digest_json([digest_tree(source), digest_file(root / "constraints.txt"), made_by])
    if html.is_dir() and stamp.is_file() and stamp.read_text("utf-8") == digest:
        say(f"pages: up to date in {html}")
        return html
    say(f"pages: rendering profile {profile}")
    remove(stamp)
    remove(work)
    command = [jupyter_book(), "build", source, "--path-output", work]
    strict = ["-W", "-n", "--keep-going", "--quiet"]
    quiet = {"stdout": subprocess.DEVNULL, "start_new_session": True}  # warnings: stderr; interrupts: here
    if subprocess.run([*command, *strict], **quiet, check=False).returncode:
        raise Failure("the pages did not render; the warnings above say where")
    for finish in (launch_sources, lead_on, name_language, name_toggles, drop_bundles):
        finish(work / "_build" / "html")
    remove(html)
    os.replace(work / "_build" / "html", html)
    remove(work)
    atomic_write_text(stamp, digest)
    say(f"pages: {html / 'index.html'}")
    return html
