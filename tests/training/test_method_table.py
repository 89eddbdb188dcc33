"""Rows of one's own: found by name, refused in words, keyed by their source; a rival rebuilt from outside."""

import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from training.test_fit_rivals import CONFIG, llama, make_data

from negdistill.training.fit import adapted, fit
from negdistill.training.method_table import METHODS, Method, digest_method, find_method

DPO = '''"""DPO again."""
import torch

from negdistill.method.objectives import rationales
from negdistill.training.method_table import Method
{more}

def loss(model, batch):
    seen = rationales(model, batch)
    order = torch.argsort(seen.question * 2 + (~seen.positive).long())
    right, wrong = seen.gain[order].view(-1, 2).unbind(1)
    return 2 * torch.nn.functional.softplus(-{beta} * (right - wrong)).sum()


Mine = Method(
    "Mine", "own", "both", "lora", "DPO from outside", loss, uses=("CoT KD",), start="continue",
    order="pairs", per="row", reference=True,
)
Number = 3
Typo = Method("Typo", "own", "both", "lora", "learns from nothing known", "likelyhood")
Wrong = Method("Wrong", "own", "both", "lora", "uses what is not there", uses=("No",), start="continue")
Plain = Method(
    "Plain", "own", "positives", "lora", "CoT KD as NAT", uses=("CoT KD",), start="teacher", beta_mode="none"
)
Deep = Method("Deep", "own", "both", "lora", "from a unit", uses=("NAT",), start="continue")
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A function that writes a module and lets Python find it."""
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
        written.append(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


def test_a_rival_rebuilt_from_outside_is_the_same(module, tmp_path):
    module("own_dpo", DPO.format(beta=0.1, more=""))
    student, data = llama(), make_data()
    mine, ours = (fit(name, student, data, CONFIG, tmp_path / "fits") for name in ("own_dpo:Mine", "DPO"))
    one, other = (load_file(done.folder / "adapter/adapter_model.safetensors") for done in (mine, ours))
    assert mine.method == "own_dpo:Mine"
    assert (mine.total_steps, mine.tokens) == (ours.total_steps, ours.tokens)
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], atol=1e-4)
    with adapted(student, mine) as trained:
        assert hasattr(trained.model, "peft_config")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("__main__:Mine", "must lie in a module of its own"),
        (".own:Mine", "needs the module '.own' where Python"),
    ],
)
def test_a_row_that_no_key_could_name_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        find_method(name)


def test_it_is_keyed_by_its_source_and_what_lies_beside_it(module, tmp_path):
    module("own_help", "B = 1\n")
    module("own_dpo", DPO.format(beta=0.1, more="import own_help"))
    row = find_method("own_dpo:Mine")
    first = digest_method(row)
    module("own_dpo", "# a remark\n" + DPO.format(beta=0.1, more="import own_help"))
    assert digest_method(row) == first
    module("own_help", "B = 2\n")
    with pytest.raises(ValueError, match="own_dpo:Mine must be what its file says; .* restart Python"):
        digest_method(row)  # what was imported has B = 1
    module("own_dpo", DPO.format(beta=0.1, more="import own_help"))
    assert digest_method(find_method("own_dpo:Mine")) != first
    module("own_dpo", DPO.format(beta=0.2, more="import own_help"))
    assert digest_method(row) != first
    student, data = llama(), make_data()
    folder = fit("own_dpo:Mine", student, data, CONFIG, tmp_path / "fits").folder
    module("own_dpo", DPO.format(beta=0.3, more="import own_help"))
    assert fit("own_dpo:Mine", student, data, CONFIG, tmp_path / "fits").folder != folder


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("No", ValueError, "method must be one of 'Few-shot', .*; got 'No'"),
        ("no_such_module:Mine", ValueError, "needs the module 'no_such_module' where Python finds it"),
        (":Mine", ValueError, "needs the module '' where Python finds it"),
        ("own_dpo:Other", ValueError, "must name a Method of its module; own_dpo has no 'Other'"),
        ("own_dpo:", ValueError, "must name a Method of its module; own_dpo has no ''"),
        ("own_dpo:Number", TypeError, "must be a method_table.Method; got int"),
        ("own_dpo:Wrong", ValueError, "uses of own_dpo:Wrong must be one of .*; got 'No'"),
        (
            "own_dpo:Typo",
            ValueError,
            "objective of own_dpo:Typo must be one of 'likelihood', .*; got 'likely",
        ),
        ("own_broken:Mine", ValueError, "needs the module 'own_broken' .* invalid syntax"),
        ("own_unset:Mine", ValueError, "needs the module 'own_unset' .* name 'undefined' is not defined"),
        ("own_ending:Mine", ValueError, "needs the module 'own_ending' .*: 0"),
        ("own_dpo:Plain", ValueError, "uses of own_dpo:Plain must suit start 'teacher'; got 'CoT KD'"),
        ("own_dpo:Deep", ValueError, "uses of own_dpo:Deep must suit start 'continue'; got 'NAT'"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(module, name, kind, message):
    module("own_dpo", DPO.format(beta=0.1, more=""))
    module("own_broken", "def\n")
    module("own_unset", "undefined\n")
    module("own_ending", "raise SystemExit(0)\n")
    with pytest.raises(kind, match=message):
        find_method(name)


GOOD = dict(name="Mine", origin="own", data="both", view="lora", description="x")
AFTER = {"uses": ("CoT KD",), "start": "continue"}
MERGED = {"uses": ("Negative adapter", "CoT KD"), "start": "merge", "data": ""}


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"description": " "}, TypeError, "description of a method must be a text that says something"),
        ({"name": 3}, TypeError, "name of a method must be a text that says something; got 3"),
        ({"data": "pairs"}, ValueError, "data of Mine must be one of .*, 'both', 'answers'; got 'pairs'"),
        ({"view": "x"}, ValueError, "view of Mine must be one of 'base', 'lora', 'nat', 'contrast'; got 'x'"),
        ({"per": "pair"}, ValueError, "per of Mine must be one of 'target', 'row'; got 'pair'"),
        ({"objective": 3}, TypeError, "objective of Mine must be a name .* or a function of model and batch"),
        ({"uses": "CoT KD"}, TypeError, "uses of Mine must be a tuple of names of rows; got 'CoT KD'"),
        ({"uses": ("CoT KD",)}, ValueError, "start of Mine must say what becomes of the rows that it uses"),
        ({"start": "continue"}, ValueError, "start of Mine must say what becomes of the rows that it uses"),
        ({"marks": ("a",)}, TypeError, "marks of Mine must be a tuple of two texts"),
        ({"rates": ()}, ValueError, "rates of Mine must be factors above 0, at least one"),
        ({"rates": (0.1, -1)}, ValueError, "rates of Mine must be greater than 0; got -1"),
        ({"rates": (float("nan"),)}, ValueError, "rates of Mine must be finite; got nan"),
        ({"rates": (True,)}, TypeError, "rates of Mine must be a number; got True"),
        ({"reference": "yes"}, TypeError, "reference of Mine must be True or False; got 'yes'"),
        ({"memory": 1}, TypeError, "memory of Mine must be True or False; got 1"),
        ({"objective": lambda a, b, c: a}, TypeError, "objective of Mine must take model and batch: missing"),
        ({"data": ""}, ValueError, "data of Mine must say what it trains on, or uses"),
        ({"view": "contrast"}, ValueError, "view of Mine must be 'lora' for start ''; got 'contrast'"),
        ({"view": "base"}, ValueError, 'data and uses of Mine must be empty for view "base"'),
        ({"view": "base", "data": "", **AFTER}, ValueError, "data and uses of Mine must be empty for view"),
        ({**AFTER, "view": "nat"}, ValueError, "view of Mine must be 'lora' for start 'continue'"),
        ({**AFTER, "start": "branch"}, ValueError, "view of Mine must be 'nat' for start 'branch'"),
        ({**AFTER, "start": "contrast"}, ValueError, "view of Mine must be 'contrast' for start 'contrast'"),
        ({**AFTER, "uses": ("CoT KD", "MIX")}, ValueError, "uses of Mine must be one row for start 'contin"),
        ({**MERGED, "uses": ("CoT KD", "Negative adapter")}, ValueError, r"uses of Mine must be \('Negative"),
        ({**MERGED, "data": "both"}, ValueError, """and data "" for start 'merge'; got .* 'both'"""),
        (
            {"uses": ("NAT",), "start": "teacher"},
            ValueError,
            "beta_mode of Mine must be named where it starts",
        ),
        ({"beta_mode": "mean"}, ValueError, "beta_mode of Mine must be named where it starts"),
        ({"rates": ("x",)}, TypeError, "rates of Mine must be a tuple of factors above 0"),
        ({"order": "pairs", "data": "positives"}, ValueError, 'data of Mine must be "both" for order'),
    ],
)
def test_a_row_that_says_too_little_is_refused(change, kind, message):
    assert Method(**GOOD).rates == METHODS["CoT KD"].rates
    with pytest.raises(kind, match=message):
        Method(**GOOD | change)


def test_an_objective_that_returns_no_number_is_refused(module, tmp_path):
    text = DPO.format(beta=0.1, more="").replace(".sum()\n", "\n")
    module("own_dpo", text)
    with pytest.raises(ValueError, match=r"objective 'loss' must return one number, the sum over its rows"):
        fit("own_dpo:Mine", llama(), make_data(), CONFIG, tmp_path)
    wrong = {
        "needs 'refrence', which a batch does not have; it has input_ids": lambda model, batch: batch[
            "refrence"
        ],
        r"with a gradient; got \[\], without a gradient": lambda model, batch: torch.zeros(()),
        r"with a gradient; got \[\], without a gradient$": lambda model, batch: batch["question"].sum(),
        "with a gradient; got float": lambda model, batch: 1.0,
    }
    for message, objective in wrong.items():
        sys.modules["own_dpo"].Mine = replace(find_method("own_dpo:Mine"), name="Mine", objective=objective)
        with pytest.raises(ValueError, match=message):
            fit("own_dpo:Mine", llama(), make_data(), CONFIG, tmp_path)


def test_every_family_has_a_grid_of_the_same_size():
    assert {len(row.rates) for row in METHODS.values()} == {3}
    gentle = {name for name, row in METHODS.items() if row.origin == "rival" and row.start == "continue"}
    assert all(max(METHODS[name].rates) <= 0.1 for name in gentle) and len(gentle) == 11
