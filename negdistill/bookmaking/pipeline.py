"""Pipeline: run the numbered notebooks, each once for every state of what it depends on.

    notebooks/NN_name.ipynb + profiles/<profile>.yml  --papermill-->  executed notebook with its provenance

    profile   parameters                    executed notebooks                       artefacts
    smoke     the notebooks' own defaults   _build/smoke/executed, and the outputs   _runs/smoke/NN_name
                                            go back into notebooks/
    book      profiles/book.yml             book/executed                            _runs/book/NN_name
    <other>   profiles/<other>.yml          _build/<other>/executed                  _runs/<other>/NN_name

What a notebook may rely on, here, under nbval and in Jupyter alike: the kernel python3 and the working
directory notebooks/. What it must have: one cell tagged `parameters` that assigns plain values. Names with a
meaning there:

    run_dir = "../_runs/smoke/NN_name"   its artefacts, written with `folder.RunFolder`; those of another
                                         notebook of the profile: Path(run_dir).parent / "MM_other"
    seed = 0                             recorded in the provenance

A notebook that reads artefacts of others names them in its metadata: {"negdistill": {"needs": ["MM_other"]}}.
Its artefact predictions.parquet, who answered what, goes beside the executed notebook as NN_name.parquet.
A profile's section `common` goes to every notebook that has the parameter, a section NN_name to that one.
A change of prose runs nothing: the executed notebook takes the new prose and keeps its outputs.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import nbformat
import papermill
import psutil
from filelock import FileLock, Timeout
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from negdistill.bookmaking.planning import (
    FORCED,
    MISSING,
    Failure,
    Job,
    changes,
    digest_cells,
    inputs_of,
    plan,
    read,
    select,
    shared_inputs,
    stored,
    survey,
    write,
)
from negdistill.data.folders import data_folder
from negdistill.data.math_verify_pool import cache_file
from negdistill.runs.files import atomic_path, remove
from negdistill.runs.folder import Manifest, RunFolder, machine

QUIET = {  # what loading a model and importing tqdm would say on stderr, which is stored and compared
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",
}
PREDICTIONS = "predictions.parquet"
INJECTED = "injected-parameters"  # papermill's tag of the cell that overrides defaults
ONE_THREAD = {  # smoke outputs are compared with the committed ones, so their sums must run in one order
    **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")},
    **{"TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""},
}


def with_outputs(source: NotebookNode, executed: NotebookNode, made: Manifest) -> NotebookNode:
    """The source with the outputs of its execution, the parameters injected into that, and the provenance."""
    notebook, queue = deepcopy(source), deque(cell for cell in executed.cells if cell.cell_type == "code")
    cells, notebook.cells = notebook.cells, []
    for cell in cells:
        notebook.cells.append(cell)
        if cell.cell_type == "code":
            ran = queue.popleft()
            cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
            if queue and INJECTED in queue[0].metadata.get("tags", []):
                notebook.cells.append(queue.popleft())
                notebook.cells[-1].metadata = NotebookNode(tags=[INJECTED])
    language = executed.metadata.get("language_info", {})
    notebook.metadata.language_info = {key: value for key, value in language.items() if key != "version"}
    notebook.metadata.setdefault("negdistill", NotebookNode()).manifest = made.to_dict()
    return nbformat.from_dict(notebook)


def folders() -> dict[str, str]:
    """The user's folders, absolute: kernels run in another folder than the command."""
    return {
        "NEGDISTILL_DATA": str(data_folder()),
        "NEGDISTILL_CACHE": str(cache_file().parent.absolute()),
    }


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables; kernels started inside the block inherit them."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def largest_memory() -> Iterator[list[int]]:
    """A list of one number: the most resident memory that a process started in the block has held, in MiB."""
    largest, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.25):
            for child in psutil.Process().children(recursive=True):
                try:
                    largest[0] = max(largest[0], child.memory_info().rss >> 20)
                except psutil.Error:  # it has ended meanwhile
                    continue

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield largest
    finally:
        over.set()
        watcher.join()


def execute(job: Job, inputs: Mapping[str, str]) -> Manifest:
    """Run a notebook. Failure, and the notebook kept as NN_name.failed.ipynb, where a cell raises."""
    failed = job.target.with_suffix(".failed.ipynb")
    began = time.monotonic()
    source = read(job.source)
    with atomic_path(job.target) as temporary:
        try:
            with largest_memory() as memory:
                executed = papermill.execute_notebook(
                    job.source,
                    temporary,
                    dict(job.given),
                    cwd=job.source.parent,
                    progress_bar=sys.stderr.isatty(),
                    coalesce_streams=True,  # else one line may be stored in pieces, others each time
                )
        except (PapermillExecutionError, DeadKernelError, CellTimeoutError) as error:
            os.replace(temporary, failed)
            cell = f"\n\n{error.source}\n" if isinstance(error, PapermillExecutionError) else "\n"
            raise Failure(f"{job.name} failed{cell}{error}\nkept with its outputs: {failed}") from error
        made = Manifest(
            inputs=inputs,
            parameters=job.parameters,
            seed=job.parameters.get("seed"),
            artifacts=RunFolder.open(job.run_dir).manifest.artifacts if "run_dir" in job.parameters else {},
            machine={**machine(), "peak_mib": memory[0]},
            seconds=round(time.monotonic() - began, 1),
        )
        nbformat.write(with_outputs(source, executed, made), temporary)
    if PREDICTIONS in made.artifacts:
        with atomic_path(job.target.with_suffix(".parquet")) as temporary:
            shutil.copyfile(RunFolder.open(job.run_dir).path(PREDICTIONS), temporary)
    remove(failed)
    return made


def publish(job: Job, made: Manifest, into_source: bool) -> None:
    """Bring the prose of the executed notebook up to date and, if asked, its outputs back into the source."""
    source = read(job.source)
    if digest_cells(source) != made.inputs["notebook"]:
        return  # edited while it ran: the next run sees that
    executed = with_outputs(source, read(job.target), made)
    write(job.target, executed)
    if into_source:
        del executed.metadata.negdistill["manifest"]
        if not executed.metadata.negdistill:
            del executed.metadata["negdistill"]
        write(job.source, executed)


def run(
    root: Path,
    profile: str,
    only: Sequence[str] = (),
    force: bool = False,
    overrides: Mapping[str, object] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Run what is out of date among the notebooks that `only` selects, and among those that these need.

    force      run those selected even where they are up to date
    overrides  parameters for those selected, over the profile's
    say        takes lines of progress

    Raises Failure where a notebook fails; those after it are not run. ValueError for an unknown profile,
    notebook or parameter, and while another run of the profile is under way.
    """
    jobs = plan(root, profile, only, overrides)
    selected = select([job.name for job in jobs], only)
    wanted = set(selected)
    for job in reversed(jobs):
        wanted |= set(job.needs) if job.name in wanted else set()
    jobs = [job for job in jobs if job.name in wanted]
    lock = root / "_build" / profile / ".lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    smoke = profile == "smoke"
    try:
        with FileLock(lock, timeout=0), environment(QUIET | folders() | (ONE_THREAD if smoke else {})):
            shared = shared_inputs(root, profile)
            why = survey(jobs, shared, selected if force else ())
            done: dict[str, Manifest | None] = {}
            for job in jobs:
                inputs = inputs_of(job, shared, done)
                firm = [reason for reason in why[job.name] if reason in (FORCED, MISSING)]
                if reasons := changes(job, inputs) or firm:
                    say(f"{job.name}: running ({', '.join(reasons)})")
                    done[job.name] = execute(job, inputs)
                    say(f"{job.name}: done in {done[job.name].seconds:.1f} s")
                else:
                    done[job.name] = stored(job)
                    say(f"{job.name}: up to date")
                publish(job, done[job.name], into_source=smoke and not job.given)
    except Timeout as error:
        raise ValueError(f"profile {profile} is being run by another process; wait for it to end") from error


def status(root: Path, profile: str) -> list[tuple[str, list[str], float | None]]:
    """Name of each notebook, why it has to run (empty: up to date), and the seconds its last run took."""
    jobs = plan(root, profile)
    why = survey(jobs, shared_inputs(root, profile))
    made = {job.name: stored(job) for job in jobs}
    return [(name, why[name], made[name].seconds if made[name] else None) for name in made]
