"""Digests: of code against edits of a package made by hand, of weights against every bit of them."""

import ast
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from negdistill.runs.digests import (
    SOURCE,
    digest_code,
    digest_file,
    digest_json,
    digest_text,
    digest_tree,
    digest_weights,
    imported,
)

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1

FILES = {
    "one": '"""One."""\nfrom negdistill.room.two import g\n\n\ndef f():\n    """F."""\n    return g() + 1\n',
    "room/two": "import json\nfrom negdistill.room import three\n\n\ndef g():\n    return three.H\n",
    "room/three": "import typing\nif typing.TYPE_CHECKING:\n    from negdistill.four import I\nH = 2\n",
    "four": "I = 3\n",
}


@pytest.fixture
def source(tmp_path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "negdistill" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def edit(source: Path, name: str, old: str, new: str) -> None:
    path = source / "negdistill" / f"{name}.py"
    text = path.read_text()
    assert old in text
    path.unlink()
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new", "counts"),
    [
        ("one", "return g() + 1", "return g() + 2", True),
        ("room/two", "three.H", "three.H + 0", True),
        ("room/three", "H = 2", "H = 3", True),  # reached through two others
        ("four", "I = 3", "I = 4", False),  # only an annotation asks for it
        ("one", '"""F."""', '"""Another word."""', False),
        ("one", "return g() + 1", "return  g()+1  # why", False),
        ("room/two", "import json", "import os", True),
    ],
)
def test_code_counts_where_it_decides(source, name, old, new, counts):
    before = digest_code("negdistill.one", source=source)
    edit(source, name, old, new)
    assert (digest_code("negdistill.one", source=source) != before) is counts


def test_a_circle_of_imports_ends(source):
    edit(source, "room/three", "H = 2", "H = 2\nfrom negdistill import one")
    assert digest_code("negdistill.one", source=source)


def test_a_public_name_stands_for_its_module():
    assert imported(ast.parse("from negdistill import fit")) == {"negdistill.training.fit"}
    assert imported(ast.parse("import torch\nfrom negdistill.data import arithmetic")) >= {
        "negdistill.data.arithmetic"
    }


@pytest.mark.parametrize(
    ("module", "depends", "free"),
    [
        (
            "training.fit",
            ["method/nce", "method/losses", "method/nat_unit", "training/loop"],
            "bookmaking/plots",
        ),
        ("training.teacher_cache", ["method/nce", "method/objectives", "training/batching"], "training/loop"),
        ("inference.ranker_fit", ["inference/ranker", "training/loop"], "bookmaking/tables"),
        ("inference.sample", ["inference/engine", "inference/rng"], "training/loop"),
    ],
)
def test_no_module_that_a_result_follows_from_is_left_out(tmp_path, module, depends, free):
    """Kind: a result that stays although code changed that it calls; as in joblib/joblib#1287,
    huggingface/datasets#3297.
    """
    shutil.copytree(
        SOURCE / "negdistill", tmp_path / "negdistill", ignore=shutil.ignore_patterns("embedded", "__*")
    )
    before = digest_code(f"negdistill.{module}", source=tmp_path)
    for name in (*depends, free):
        path = tmp_path / "negdistill" / f"{name}.py"
        text = path.read_text()
        path.write_text(text + "\nchanged = 1\n")
        assert (digest_code(f"negdistill.{module}", source=tmp_path) != before) is (name != free), name
        path.write_text(text)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_every_bit_of_a_weight_counts(dtype):
    """Kind: weights that were damaged and load in silence; as in vllm-project/vllm#53537,
    pytorch/torchtitan#4011.
    """
    weight = torch.arange(5000).remainder(100).to(dtype)
    before = digest_weights([("w", weight)])
    for place in (0, 1, 2777, 4999):  # a digest of a few values would miss most of them
        raw = weight.clone().view(torch.uint8)
        raw[place] ^= 1
        assert digest_weights([("w", raw.view(dtype))]) != before
    assert digest_weights([("w", weight.view(50, 100))]) != before
    assert digest_weights([("v", weight)]) != before
    assert digest_weights([("w", weight.clone())]) == before


def test_a_transposed_weight_is_read_in_its_own_order():
    weight = torch.arange(6.0).view(2, 3)
    assert digest_weights([("w", weight.t())]) == digest_weights([("w", weight.t().contiguous())])


# --- digests ------------------------------------------------------------------------------------------


def test_digests_are_sha256(tmp_path):
    assert digest_text("abc") == ABC
    (tmp_path / "abc").write_bytes(b"abc")
    assert digest_file(tmp_path / "abc") == ABC
    assert digest_text("é") == hashlib.sha256("é".encode()).hexdigest()


def test_digest_json_ignores_the_order_of_keys_only():
    assert digest_json({"a": 1, "b": [1, 2]}) == digest_json({"b": [1, 2], "a": 1})
    assert len({digest_json(value) for value in ([1, 2], [2, 1], ["1", 2], {"1": 2}, 12)}) == 5


def test_digest_json_refuses_what_json_cannot_hold():
    with pytest.raises(ValueError, match="must be of JSON's types to be recorded: Object of type Path|Posix"):
        digest_json({"folder": Path("x")})


def test_digest_tree_sees_content_and_names_not_bytecode(tmp_path):
    for name in ("a.py", "data/b.json", "__pycache__/a.pyc", ".cache/c", "data/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("abc")
    assert digest_tree(tmp_path) == {"a.py": ABC, "data/b.json": ABC}
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    (tmp_path / "data" / "b.json").write_text("abd")
    tree = digest_tree(tmp_path)
    assert set(tree) == {"b.py", "data/b.json"} and tree["data/b.json"] != ABC


@pytest.mark.parametrize(
    "how",
    ["from .losses import loss", "from . import losses", "from .losses import *", "import mine.losses"],
)
def test_a_relative_import_leads_to_its_module(tmp_path, how):
    write = {"mine/__init__.py": "A = 1\n", "mine/rows.py": f"{how}\n", "mine/losses.py": "loss = 1\n"}
    for name, text in write.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = digest_code("mine.rows", source=tmp_path, package="mine")
    (tmp_path / "mine/losses.py").unlink()
    (tmp_path / "mine/losses.py").write_text("loss = 2\n")
    assert digest_code("mine.rows", source=tmp_path, package="mine") != before


def test_relative_imports_begin_at_the_package_of_their_module():
    tree = ast.parse("from ..other import x\nfrom . import y\nfrom .deep import z\n")
    assert imported(tree, "mine", "mine.room") == {
        "mine.other",
        "mine.other.x",
        "mine.room",
        "mine.room.y",
        "mine.room.deep",
        "mine.room.deep.z",
    }


def test_a_package_beside_a_module_counts_by_what_it_runs(tmp_path):
    (tmp_path / "mine.py").write_text("from helpers import loss\n")
    (tmp_path / "helpers").mkdir()
    inside = tmp_path / "helpers" / "__init__.py"
    inside.write_text("loss = 1\n")
    before = digest_code("mine", source=tmp_path, package="")
    inside.unlink()
    inside.write_text("loss = 2\n")
    assert digest_code("mine", source=tmp_path, package="") != before


def test_numbers_of_numpy_are_those_of_python():
    value = {"seed": np.int64(2), "lr": np.float32(0.5), "flags": [np.int32(1)]}
    assert digest_json(value) == digest_json({"seed": 2, "lr": 0.5, "flags": [1]})
    with pytest.raises(ValueError, match="must be of JSON's types to be recorded: .*Path"):
        digest_json({"folder": Path()})
