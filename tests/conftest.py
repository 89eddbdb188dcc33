"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the real data sets; tests that ask for it are skipped where there is none."""
    folder = os.environ.get("NEGDISTILL_DATA")
    if not folder:
        pytest.skip("needs the real data: set NEGDISTILL_DATA to its folder")
    return Path(folder)
