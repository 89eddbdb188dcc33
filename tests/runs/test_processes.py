"""Two processes share samples and teachers of the embedded student, against one process."""

import json
import sys
import threading
import warnings
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from launching import in_two_processes
from safetensors.torch import load_file

from negdistill.data import arithmetic
from negdistill.data.formats import read_records
from negdistill.data.prompts import format_prompt
from negdistill.data.records import Sample
from negdistill.inference.engine import Engine
from negdistill.inference.sample import sample
from negdistill.method.nat import attach
from negdistill.runs import processes as processes_module
from negdistill.runs.digests import digest_tree
from negdistill.runs.folder import MANIFEST, Manifest, RunFolder
from negdistill.runs.processes import SharedFolder, all_gather, held, processes, shard
from negdistill.training import loop
from negdistill.training import teacher_cache as nce
from negdistill.training.adapters import lora
from negdistill.training.batching import Example, encode, pad_id
from negdistill.training.settings import EMBEDDED
from negdistill.training.students import Student, load_student
from negdistill.training.teacher_cache import teacher_cache

ROOT = Path(__file__).parents[2]
PROBLEMS = arithmetic.generate("train", 10, seed=0)
PROMPTS = {problem.id: format_prompt(problem.question) for problem in PROBLEMS}
DRAW = {"n": 3, "max_new_tokens": 6, "batch_size": 1, "progress": False}  # two or three prompts a wave


def with_nat() -> Student:
    student = load_student("embedded", device="cpu")
    attach(student.model, EMBEDDED)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in student.model.named_parameters():
            if any(part in name for part in ("lora_", "query", "key.", "value_")):
                parameter.normal_(std=0.05)
    return student


def cached(student: Student, folder: Path) -> nce.TeacherCache:
    examples = [
        Example(one.problem_id, PROMPTS[one.problem_id], one.text) for one in arithmetic.teach(PROBLEMS, n=1)
    ]
    rows = encode(examples, student.tokenizer, 512)
    return teacher_cache(student.model, rows, pad_id(student.tokenizer), folder, batch_size=2, progress=False)


def everything(folder: Path, interrupt: bool) -> dict:
    """Samples with and without a folder, and the cache; with `interrupt` both folders are begun before."""
    torch.set_num_threads(1)
    nce.SHARD = 2
    student, counts = with_nat(), {}
    run, save = Engine.run, nce.save_file

    def counting(what: str, function, most: int):
        def counted(*arguments):
            counts[what] = counts.get(what, 0) + 1
            if counts[what] > most:
                raise KeyboardInterrupt
            return function(*arguments)

        return counted

    if interrupt:
        Engine.run, nce.save_file = counting("waves cut", run, 1), counting("shards cut", save, 1)
        for begun in (
            lambda: sample(student, PROMPTS, **DRAW, out_dir=folder / "samples"),
            lambda: cached(student, folder / "cache"),
        ):
            try:
                begun()
            except KeyboardInterrupt:
                processes().wait_for_everyone()
        counts["left"] = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
        processes().wait_for_everyone()
    Engine.run, nce.save_file = counting("waves", run, 99), counting("shards", save, 99)
    kept = sample(student, PROMPTS, **DRAW, out_dir=folder / "samples")
    cache = cached(student, folder / "cache")
    Engine.run, nce.save_file = run, save
    free = sample(student, PROMPTS, **DRAW)
    again = sample(student, PROMPTS, **DRAW, out_dir=folder / "samples")
    return {
        "counts": counts,
        "kept": [asdict(one) for one in kept],
        "free": [asdict(one) for one in free],
        "again": kept == again,
        "beta": cache.beta.tolist(),
        "key": cache.key,
        "device": str(processes().device),
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("processes")
    in_two_processes(__file__, folder)
    threads, shard = torch.get_num_threads(), nce.SHARD
    found = {name: json.loads((folder / name).read_text()) for name in ("0", "1")}
    found |= {"one": json.loads(json.dumps(everything(folder / "one", False))), "folder": folder}
    torch.set_num_threads(threads)
    nce.SHARD = shard
    return found


def same(samples: list[dict], others: list[dict]) -> bool:
    for one, other in zip(samples, others, strict=True):
        one, other = dict(one), dict(other)
        if one.pop("log_prob") != pytest.approx(other.pop("log_prob"), abs=1e-4) or one != other:
            return False
    return True


def test_both_have_the_samples_of_one(results):
    one, first, second = (results[name] for name in ("one", "0", "1"))
    assert len(one["kept"]) == 30 and same(one["kept"], one["free"])
    for two in (first, second):
        assert same(two["kept"], one["kept"]) and same(two["free"], one["free"]) and two["again"]
    assert first["kept"] == second["kept"] and first["free"] == second["free"]


def test_one_file_is_left(results):
    for name in ("one", "two"):
        folder = results["folder"] / name / "samples"
        assert sorted(path.name for path in folder.glob("[!.]*")) == [MANIFEST, "samples.jsonl"]
    stored = read_records(folder / "samples.jsonl", Sample)
    assert json.loads(json.dumps([asdict(one) for one in stored])) == results["0"]["kept"]
    one, two = (RunFolder.open(results["folder"] / name / "samples").manifest for name in ("one", "two"))
    assert one.key == two.key


def test_the_work_was_shared_and_nothing_was_done_twice(results):
    one, first, second = (results[name]["counts"] for name in ("one", "0", "1"))
    assert one == {"waves": 5, "shards": 5}
    for two in (first, second):
        assert {"samples/process-1/wave-00001.jsonl", "cache/process-1/00001.safetensors"} <= set(two["left"])
        assert two["waves cut"] == two["shards cut"] == 2  # the second was cut off
        assert 1 <= two["waves"] <= 2 and 1 <= two["shards"] <= 2
    assert first["shards"] + second["shards"] == 3


def test_the_cache_is_that_of_one_bit_for_bit(results):
    trees = [digest_tree(results["folder"] / name / "cache") for name in ("one", "two")]
    for tree in trees:
        del tree[MANIFEST]  # holds seconds
    assert trees[0] == trees[1] and len(trees[0]) == 5
    assert results["0"]["beta"] == results["1"]["beta"] == results["one"]["beta"]
    assert results["0"]["key"] == results["1"]["key"] == results["one"]["key"]
    assert "log_probs" in load_file(results["folder"] / "two/cache/00000.safetensors")


def trained(folder: Path) -> list[float]:
    student = load_student("embedded", device="cpu")
    examples = [Example(p.id, PROMPTS[p.id], p.answer) for p in PROBLEMS]
    settings = loop.TrainConfig(max_steps=2, batch_size=4, progress=False)
    with lora(student.model, EMBEDDED, seed=0) as model:
        return loop.train(model, student.tokenizer, examples, settings, out_dir=folder)["loss"].tolist()


def sampled(folder: Path) -> list[Sample]:
    return sample(load_student("embedded", device="cpu"), PROMPTS, out_dir=folder, **DRAW)


RUNS = {  # what is made in a folder, and the work of it
    "samples": (sampled, Engine, "run"),
    "a teacher cache": (lambda folder: cached(with_nat(), folder).beta.tolist(), nce, "save_file"),
    "a training": (trained, loop._Loop, "gradient"),
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_second_run_waits_for_the_first_and_takes_what_it_made(kind, tmp_path, monkeypatch):
    """Kind: two runs in one folder; as in broadinstitute/CellBender#241."""
    make, owner, work = RUNS[kind]
    monkeypatch.setattr(processes_module, "SILENT", 0.05)
    does, calls, made = getattr(owner, work), [], []
    begun, waits = threading.Event(), threading.Event()

    def slowly(*given, **options):
        begun.set()
        calls.append(given)
        assert waits.wait(60)  # both draw from one generator: the second has drawn all by then
        return does(*given, **options)

    def say(text, stacklevel):
        waits.set()
        warnings.warn(text, stacklevel=stacklevel + 1)

    def first():
        with held(tmp_path):  # who holds a folder may work in it
            made.append(make(tmp_path))

    monkeypatch.setattr(owner, work, slowly)
    monkeypatch.setattr(processes_module, "warnings", SimpleNamespace(warn=say))
    other = threading.Thread(target=first)
    other.start()
    begun.wait(60)
    with pytest.warns(UserWarning, match=f"{tmp_path.name} is being made by another process; waiting for it"):
        mine = make(tmp_path)
    other.join()
    done = len(calls)
    assert done and [mine] == made
    assert make(tmp_path) == mine and len(calls) == done  # neither the second nor a third did any of it


def test_a_process_alone_has_all_of_it(tmp_path):
    assert shard([1, 2, 3]) == all_gather([1, 2, 3]) == [1, 2, 3]
    shared = SharedFolder(tmp_path, Manifest())
    with shared.own.create("a.txt") as path:
        path.write_text("a")
    assert shared.own is shared.run is shared.collect() and digest_tree(tmp_path).keys() == {
        "a.txt",
        MANIFEST,
    }


if __name__ == "__main__":  # what the tests above run in processes of their own
    out = Path(sys.argv[1])
    made = everything(out / "two", True)
    (out / str(processes().process_index)).write_text(json.dumps(made))


# --- beside an Accelerator of the caller ----------------------------------------------------------------


@pytest.fixture
def forget():
    """Makes accelerate forget what a process tells it once, as if the process had just begun."""

    def reset() -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    reset()
    yield reset
    reset()


def beside(precision: str, gathered: int) -> list:
    """What is learnt and drawn in a process that has an Accelerator of its own, which stays as it is."""
    theirs = Accelerator(mixed_precision=precision, gradient_accumulation_steps=gathered)
    student = load_student(device="cpu")
    forward = student.model.forward.__func__
    examples = [Example("a", "Ada has 7 books.", "7.")]
    config = loop.TrainConfig(max_steps=2, progress=False)
    with lora(student.model, EMBEDDED) as model:
        history = loop.train(model, student.tokenizer, examples, config)
    assert student.model.forward.__func__ is forward and theirs.mixed_precision == precision
    assert theirs.gradient_accumulation_steps == gathered
    drawn = sample(student, {"a": "Ada has"}, 2, max_new_tokens=4, progress=False)
    return [*history.loss, *history.grad_norm, *[one.ids for one in drawn]]


def test_an_accelerator_of_the_caller_changes_nothing(forget, monkeypatch, one_thread):
    """A process has one mixed precision, and accelerate refuses to hear of another.

    Kind: a mixed precision of the whole process that another part has set; as in
    huggingface/transformers#29510.
    """
    made = []
    for kind in (("no", 1), ("bf16", 4), ("fp16", 1)):
        forget()
        made.append(beside(*kind))
    forget()
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    made.append(beside("no", 4))
    assert len(made[0]) == 6 and made[0] == made[1] == made[2] == made[3]
