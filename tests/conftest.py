"""Fixtures shared by all tests."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from negdistill.data.tasks import load_task
from negdistill.training.method_table import METHODS


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the real data sets; tests that ask for it are skipped where there is none."""
    folder = os.environ.get("NEGDISTILL_DATA")
    if not folder:
        pytest.skip("needs the real data: set NEGDISTILL_DATA to its folder")
    return Path(folder)


@pytest.fixture(scope="session")
def answered(tmp_path_factory) -> Path:
    """Predictions as chapters 05 to 09 leave them, in a folder: 3 seeds, 35 questions, answers at random."""
    folder, chance = tmp_path_factory.mktemp("answered"), np.random.default_rng(0)
    asked = [problem.id for problem in load_task("arithmetic").questions("test", 35, 0)]

    def rows(methods, **columns):
        frame = pd.MultiIndex.from_product(
            [methods, [0, 1, 2], asked], names=["method", "seed", "problem_id"]
        )
        frame = frame.to_frame(index=False).assign(**columns)
        rate = frame["method"].map({method: 0.3 + 0.1 * (n % 5) for n, method in enumerate(methods)})
        return frame.assign(answer="7", correct=chance.random(len(frame)) < rate)

    taught = [row.name for row in METHODS.values() if "NAT" not in row.uses]
    compared = ["CoT KD", "UL", "NAT", "NAT, empty branch", "Negatives first"]
    trained = ["Fine-tune", "CoT KD", "MIX", "CL", "NT", "UL", "NAT", "NCE"]
    places = ["test", "longer", "reworded"]
    of = {
        "05_baselines": [
            *(rows(taught, teacher=t, budget="equal steps", questions=70) for t in ("weak", "strong")),
            *(
                rows(compared, teacher=t, budget=budget, questions=n)
                for t in ("weak", "strong")
                for budget, n in (("equal tokens", 70), ("best point", 70), ("equal steps", 35))
            ),
        ],
        "06_nce": [rows(["CoT KD", "NAT", *(name for name, row in METHODS.items() if row.beta_mode)])],
        "07_asc": [
            rows([f"{student}, {rule}" for rule in ("SC", "WS", "WS per token", "ASC")])
            for student in ("CoT KD", "NAT", "NCE")
        ],
        "08_generalization": [
            rows([*trained, "CoT KD, longer", *votes], set=place)
            for votes in [[f"{student}, {rule}" for student in ("CoT KD", "NCE") for rule in ("SC", "ASC")]]
            for place in places
        ],
        "09_ablations": [rows(["CoT KD", "NAT"], variant=name) for name in ("as it is", "rank 2")],
    }
    for name, parts in of.items():
        pd.concat(parts).to_parquet(folder / f"{name}.parquet", index=False)
    return folder
