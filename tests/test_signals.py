"""Signals: book/signals.md has every command and every number that is written down, and no others."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pyarrow.parquet as parquet
import pytest
import tiny
from safetensors import safe_open

from negdistill.__main__ import parser
from negdistill.bookmaking.claims_plan import read_plan
from negdistill.bookmaking.estimate import Estimate
from negdistill.bookmaking.evidence import uses
from negdistill.data.arithmetic import generate, teach
from negdistill.data.records import Reply, Sample
from negdistill.inference.evaluate import Follow, evaluate
from negdistill.inference.ranker_fit import RankerFit, fit_ranker
from negdistill.inference.ranker_report import calibration, report
from negdistill.inference.vote import COLUMNS as VOTED
from negdistill.runs.folder import Manifest, machine
from negdistill.training.dataset import training_set
from negdistill.training.fit import fit
from negdistill.training.fits import Fit
from negdistill.training.loop import COLUMNS
from negdistill.training.settings import settings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "signals.md").read_text("utf-8")
GLOSSARY = PAGE.split("## Glossary of what is written down")[1]


def first_cells(text):
    """What stands in backquotes in the first column of the tables of a text."""
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


SECTIONS = {
    title: first_cells(text) for title, text in re.findall(r"^### (.+)\n([^#]*)", GLOSSARY, re.MULTILINE)
}


def names(kind, *without):
    return {field.name for field in fields(kind)} - {*without}


FRAMES = {
    "history.csv": {*COLUMNS, "accuracy_SPLIT"},
    "fit.json": names(Fit, "folder", "history", "trajectory"),
    "manifest.json": names(Manifest) | {"peak_mib"},
    "Samples and stores": names(Sample) | names(Reply) | {"line_sha256"},
}


@pytest.mark.parametrize("section", FRAMES)
def test_the_glossary_has_the_columns_that_there_are_and_no_others(section):
    assert SECTIONS[section] == FRAMES[section]


def test_votes_rankers_and_estimates_are_in_the_glossary():
    assert set(VOTED) <= SECTIONS["Predictions and votes"]
    known = SECTIONS["A ranker's fit.json and valid.jsonl"]
    assert names(RankerFit, "folder", "history", "valid") <= known
    assert set(Estimate._fields) <= SECTIONS["Lines on the screen"]
    told = re.search(r"^\| `machine` \| (.+) \|$", GLOSSARY, re.MULTILINE)[1]
    assert set(machine()) <= set(re.findall(r"`(\w+)`", told))


def test_committed_predictions_have_no_other_columns():
    for path in sorted((ROOT / "book/executed").glob("*.parquet")):
        assert set(parquet.read_schema(path).names) <= SECTIONS["Predictions and votes"], path.name


def test_tables_of_results_and_costs_have_the_columns_of_the_glossary_and_no_others():
    files = [*(ROOT / "book" / "tables").glob("*.csv"), ROOT / "book" / "costs.csv"]
    found = {name for path in files for name in path.read_text("utf-8").splitlines()[0].split(",")}
    assert found == SECTIONS["Tables of results"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Names in the files of a followed fit with a teacher's pass, and of a ranker, by file."""
    student, folder = tiny.llama(), tmp_path_factory.mktemp("fits")
    problems, others = generate("train", 8, seed=1), generate("valid", 8, seed=1)
    data = training_set(problems, teach(problems, n=4))
    held = training_set(others, teach(others, n=4))
    config = settings(epochs=1, batch_size=8, progress=False)
    follow = Follow({"valid": others[:2]}, options={"max_new_tokens": 2}, held=held)
    nce = fit("NCE", student, data, config, folder, on_epoch=follow)
    ranker = fit_ranker(student, data, held, config, folder)
    (cache,) = folder.glob("teacher-*/00000.safetensors")
    with safe_open(cache, framework="pt") as file:
        cached = set(file.keys())
    answers = evaluate(student, others[:2], max_new_tokens=2)
    return {
        "history": set(nce.history) | set(ranker.history),
        "fit": set(json.loads((nce.folder / "fit.json").read_text())),
        "trajectory": set(nce.trajectory),
        "manifest": set(json.loads((nce.folder / "manifest.json").read_text())),
        "ranker": set(json.loads((ranker.folder / "fit.json").read_text())),
        "valid": set(ranker.valid),
        "report": {*(found := report(ranker.valid)), *found.index, *calibration(ranker.valid)},
        "cache": cached,
        "answers": set(answers),
    }


def test_what_a_fit_writes_is_in_the_glossary(written):
    history = {re.sub("(?<=accuracy_).*", "SPLIT", name) for name in written["history"]}
    assert history == SECTIONS["history.csv"]
    assert written["fit"] == SECTIONS["fit.json"]
    assert written["trajectory"] == SECTIONS["points and trajectory.jsonl"]
    assert written["manifest"] | {"peak_mib"} == SECTIONS["manifest.json"]
    assert written["cache"] <= SECTIONS["Teacher cache"]
    assert written["answers"] <= SECTIONS["Predictions and votes"]


def test_what_a_ranker_writes_is_in_the_glossary(written):
    assert written["ranker"] | written["valid"] == SECTIONS["A ranker's fit.json and valid.jsonl"]
    assert written["report"] - {"score"} == SECTIONS["report and calibration"]


def test_every_command_and_every_chapter_that_computes_is_on_the_page():
    (commands,) = (action for action in parser()._actions if action.choices)
    shown = {name.split()[0] for name in first_cells(PAGE.split("## While a long cell runs")[0])}
    assert set(commands.choices) <= shown
    targets = re.findall(r'"make (\w+) ', (ROOT / "Makefile").read_text("utf-8"))
    rows = re.findall(r"^\| `make (\w+)`", PAGE, re.MULTILINE)
    assert len(targets) > 5 and rows == targets
    table = PAGE.split("## While a long cell runs")[1].split("\n## ")[0]
    listed = re.findall(r"^\| (\d\d) \|", table, re.MULTILINE)
    assert listed == [path.stem[:2] for path in sorted((ROOT / "notebooks").glob("[01]*.ipynb"))][1:]


# --- other pages of upkeep ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "book").rglob("*.md")), ids=lambda path: path.stem)
def test_every_test_that_a_page_names_exists(path):
    for name, file in re.findall(r"\{source\}`(test_\w+) <([^>]+)>`", path.read_text("utf-8")):
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE), name


def test_every_question_has_an_answer_that_leads_on():
    text = (ROOT / "book" / "questions.md").read_text("utf-8")
    parts = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert len(parts) >= 20
    for part in parts:
        assert part.split("\n")[0].rstrip().endswith(("?", ".")) and re.search(r"\{source\}|\]\(", part), part


@pytest.mark.parametrize("name", ["README.md", "README.ja.md"])
def test_the_short_answer_of_the_readme_follows_from_its_figure(name):
    used = uses(ROOT / "book/executed", read_plan(ROOT / "book/plan.yml"))
    ends = used[~used["small"]].groupby("label")[["low", "high"]]  # hollow marks decide nothing
    up, down, of = (ends.min()["low"] > 0).sum(), (ends.max()["high"] < 0).sum(), used["label"].nunique()
    said = f"of the {of} uses in the picture, {up} {'adds' if up == 1 else 'add'} points that can be told "
    said += (
        f"from none in every case that it shows, and {down} leave the student behind one that goes on with "
    )
    said += "right answers"
    if name == "README.ja.md":
        said = f"図の {of} 通りの使い方のうち、図に示すすべての場合に正答率を上げると言えるのは {up} 通りで、"
        said += f"{down} 通りは正答で訓練を続けた生徒モデルを下回る"
    assert said in " ".join((ROOT / name).read_text("utf-8").split()), said


def test_the_core_of_the_readme_runs_as_written(monkeypatch, tmp_path):
    import torch

    import negdistill

    code = (ROOT / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) == 4
    problems = generate("train", 8, seed=1)
    torch.manual_seed(0)
    width, u = 6, 3
    room = {name: getattr(negdistill, name) for name in negdistill.__all__} | {
        "load_student": tiny.llama,
        "settings": lambda epochs: settings(epochs=1, batch_size=8, progress=False),
        "data": training_set(problems, teach(problems, n=4)),
        "x": torch.randn(1, 4, width), "w0_x": torch.randn(1, 4, width),
        "pos": torch.randn(1, 4, width), "neg": torch.randn(1, 4, width),
        "w_q": torch.randn(u, width), "w_k": torch.randn(u, width),
        "w_1": torch.randn(u, width), "w_2": torch.randn(width, u),
        "logits": torch.randn(4, 9), "targets": torch.tensor([0, 1, 2, 3]),
        "log_p_nat": torch.randn(4, 9).log_softmax(1), "beta": torch.rand(4),
        "answers": ["1", "2", "1"], "scores": [0.2, 0.9, 0.3],
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    compiled = compile(code, "README.md", "exec")
    exec(compiled, room)
    assert room["out"].shape == (1, 4, width) and room["alpha"].abs().max() <= 0.5
    assert isinstance(room["nat"], Fit) and isinstance(room["nat"].history, pd.DataFrame)
