"""Pages: the book's sources and the executed notebooks, staged side by side and rendered strictly.

    _config.yml, _toc.yml, book/  +  executed notebooks of a profile  -->  src/  --jupyter-book-->  html/

    profile   src                    html
    book      _build/src             _build/html
    <other>   _build/<other>/src     _build/<other>/html

Strict: a warning, a reference to nothing, or a traceback stored in a notebook ends the build. Every render
starts from nothing, because an incremental one does not repeat the warnings of pages that did not change;
when none did, nothing is rendered.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat

from negdistill.artifacts import atomic_write_text, digest_file, digest_json, digest_tree, remove
from negdistill.planning import Failure, executed_folder, notebooks, profiles
from negdistill.records import check_choice


def check_outputs(path: Path) -> None:
    """ValueError where a notebook holds a traceback, which a strict render would print without complaint."""
    for cell in nbformat.read(path, as_version=4).cells:
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
    remove(folder)
    shutil.copytree(root / "book", folder / "book", ignore=shutil.ignore_patterns("executed", ".*"))
    (folder / "book" / "executed").mkdir()
    for path in executed:
        check_outputs(path)
        shutil.copy2(path, folder / "book" / "executed")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy2(root / name, folder)


def render(root: Path, profile: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """Render the pages of a profile and return their folder; Failure where the render warns."""
    check_choice("profile", profile, profiles(root))
    build = root / "_build" if profile == "book" else root / "_build" / profile
    source, html, work, stamp = (build / name for name in ("src", "html", "render", "html.sha256"))
    stage(root, profile, source)
    digest = digest_json([digest_tree(source), digest_file(root / "constraints.txt")])
    if html.is_dir() and stamp.is_file() and stamp.read_text("utf-8") == digest:
        say(f"pages: up to date in {html}")
        return html
    remove(stamp)
    remove(work)
    command = [Path(sys.executable).with_name("jupyter-book"), "build", source, "--path-output", work]
    strict = ["-W", "-n", "--keep-going", "--quiet"]
    if subprocess.run(
        [*command, *strict], stdout=subprocess.DEVNULL, check=False
    ).returncode:  # warnings: stderr
        raise Failure("the pages did not render; the warnings above say where")
    remove(html)
    os.replace(work / "_build" / "html", html)
    remove(work)
    atomic_write_text(stamp, digest)
    say(f"pages: {html / 'index.html'}")
    return html
