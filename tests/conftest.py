"""Fixtures shared by all tests."""

import json
import os
import signal
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import constants

from negdistill.bookmaking import plots
from negdistill.bookmaking.pages import render
from negdistill.bookmaking.pipeline import ONE_THREAD
from negdistill.data.tasks import load_task
from negdistill.runs.digests import digest_file
from negdistill.runs.folder import machine
from negdistill.training.method_table import METHODS

os.environ.update(ONE_THREAD, HF_HUB_DISABLE_TELEMETRY="1")  # processes that tests start inherit it
constants.HF_HUB_DISABLE_TELEMETRY = True  # trl would report each of its trainers, and who runs them
torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell starts in the background
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and this under nohup

ROOT = Path(__file__).parents[1]
SLOW = (  # what takes longest, by name of file, in the order of its start where tests run side by side
    *("test_profiles.py", "05_baselines.ipynb", "09_ablations.ipynb", "07_asc.ipynb", "test_fit.py"),
    *("test_pipeline.py", "test_loop.py"),
    *("test_site.py", "test_access.py"),  # by now the pages are rendered where that began with the tests
    *("08_generalization.ipynb", "test_evaluate.py", "test_quiet.py", "test_processes.py"),
    *("06_nce.ipynb", "04_nat.ipynb", "02_student.ipynb", "03_negative_adapter.ipynb", "test_checkpoint.py"),
    *("10_rivals.ipynb", "11_real_student.ipynb", "12_when.ipynb"),
    *("test_export.py", "test_answers.py", "test_generate.py", "test_sample.py"),
)


@pytest.hookimpl(optionalhook=True)  # so that tests run without xdist, too
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """With `-n auto`: one more than cores, since a test often waits for a kernel or a browser to start."""
    return machine()["cores"] + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files first, so that none is left alone at the end; within a file everything stays in order."""
    rank = {name: place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: rank.get(item.path.name, len(SLOW)))


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def styled():
    """The style of the book's figures; they are closed afterwards."""
    with matplotlib.rc_context():
        plots.style()
        yield
    plt.close("all")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the real data sets; tests that ask for it are skipped where there is none."""
    folder = os.environ.get("NEGDISTILL_DATA")
    if not folder:
        pytest.skip("needs the real data: set NEGDISTILL_DATA to its folder")
    return Path(folder)


@pytest.fixture(scope="session")
def html() -> Path:
    """Folder of the rendered book, rendered now if anything changed; of several processes one does."""
    if not Path(sys.executable).with_name("jupyter-book").exists():
        pytest.skip("needs jupyter-book beside the Python that runs the tests")
    return render(ROOT, "book")


def _at_random():
    """A function: answers of methods, right at random as often as their place says, with more columns."""
    chance = np.random.default_rng(0)
    level = {problem.id: problem.level for problem in load_task("arithmetic").questions("test", 35, 0)}

    def rows(methods, **columns):
        frame = pd.MultiIndex.from_product(
            [methods, [0, 1, 2], list(level)], names=["method", "seed", "problem_id"]
        )
        frame = frame.to_frame(index=False).assign(**columns)
        frame["level"] = frame["problem_id"].map(level)
        rate = frame["method"].map({method: 0.3 + 0.1 * (n % 5) for n, method in enumerate(methods)})
        return frame.assign(answer="7", correct=chance.random(len(frame)) < rate)

    return rows


def _chapters(rows):
    """The parts of each chapter's predictions, by what it declares them to be."""
    taught = [row.name for row in METHODS.values() if "NAT" not in row.uses]
    rivals = ["MIX", "UL", "Negatives first", "CoT KD, continued"]
    rivals += [row.name for row in METHODS.values() if row.origin == "rival"]
    trained = ["Fine-tune", "CoT KD", "MIX", "CL", "NT", "UL", "NAT", "NCE"]
    places = ["test", "longer", "reworded"]
    real = [*trained, "KD", "Label prefix", "Negatives first", "NAT, empty branch", "CoT KD, longer"]
    return {
        "methods": [
            rows(taught, teacher=t, budget=budget)
            for budget in ("equal steps", "as in the paper", "best point")
            for t in ("weak", "strong")
        ],
        "nce": [rows(["CoT KD", "NAT", *(name for name, row in METHODS.items() if row.beta_mode)])],
        "votes": [
            rows([f"{student}, {rule}" for rule in ("SC", "WS", "WS per token", "ASC")])
            for student in ("CoT KD", "NAT", "NCE")
        ],
        "shifted": [
            rows([*trained, "CoT KD, longer", *votes], set=place)
            for votes in [[f"{student}, {rule}" for student in ("CoT KD", "NCE") for rule in ("SC", "ASC")]]
            for place in places
        ],
        "negative": [rows(["CoT KD", "Negative adapter", "CoT KD, again"], budget="equal accuracy")],
        "rivals": [
            rows(methods, teacher=t, budget=budget)
            for t in ("weak", "strong")
            for methods, budget in (
                *((rivals, budget) for budget in ("equal steps", "best point")),
                ([f"CoT KD, continued, {rule}" for rule in ("SC", "likelihood ratio")], "vote of 16"),
            )
        ],
        "ablations": [
            *(rows(["CoT KD", "NAT"], variant=name) for name in ("as it is", "rank 2")),
            rows(
                ["CoT KD", "CoT KD, continued", "NAT"]
                + [f"Sum over {branch}" for branch in ("wrong answers", "right answers", "noise")],
                variant="again",
            ),
        ],
        "real": [
            rows(real, set="test"),
            *(rows(["CoT KD", "NAT"], set=place) for place in ("asdiv", "svamp")),
            rows([f"CoT KD, {rule}" for rule in ("SC", "WS", "ASC")], set="vote"),
        ],
    }


@pytest.fixture(scope="session")
def answered(tmp_path_factory) -> Path:
    """Predictions as the chapters leave them, in a folder: 3 seeds, 35 questions, answers at random."""
    folder = tmp_path_factory.mktemp("answered")
    for name, parts in _chapters(_at_random()).items():
        path = folder / f"chapter_{name}.parquet"
        pd.concat(parts).to_parquet(path, index=False)
        made = {"predictions": name, "manifest": {"artifacts": {"predictions.parquet": digest_file(path)}}}
        notebook = {"cells": [], "metadata": {"negdistill": made}, "nbformat": 4, "nbformat_minor": 5}
        path.with_suffix(".ipynb").write_text(json.dumps(notebook))
    return folder
