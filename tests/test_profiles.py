"""Profiles for real data, in small: random LLaMA, tokenizer of real text, real questions, all chapters."""

import pandas as pd
import pytest
from tiny import llama

from negdistill.bookmaking import pipeline
from negdistill.bookmaking.documents import read_notebook
from negdistill.bookmaking.estimate import work
from negdistill.bookmaking.planning import find_root, plan
from negdistill.data.formats import write_records
from negdistill.data.records import Rationale
from negdistill.data.sources import TDG, load_rationales
from negdistill.data.tasks import load_task
from negdistill.runs.folder import RunFolder
from negdistill.training.batching import real_text_tokenizer
from negdistill.training.settings import settings

SMALL = {
    "questions": 16,
    "samples": 3,
    "steps": 6,  # NAT has three of them, and its positive branch moves from the second on
    "batch_size": 4,
    "test_questions": 7,
    "valid_questions": 4,
    "read_questions": 3,
    "answer_tokens": 6,
    "rate": 0.0003,
    "tries": 1,
    "points": 1,
    "path_epochs": 1,
    "methods": ["Fine-tune", "CoT KD", "MIX", "NAT", "NAT, empty branch"],
    "deciding": ["CoT KD", "NAT", "NAT, empty branch"],
    "rows": ["KD", "NCE"],
    "enlarged": ["NCE"],
    "own_samples": 1,
    "students": ["CoT KD", "NCE"],
    "epochs": 1,
    "n": 3,
    "voters": ["CoT KD"],
    "shifted_questions": 4,
    "ranker_steps": 2,
    "changes": {"warmup_steps": 0, "gradient_accumulation_steps": 2, "unit_dim": 8},
}
EVERY = 1000  # of the rationales, one makes the vocabulary: all give LLaMA's 32,000, and no test more


@pytest.fixture(scope="module")
def student(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    texts = [one.text for name in TDG for one in load_rationales(name, data_dir)]
    tokenizer = real_text_tokenizer(texts[::EVERY])
    assert 2_000 < len(tokenizer) < 3_000
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    size = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 1024}
    made = llama(tokenizer=tokenizer, initializer_range=0.3, **size, **ids)  # or gradients would vanish
    made.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def clone(tmp_path):
    """Notebooks and package as in a clone, with folders of its own for results."""
    root = find_root()
    for name in ("notebooks", "negdistill", "constraints.txt"):
        (tmp_path / name).symlink_to(root / name)
    return tmp_path


def run_some(root, profile, numbers, **more):
    """Chapters in small; what they wrote is read back and checked against its digest."""
    chapters = [job.name for job in plan(root, profile) if "task" in job.parameters]
    for name in (name for name in chapters if name[:2] in numbers):
        run_dir = str(root / "runs" / name)
        (known,) = [job.parameters for job in plan(root, profile) if job.name == name]
        given = {key: value for key, value in {**SMALL, **more}.items() if key in known}
        if name == "04_nat":  # whose loss has to go down
            given |= {"steps": 24, "changes": {**given["changes"], "lr": 0.03}}
        pipeline.run(root, profile, [name], overrides={**given, "run_dir": run_dir})
        executed = read_notebook(root / "_build" / profile / "executed" / f"{name}.ipynb")
        run = RunFolder.open(run_dir)
        assert executed.metadata.negdistill.manifest.artifacts == run.manifest.artifacts
        assert run.manifest.artifacts and all(run.path(artifact) for artifact in run.manifest.artifacts)
        check_work(root, profile, name, given)


def check_work(root, profile, name, given):
    """A chapter takes about as many steps as its metadata declares, an epoch counted as half of all rows."""
    (job,) = [job for job in plan(root, profile, overrides=given) if job.name == name]
    changed = {"batch_size": given["batch_size"], **given["changes"]}
    config = settings(job.parameters["recipe"], **changed).train
    declared = work(job, config.batch_size * config.gradient_accumulation_steps).steps
    histories = root.glob(f"runs/{name}/**/history.csv")
    taken = sum(len(path.read_text().splitlines()) - 1 for path in histories)
    assert declared / 1.6 <= taken <= declared * 1.6, (name, declared, taken)


def test_the_paper(student, clone, data_dir, monkeypatch):
    monkeypatch.setenv("NEGDISTILL_DATA", str(data_dir))
    run_some(clone, "paper", ["03"], student=str(student), recipe="faithful")
    run_some(clone, "paper", ["06", "07", "08"], student=str(student))


def test_one_gpu(student, clone, data_dir, monkeypatch):
    """Rationales that a teacher wrote to a file, here the solutions and the solutions of other questions."""
    monkeypatch.setenv("NEGDISTILL_DATA", str(data_dir))
    task, said = load_task("gsm8k"), []
    for split, n in (("train", SMALL["questions"]), ("valid", 3)):
        problems = task.questions(split, n)
        for place, problem in enumerate(problems):
            texts = [problem.solution, problems[place - 1].solution]
            said += [Rationale(problem.id, i, text, "somebody") for i, text in enumerate(texts)]
    teacher = str(clone / "rationales.jsonl")
    write_records(teacher, said)
    names = {"student": str(student), "teacher": teacher, "teachers": [teacher]}
    run_some(clone, "one-gpu", ["04", "05"], samples=2, **names)


MINE = """
import torch.nn.functional as F

from negdistill.method.objectives import rationales
from negdistill.method.rivals import pair_places
from negdistill.training.method_table import GENTLE, Method


def prefer(model, batch):
    seen = rationales(model, batch)
    right, wrong = pair_places(seen.positive, seen.question)
    return 2 * F.softplus(0.1 * (seen.gain[wrong] - seen.gain[right])).sum()


Idea = Method("Idea", "own", "both", "lora", "DPO again", prefer, uses=("CoT KD",), start="continue",
              order="pairs", per="row", reference=True, rates=GENTLE)
"""


def test_a_method_of_ones_own_stands_in_every_table_of_the_rivals(clone, monkeypatch):
    (clone / "idea.py").write_text(MINE)
    monkeypatch.setenv("PYTHONPATH", str(clone))
    methods = ["CoT KD, continued", "DPO", "idea:Idea"]
    given = {"methods": methods, "deciding": methods, "voters": methods[::2], "n": 2, "seeds": [0, 1]}
    pipeline.run(clone, "smoke", ["10"], overrides={**given, "run_dir": str(clone / "runs")})
    frame = pd.read_parquet(RunFolder.open(clone / "runs").path("predictions.parquet"))
    for budget in ("equal steps", "best point"):
        mine, theirs = (
            frame[(frame["budget"] == budget) & (frame["method"] == name)] for name in methods[:0:-1]
        )
        assert mine["seed"].nunique() == 2 and not mine.empty
        assert mine["answer"].tolist() == theirs["answer"].tolist()  # the same losses, the same student
    executed = read_notebook(clone / "_build" / "smoke" / "executed" / "10_rivals.ipynb")
    shown = [cell.outputs for cell in executed.cells if cell.get("outputs")]
    assert (
        sum("idea:Idea" in str(outputs) for outputs in shown) == 7
    )  # steps of a pass, grid, rates, table, ends, answers, pass@n


def test_a_file_of_ones_own(clone):
    (clone / "tests").symlink_to(find_root() / "tests")
    run_some(clone, "your-data", ["03", "07"], samples=4, answer_tokens=8)
    rows = {"methods": ["CoT KD", "NAT", "Negative adapter"], "controls": [], "longer": False}
    run_some(clone, "your-data", ["11"], samples=4, answer_tokens=8, **rows)
