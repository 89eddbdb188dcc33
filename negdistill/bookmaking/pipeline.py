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

A notebook that reads released data names the set in a parameter, such as task or teacher: what lies in the
data folder is then part of what it depends on. One that reads artefacts of others names them in its metadata:
{"negdistill": {"needs": ["MM_other"]}}.
Two artefacts go beside the executed notebook: predictions.parquet, who answered what, as NN_name.parquet, and
texts.parquet, the answers as they were given, as NN_name.texts.parquet.
A profile's section `common` goes to every notebook that has the parameter, a section NN_name to that one.
A change of prose runs nothing: the executed notebook takes the new prose and keeps its outputs. The same
holds for cells tagged nbval-skip, the one that installs and those of exercises, which only a reader runs.

Notebooks that do not need each other run side by side, the longest first, one thread to a kernel; on a GPU
one at a time. A notebook that fails stops those that need it, and no other.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TextIO

from negdistill.bookmaking.damage import MISSING, broken_runs
from negdistill.bookmaking.execution import Kernels, execute, publish
from negdistill.bookmaking.locks import taking_turns
from negdistill.bookmaking.planning import (
    FORCED,
    Failure,
    Job,
    apart,
    changes,
    inputs_of,
    plan,
    select,
    shared_inputs,
    stored,
    survey,
)
from negdistill.bookmaking.progress import Progress
from negdistill.checks import check_whole
from negdistill.data.folders import data_folder
from negdistill.data.math_verify_pool import cache_file
from negdistill.runs.files import remove
from negdistill.runs.folder import Manifest, machine
from negdistill.runs.surroundings import QUIET

ONE_THREAD = {  # beside other kernels, since threads wait for each other where a core is busy
    **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")},
    "TOKENIZERS_PARALLELISM": "false",
}
EMBEDDED = "embedded"  # the student of which many fit into memory
EDITED = (OSError, SyntaxError, ValueError)  # of a notebook or module that somebody is at work on
ON_CPU = {"CUDA_VISIBLE_DEVICES": ""}  # smoke outputs are compared with the committed ones


# --- surroundings -------------------------------------------------------------------------------------


def surroundings(profile: str, jobs: int) -> dict[str, str]:
    """Environment variables of a kernel."""
    smoke = profile == "smoke"
    threads = ONE_THREAD if smoke or jobs > 1 else {}
    shared = {"NEGDISTILL_THREADS": str(max(1, machine()["cores"] // jobs))}  # of students that are not small
    return {**os.environ, **folders(), **QUIET, **shared, **threads, **(ON_CPU if smoke else {})}


def folders() -> dict[str, str]:
    """The user's folders, absolute: kernels run in another folder than the command."""
    return {
        "NEGDISTILL_DATA": str(data_folder()),
        "NEGDISTILL_CACHE": str(cache_file().parent.absolute()),
    }


def large(job: Job) -> bool:
    """Whether a notebook has a student of which memory may not hold several."""
    return job.parameters.get("student", EMBEDDED) != EMBEDDED


def kernels_at_once(profile: str, jobs: int | None) -> int:
    """How many kernels run at once: `jobs`; where that is None one a core, on a GPU one. Raises as
    `check_whole` for a number below 1."""
    if jobs is not None:
        check_whole("jobs", jobs, 1)
        return jobs
    gpu = machine()["gpu"] and profile != "smoke" and os.environ.get("CUDA_VISIBLE_DEVICES") != ""
    return 1 if gpu else machine()["cores"]


def seconds_before(root: Path, profile: str, jobs: Sequence[Job]) -> dict[str, float]:
    """How long each notebook took the last time, here or for book/costs.csv, where that is known."""
    path = root / "book" / "costs.csv"
    known = {}
    if path.is_file():
        with open(path, encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["scale"] == profile]
        known = {row["chapter"]: float(row["seconds"]) for row in rows}
    return known | {job.name: made.seconds for job in jobs if (made := stored(job))}


# --- running ------------------------------------------------------------------------------------------


def run(
    root: Path,
    profile: str,
    only: Sequence[str] = (),
    force: bool = False,
    overrides: Mapping[str, object] | None = None,
    say: Callable[[str], None] = lambda line: None,
    jobs: int | None = None,
    terminal: TextIO | None = None,
    aside: bool = False,
) -> None:
    """Run what is out of date among the notebooks that `only` selects, and among those that these need.

    force      run those selected even where they are up to date
    overrides  parameters for those selected, over the profile's
    say        takes lines of progress
    jobs       notebooks at once, which share the cores; None: see `kernels_at_once`, and one with a large
               student at a time
    terminal   where a line for every notebook that runs is drawn; none where it is None
    aside      in folders apart, see `planning.apart`

    Raises Failure where notebooks fail, once all those are done that need none of them. ValueError for an
    unknown profile, notebook or parameter. Waits while another process runs the profile. An interrupt ends
    the kernels; what was finished is kept.
    """
    planned = plan(root, profile, only, overrides)
    selected = select([job.name for job in planned], only)
    wanted = set(selected)
    for job in reversed(planned):
        wanted |= set(job.needs) if job.name in wanted else set()
    planned = [apart(root, profile, job) if aside else job for job in planned if job.name in wanted]
    at_once = kernels_at_once(profile, jobs)
    build = root / "_build" / ("reproduced" if aside else "") / profile
    with taking_turns(build, f"profile {profile} is", say):
        before = {} if aside else seconds_before(root, profile, planned)  # of a part nobody knows
        lines = Progress(say, terminal, before)
        in_turn = {job.name for job in planned if large(job)} if jobs is None else set()
        Run(root, profile, planned, selected if force else (), at_once, in_turn, lines).all()


class Run:
    """The notebooks of one call of `run`, some of them running; of those in `in_turn` one at a time."""

    def __init__(
        self,
        root: Path,
        profile: str,
        jobs: list[Job],
        forced: Sequence[str],
        at_once: int,
        in_turn: Collection[str],
        lines: Progress,
    ) -> None:
        self.lines, self.in_turn, self.profile = lines, in_turn, profile
        self.shared = shared_inputs(root, profile)
        self.why = survey(jobs, self.shared, forced)
        stale = {name for name, why in self.why.items() if why}
        beside = len(stale - set(in_turn)) + bool(stale & set(in_turn))
        self.at_once = max(1, min(at_once, beside))  # one that runs alone has all cores
        self.todo = jobs
        self.ready: list[tuple[Job, dict[str, str], list[str]]] = []  # with inputs, and why
        self.done: dict[str, Manifest] = {}
        self.failed: dict[str, str] = {}
        self.running: dict[Future, Job] = {}
        self.kernels = Kernels()

    def all(self) -> None:
        """Run them all; Failure where some failed."""
        with ThreadPoolExecutor(self.at_once) as pool:
            try:
                while self.todo or self.ready or self.running:
                    self._look()
                    self._start(pool)
                    self._collect()
            except BaseException:
                self.kernels.end()
                pool.shutdown(cancel_futures=True)
                raise
        if self.failed:
            failure = Failure("\n\n".join(self.failed.values()))
            failure.done = self.done.keys()
            raise failure

    def _look(self) -> None:
        """Settle what is up to date, line up what can run now, drop what needs a notebook that failed."""
        for job in [*self.todo]:
            if lost := [need for need in job.needs if need in self.failed]:
                self.todo.remove(job)
                self.failed[job.name] = f"{job.name} was not run: it needs {', '.join(lost)}"
            elif all(need in self.done for need in job.needs):
                self.todo.remove(job)
                try:
                    self._settle(job)
                except EDITED as error:
                    self._fail(job, error)

    def _settle(self, job: Job) -> None:
        """Line up a notebook of which all that it needs is done, or call it up to date."""
        inputs = inputs_of(job, self.shared, self.done)
        firm = [reason for reason in self.why[job.name] if reason in (FORCED, MISSING)]
        if reasons := changes(job, inputs) or firm:
            self.ready.append((job, inputs, reasons))
        else:
            self._publish(job, stored(job), "up to date")

    def _start(self, pool: ThreadPoolExecutor) -> None:
        """Start those that take longest."""
        self.ready.sort(key=lambda ready: -self.lines.likely.get(ready[0].name, float("inf")))
        while found := next((one for one in self.ready if self._fits(one[0])), None):
            self.ready.remove(found)
            job, inputs, reasons = found
            likely = f", about {self.lines.likely[job.name]:.0f} s" if job.name in self.lines.likely else ""
            self.lines.say(f"{job.name}: running ({', '.join(reasons)}){likely}")
            for folder in broken_runs(job.run_dir).keys() - {job.run_dir}:
                remove(folder)  # whoever reads from it would stop there
            self.lines.at(job.name, "starting")
            values = surroundings(self.profile, self.at_once)
            future = pool.submit(execute, job, inputs, values, self.kernels, self.lines.at)
            self.running[future] = job

    def _fits(self, job: Job) -> bool:
        """Whether a notebook may start beside those that run."""
        taken = job.name in self.in_turn and any(one.name in self.in_turn for one in self.running.values())
        return len(self.running) < self.at_once and not taken

    def _collect(self) -> None:
        """Wait a second at most for one that ends."""
        ended, _ = wait(self.running, timeout=1, return_when=FIRST_COMPLETED)
        self.lines.tick()
        for future in ended:
            job = self.running.pop(future)
            self.lines.ended(job.name)
            try:
                made = future.result()
            except Exception as error:  # a kernel that did not start, a run folder that is damaged
                self._fail(job, error)
                continue
            self._publish(job, made, f"done in {made.seconds:.1f} s")

    def _publish(self, job: Job, made: Manifest, said: str) -> None:
        try:
            publish(job, made, into_source=self.profile == "smoke" and not job.given)
        except EDITED as error:
            self._fail(job, error)
        else:
            self.done[job.name] = made
            self.lines.say(f"{job.name}: {said}")

    def _fail(self, job: Job, error: Exception) -> None:
        """Leave out a notebook, and thereby what needs it; the others go on."""
        said = str(error)
        if not isinstance(error, Failure):
            said = f"{job.name} failed\n\n{type(error).__name__}: {said}"
        self.failed[job.name] = said
        self.lines.say(f"{job.name}: failed")


def status(root: Path, profile: str) -> list[tuple[str, list[str], float | None]]:
    """Name of each notebook, why it has to run (empty: up to date), and the seconds its last run took."""
    jobs = plan(root, profile)
    why = survey(jobs, shared_inputs(root, profile))
    made = {job.name: stored(job) for job in jobs}
    return [(name, why[name], made[name].seconds if made[name] else None) for name in made]
