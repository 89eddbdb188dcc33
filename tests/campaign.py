"""Campaign: kills, flipped bytes and faulty replies, at random places, and what held.

    python tests/campaign.py                  # all, about ten minutes
    python tests/campaign.py flips --seed 7   # one of kills, flips and requests

Not a part of the test suite. A line says what was tried and how much of it held: after a kill the run ends as
if nothing had happened, a flipped byte is refused by the name of its file or changes nothing, and a faulty
reply costs its own question alone.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
SKIPPED = shutil.ignore_patterns(".git", ".venv", "_build", "_runs", "__pycache__", ".*cache")
Tried = Iterator[tuple[str, bool]]  # what was tried, whether it held


# --- kills --------------------------------------------------------------------------------------------


def chapters(clone: Path) -> subprocess.Popen:
    """Chapters 03 and 07 of a clone at smoke scale, in a group of processes of their own."""
    command = [sys.executable, "-m", "negdistill", "run", "--profile", "smoke", "--only", "03", "07"]
    environment = os.environ | {"PYTHONPATH": str(clone)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=clone, env=environment, start_new_session=True, **quiet)


def outputs(clone: Path) -> list:
    """What the checked cells of both chapters print."""
    found = []
    for path in sorted((clone / "notebooks").glob("0[37]_*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if "nbval-ignore-output" not in cell.metadata.get("tags", []):
                found += [output.get("text") for output in cell.get("outputs", [])]
    return found


def kills(rng: random.Random, times: int = 6) -> Tried:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(shutil.copytree(ROOT, Path(folder) / "clone", ignore=SKIPPED))
        expected = outputs(clone)
        killed = 0
        for _ in range(times):
            process = chapters(clone)
            time.sleep(rng.uniform(1, 25))
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            killed += process.returncode == -signal.SIGKILL  # else it was done before
        whole = chapters(clone)
        error = whole.communicate()[1].decode()
        held = whole.returncode == 0 and outputs(clone) == expected
        if not held:
            sys.stderr.write(error[-2000:])
        yield f"chapters 03 and 07, killed {killed} times", held  # one run follows them all


# --- flips --------------------------------------------------------------------------------------------


def flipped(path: Path, rng: random.Random, read: Callable[[], object], times: int = 8) -> Iterator[bool]:
    """Whether reading refuses a file by its name, or gives the same, with one bit flipped somewhere."""
    whole, expected = path.read_bytes(), repr(read())
    for _ in range(times):
        place = rng.randrange(len(whole))
        changed = bytes([whole[place] ^ (1 << rng.randrange(8))])
        path.write_bytes(whole[:place] + changed + whole[place + 1 :])
        try:
            held = repr(read()) == expected
        except (ValueError, OSError) as error:
            held = path.name in str(error) or path.parent.name in str(error)
        yield held
    path.write_bytes(whole)


def part(data, places: slice):
    """Some of the questions of a training set, with their rationales."""
    kept = {problem.id for problem in data.problems[places]}
    sides = (tuple(r for r in side if r.problem_id in kept) for side in (data.positives, data.negatives))
    return type(data)(data.problems[places], *sides)


def flips(rng: random.Random) -> Tried:
    from negdistill import fit, fit_ranker, load_student, load_task, sample, settings
    from negdistill.bookmaking.predictions import predictions
    from negdistill.inference.ranker_fit import load_ranker
    from negdistill.training.adapters import lora
    from negdistill.training.checkpoint import CHECKPOINT
    from negdistill.training.dataset import taught
    from negdistill.training.fits import load_fit
    from negdistill.training.loop import TrainConfig, train

    world, student = load_task("arithmetic"), load_student()
    said, small = taught(world, "weak", 16, 4), {"batch_size": 4, "progress": False, "max_steps": 3}
    data, valid = (part(said, places) for places in (slice(10), slice(10, None)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = fit("NAT", student, data, settings(**{**small, "max_steps": 6}), folder)
        ranker = fit_ranker(student, data, valid, settings(**small), folder)
        prompts = {problem.id: problem.question for problem in data.problems}
        drawing = {"n": 2, "max_new_tokens": 8, "progress": False, "out_dir": folder / "samples"}
        sample(student, prompts, **drawing)
        config = TrainConfig(max_steps=2, batch_size=4, progress=False)
        texts = data.examples("positives")

        def resumed() -> object:
            with lora(student.model, settings().nat) as model:
                return train(model, student.tokenizer, texts, config, out_dir=folder / "run")["loss"].tolist()

        resumed()
        shutil.copytree(ROOT / "book" / "executed", folder / "executed")
        executed = next(iter(sorted((folder / "executed").glob("06_*.parquet"))))
        readers: dict[Path, Callable[[], object]] = {
            made.folder / "fit.json": lambda: load_fit(made.folder),
            made.folder / "history.csv": lambda: load_fit(made.folder),
            made.folder / "adapter" / "unit.safetensors": lambda: load_fit(made.folder),
            made.folder / "adapter" / "neg" / "adapter_model.safetensors": lambda: load_fit(made.folder),
            ranker.folder / "adapter" / "head.safetensors": lambda: load_ranker(ranker.folder),
            ranker.folder / "valid.jsonl": lambda: load_ranker(ranker.folder),
            folder / "samples" / "samples.jsonl": lambda: sample(student, prompts, **drawing),
            folder / "run" / CHECKPOINT: resumed,
            executed: lambda: predictions(folder / "executed", "nce"),
        }
        for path, read in readers.items():
            for held in flipped(path, rng, read):
                yield f"{path.parent.name[:12]}/{path.name}", held


# --- requests -----------------------------------------------------------------------------------------


def requests(rng: random.Random, questions: int = 300) -> Tried:
    from faulty_proxy import Proxy, refused
    from faulty_proxy import said as says

    from negdistill.data.records import Problem
    from negdistill.teachers import openai_server
    from negdistill.teachers.generate import generate
    from negdistill.teachers.openai_server import OpenAITeacher

    openai_server.FIRST_WAIT = 0.01
    problems = [Problem(f"p{i}", f"[{i}]?", "1", "", "", None, "mine.jsonl") for i in range(questions)]
    kinds = {
        "too long": refused(400, "maximum context length is 9 tokens", code="context_length_exceeded"),
        "filtered": refused(400, "filtered", code="content_filter"),
        "parts": says(
            {"content": [{"type": "text", "text": "The answer"}, {"type": "text", "text": " is 1."}]}
        ),
        "thought": says({"content": None, "reasoning_content": "hm"}, "length"),
        "null": says("The answer is 1.", None),
    }
    faults = {i: rng.choice(sorted(kinds)) for i in rng.sample(range(questions), questions // 3)}
    always = {f"[{i}]": kinds[kind] for i, kind in faults.items()} | {"": says("The answer is 1.")}
    with (
        Proxy("", (), always) as proxy,
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        teacher = OpenAITeacher("m", proxy.url, concurrency=4, max_tokens=20)
        got = {
            one.problem_id: one
            for one in generate(problems, teacher, 1, store=Path(folder) / "s.jsonl", progress=False)
        }
    for i in range(questions):
        kind, one = faults.get(i, "none"), got.get(f"p{i}")
        text = "" if kind in ("too long", "filtered", "thought") else "The answer is 1."
        yield (
            f"reply: {kind}",
            one is not None and one.text == text
            if kind not in ("too long", "filtered")
            else one is None or not one.text,
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", nargs="*", default=["kills", "flips", "requests"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tried, held = Counter(), Counter()
    for which in options.which:
        for what, holds in {"kills": kills, "flips": flips, "requests": requests}[which](
            random.Random(options.seed)
        ):
            tried[what] += 1
            held[what] += holds
    for what in tried:
        print(f"{what:50} tried {tried[what]:4}  held {held[what]:4}")
    print(f"{'all':50} tried {tried.total():4}  held {held.total():4}")
    return int(tried != held)


if __name__ == "__main__":
    sys.exit(main())
