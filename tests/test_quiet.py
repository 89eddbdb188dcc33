"""Quiet: no library says anything on stderr, whatever the processor can do and whatever is installed."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from negdistill.bookmaking.planning import notebooks

SOURCES = notebooks(Path(__file__).parents[1] / "notebooks")
OLD = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
# Tells bitsandbytes, should anybody load it, whether the processor has AVX512-BF16.
TELL = """
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder

class Teller(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "bitsandbytes.functional":
            return None
        spec = PathFinder.find_spec(name, path)
        load = spec.loader.exec_module
        def told(module):
            load(module)
            module.has_avx512bf16 = lambda: {answer}
        spec.loader.exec_module = told
        return spec

sys.meta_path.insert(0, Teller())
"""
# What a chapter does before it imports PEFT itself: the package has loaded it, without bitsandbytes.
TRAIN = """
from negdistill import load_student
from negdistill.training.adapters import lora
from negdistill.training.settings import EMBEDDED
student = load_student("embedded", device="cpu")
with lora(student.model, EMBEDDED):
    pass
"""
NOT_LOADED = """
assert "bitsandbytes" not in sys.modules
"""


def imports() -> str:
    """Every import of the notebooks."""
    lines = {}
    for path in SOURCES:
        for cell in nbformat.read(path, as_version=4).cells:
            tree = ast.parse(cell.source) if cell.cell_type == "code" else ast.Module([], [])
            found = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
            lines |= dict.fromkeys(map(ast.unparse, found))
    assert any("load_student" in line for line in lines)
    return "\n".join(lines)


def stderr_of(code: str, **own: str) -> str:
    """What a process says on stderr that runs the code to its end."""
    line, environment = [sys.executable, "-c", code], {**os.environ, **own, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize(("answer", "own"), [(True, OLD), (False, {})], ids=["old but told", "as it is"])
def test_what_the_notebooks_import_says_nothing(answer, own):
    """Kind: a warning at import that depends on the processor; as in
    bitsandbytes-foundation/bitsandbytes#2064.
    """
    assert stderr_of(TELL.replace("{answer}", str(answer)) + TRAIN + imports() + NOT_LOADED, **own) == ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_imports_peft_after_the_package_has_even_where_all_trainings_were_kept(path):
    opened = False
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert opened or not re.search(r"^\s*(from|import) peft\b", cell.source, re.MULTILINE), (
                cell.source
            )
            opened |= bool(re.search(r"\bstored\(.*, \"lora\"\)", cell.source))


def test_bitsandbytes_would_have_said_something():
    """So the test above would have seen it."""
    pytest.importorskip("bitsandbytes")
    said = stderr_of(TELL.replace("{answer}", "True") + "import bitsandbytes")
    assert "gemm_4bit_forward" in said
    assert stderr_of(TELL.replace("{answer}", "False") + "import bitsandbytes") == ""


@pytest.mark.parametrize("command", [["--help"], ["status"], ["run", "--profile", "smoke", "--dry-run"]])
def test_commands_say_nothing_on_stderr(command):
    line = [sys.executable, "-W", "error", "-m", "negdistill", *command]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
