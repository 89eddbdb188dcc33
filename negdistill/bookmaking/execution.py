"""Execution: one notebook in a kernel of its own, and what it left, put beside its source.

    source + parameters  --papermill-->  cells  --nbclient, kernel-->  outputs  -->  target, files beside it

A kernel is a process. It talks over sockets of the file system, where there are such, and what it writes to
its own standard error, past the notebook, is shown only when it dies.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from papermill.execute import raise_for_execution_errors
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from negdistill.bookmaking.damage import BESIDE, READERS, digest_outputs, is_run
from negdistill.bookmaking.documents import read_notebook, write_notebook
from negdistill.bookmaking.planning import Failure, Job, digest_cells
from negdistill.runs.files import atomic_path, remove
from negdistill.runs.folder import Manifest, RunFolder, machine

INJECTED = "injected-parameters"  # papermill's tag of the cell that overrides defaults
LAST_WORDS = 2000  # characters of what a dying kernel said that are shown


@dataclass
class Kernels:
    """The kernels that run now, so that all of them can be ended at once."""

    running: dict[str, psutil.Process] = field(default_factory=dict)
    over: bool = False

    def started(self, name: str, process: int) -> None:
        self.running[name] = psutil.Process(process)
        if self.over:
            self.end()

    def end(self) -> None:
        """Kill all kernels, and those that are about to start."""
        self.over = True
        for process in [*self.running.values()]:
            with suppress(psutil.Error):
                process.kill()


@contextmanager
def largest_memory(kernels: Kernels, name: str) -> Iterator[list[int]]:
    """A list of one number: the most resident memory that a process of a kernel has held, in MiB."""
    largest, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.25):
            with suppress(KeyError, psutil.Error):  # not there yet, or ended meanwhile
                process = kernels.running[name]
                for one in (process, *process.children(recursive=True)):
                    largest[0] = max(largest[0], one.memory_info().rss >> 20)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield largest
    finally:
        over.set()
        watcher.join()


def heading(notebook: NotebookNode, index: int) -> str:
    """The last heading before a cell; "" where there is none."""
    lines = [
        line.lstrip("# ")
        for cell in notebook.cells[:index]
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("#")
    ]
    return lines[-1] if lines else ""


def in_kernel(
    notebook: NotebookNode,
    job: Job,
    values: Mapping[str, str],
    kernels: Kernels,
    watch: Callable[[str, str], None],
) -> None:
    """Run the cells of a notebook, which takes their outputs.

    values  environment variables of the kernel
    watch   is told the notebook's name and where it is, at every cell
    """
    count = sum(map(is_run, notebook.cells))

    def at_cell(cell: NotebookNode, cell_index: int) -> None:
        here = sum(map(is_run, notebook.cells[: cell_index + 1]))
        if is_run(cell):
            watch(job.name, f"cell {here} of {count}, {heading(notebook, cell_index)}".rstrip(", "))

    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=None,
        coalesce_streams=True,  # else one line may be stored in pieces, others each time
        record_timing=False,
        skip_cells_with_tag=READERS,
        on_notebook_start=lambda notebook: kernels.started(job.name, manager.provisioner.pid),
        on_cell_start=at_cell,
        shutdown_kernel="immediate",
    )
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "said", "w+b") as said:
        manager = client.create_kernel_manager()
        manager.connection_file = str(Path(folder) / "kernel.json")
        manager.transport = "ipc" if os.name == "posix" else "tcp"
        options = {"cwd": str(job.source.parent), "env": dict(values), "stdout": said, "stderr": said}
        try:
            asyncio.run(client.async_execute(**options))
        except DeadKernelError as error:
            said.seek(0)
            words = said.read().decode(errors="replace")[-LAST_WORDS:]
            raise DeadKernelError(f"{error}\n{words}".rstrip()) from error
        finally:
            kernels.running.pop(job.name, None)


def name_modules(notebook: NotebookNode, root: Path) -> None:
    """A warning names its module below the clone, not where the clone lies on this machine."""
    for cell in filter(is_run, notebook.cells):
        for output in cell.outputs:
            if output.get("name") == "stderr":
                output.text = output.text.replace(f"{root}{os.sep}", "")


def run_notebook(
    job: Job, values: Mapping[str, str], kernels: Kernels, watch: Callable[[str, str], None]
) -> NotebookNode:
    """The notebook with its parameters and outputs. Failure, and the notebook kept, where a cell raises."""
    failed = job.target.with_suffix(".failed.ipynb")
    failed.parent.mkdir(parents=True, exist_ok=True)
    notebook = load_notebook_node(str(job.source))
    if job.given:
        notebook = parameterize_notebook(notebook, dict(job.given), kernel_name="python3")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    try:
        try:
            in_kernel(notebook, job, values, kernels, watch)
            name_modules(notebook, job.source.parents[1])
        except CellExecutionError:
            raise_for_execution_errors(notebook, str(failed))  # writes it with a banner
            raise
    except (PapermillExecutionError, CellExecutionError, DeadKernelError, CellTimeoutError) as error:
        if kernels.over:
            raise
        if not isinstance(error, PapermillExecutionError):
            write_notebook(failed, notebook)
        cell = f"\n\n{error.source}\n" if isinstance(error, PapermillExecutionError) else "\n"
        raise Failure(f"{job.name} failed{cell}{error}\nkept with its outputs: {failed}") from error
    remove(failed)
    return notebook


# --- what is kept -------------------------------------------------------------------------------------


def with_outputs(source: NotebookNode, executed: NotebookNode, made: Manifest) -> NotebookNode:
    """The source with the outputs of its execution, the parameters injected into that, and the provenance."""
    notebook, queue = deepcopy(source), deque(filter(is_run, executed.cells))
    cells, notebook.cells = notebook.cells, []
    for cell in cells:
        notebook.cells.append(cell)
        if is_run(cell):
            ran = queue.popleft()
            cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
            if queue and INJECTED in queue[0].metadata.get("tags", []):
                notebook.cells.append(queue.popleft())
                notebook.cells[-1].metadata = NotebookNode(tags=[INJECTED])
    language = executed.metadata.get("language_info", {})
    notebook.metadata.language_info = {key: value for key, value in language.items() if key != "version"}
    own = notebook.metadata.setdefault("negdistill", NotebookNode())
    own.manifest, own.outputs = made.to_dict(), digest_outputs(notebook)
    return nbformat.from_dict(notebook)


def execute(
    job: Job,
    inputs: Mapping[str, str],
    values: Mapping[str, str],
    kernels: Kernels,
    watch: Callable[[str, str], None],
) -> Manifest:
    """Run a notebook and put what it made where it belongs; Failure where a cell raises."""
    began, source = time.monotonic(), read_notebook(job.source)
    with largest_memory(kernels, job.name) as memory:
        executed = run_notebook(job, values, kernels, watch)
    made = Manifest(
        inputs=inputs,
        parameters=job.parameters,
        seed=job.parameters.get("seed"),
        artifacts=RunFolder.open(job.run_dir).manifest.artifacts if job.run_dir else {},
        machine={**machine(), "peak_mib": memory[0]},
        seconds=round(time.monotonic() - began, 1),
    )
    for name, ending in BESIDE.items():
        beside = job.target.with_suffix(ending)
        if name in made.artifacts:
            with atomic_path(beside) as temporary:
                shutil.copyfile(RunFolder.open(job.run_dir).path(name), temporary)
        else:
            remove(beside)
    write_notebook(job.target, with_outputs(source, executed, made))
    return made


def publish(job: Job, made: Manifest, into_source: bool) -> None:
    """Bring the prose of the executed notebook up to date and, if asked, its outputs back into the source."""
    source = read_notebook(job.source)
    if digest_cells(source) != made.inputs["notebook"]:
        return  # edited while it ran: the next run sees that
    executed = with_outputs(source, read_notebook(job.target), made)
    write_notebook(job.target, executed)
    if into_source:
        for name in ("manifest", "outputs"):
            del executed.metadata.negdistill[name]
        if not executed.metadata.negdistill:
            del executed.metadata["negdistill"]
        write_notebook(job.source, executed)
