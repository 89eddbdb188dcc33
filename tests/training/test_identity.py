"""Identity: everything that changes an answer changes the digest, and nothing else does."""

import copy
import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import tiny
from tokenizers import normalizers
from torch import nn

from negdistill.data import arithmetic_text
from negdistill.method.nat import attach
from negdistill.method.nat_unit import NATConfig
from negdistill.method.objectives import likelihood, unlikelihood
from negdistill.training.identity import digest_model, digest_objective, digest_student, digest_tokenizer


def set_config(name, value):
    return lambda model: setattr(model.config, name, value)


def flip(model):
    with torch.no_grad():
        model.lm_head.weight[3, 5] += 2**-20


def end(model):
    model.generation_config.eos_token_id = [2, 5]


@pytest.mark.parametrize(
    "change",
    [
        set_config("rope_parameters", {"rope_type": "default", "rope_theta": 5.0}),
        set_config("max_position_embeddings", 48),
        set_config("eos_token_id", 7),
        set_config("rms_norm_eps", 1e-3),
        flip,
        end,
    ],
)
def test_what_changes_an_answer_changes_the_digest_of_a_model(change):
    """Kind: a key of results that lacks what decides them; as in EleutherAI/lm-evaluation-harness#4063."""
    one, other = tiny().model, tiny().model
    assert digest_model(one) == digest_model(other)
    change(other)
    assert digest_model(one) != digest_model(other)


def test_where_a_model_came_from_does_not_count():
    one, other = tiny().model, tiny().model
    other.config.name_or_path = "elsewhere"
    assert digest_model(one) == digest_model(other)


def lora(**changes):
    torch.manual_seed(0)
    settings = {"r": 2, "lora_alpha": 4, "lora_dropout": 0.1, "target_modules": ["q_proj"]}
    return get_peft_model(tiny().model, LoraConfig(**{**settings, **changes}))


def nat(**changes):
    torch.manual_seed(0)
    return attach(tiny().model, NATConfig(**{"r": 2, "unit_dim": 3, "dropout": 0.1, **changes}))


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (lora, {"lora_alpha": 8}),
        (lora, {"lora_dropout": 0.2}),
        (nat, {"lora_alpha": 8}),
        (nat, {"dropout": 0.2}),
        (nat, {"shift": 0.25}),
        (nat, {"mix": "sum"}),
    ],
)
def test_settings_of_an_adapter_count(make, changes):
    assert digest_model(make()) == digest_model(make()) != digest_model(make(**changes))


def test_settings_of_a_tokenizer_count_and_how_it_was_called_does_not():
    one, other = arithmetic_text.tokenizer(), arithmetic_text.tokenizer()
    before = digest_tokenizer(one)
    one(["1", "1 2 3"], padding=True, truncation=True, max_length=2)
    assert digest_tokenizer(one) == before
    other.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert digest_tokenizer(other) != before
    other = arithmetic_text.tokenizer()
    other.eos_token = "<pad>"
    assert digest_tokenizer(other) != before
    other = arithmetic_text.tokenizer()
    other.chat_template = "{{ messages }}"
    assert digest_tokenizer(other) != before


def test_a_student_is_both():
    student = tiny()
    assert digest_student(student) == {
        "student": digest_model(student.model),
        "tokenizer": digest_tokenizer(student.tokenizer),
    }


class Scaled:
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, model: nn.Module, batch) -> torch.Tensor:
        return self.weight * likelihood(model, batch)


def test_objectives_of_one_name_are_told_apart():
    """Kind: functions of one name, and partials, in a key; as in huggingface/datasets#3297,
    snad-space/ztf-viewer#640.
    """

    def scaled(weight):
        def objective(model, batch):
            return weight * likelihood(model, batch)

        return objective

    many = [
        likelihood,
        unlikelihood,
        partial(unlikelihood, weight=0.1),
        partial(unlikelihood, weight=0.2),
        scaled(1),
        scaled(2),
        Scaled(1),
        Scaled(2),
    ]
    assert len({digest_objective(one) for one in many}) == len(many)
    assert digest_objective(scaled(1)) == digest_objective(scaled(1))
    assert digest_objective(copy.copy(many[3])) == digest_objective(many[3])


def test_the_longest_text_of_a_tokenizer_counts():
    """It is the context of a model whose configuration has none."""
    one, other = arithmetic_text.tokenizer(), arithmetic_text.tokenizer()
    assert digest_tokenizer(one) == digest_tokenizer(other)
    other.model_max_length = 64
    assert digest_tokenizer(one) != digest_tokenizer(other)


def test_what_a_function_of_a_notebook_names_counts():
    """Kind: a key that knows a function and not what it calls; as in joblib/joblib#1105."""

    def digest(limit, helper):
        there = {"__name__": "__main__", "LIMIT": limit}
        code = f"def far(a):\n    return {helper}\ndef rule(a, b):\n    return any(far(a) > LIMIT for _ in b)"
        exec(compile(code, "<cell>", "exec"), there)
        return digest_objective(there["rule"])

    assert digest(0, "a") == digest(0, "a")
    assert len({digest(0, "a"), digest(1, "a"), digest(0, "2 * a")}) == 3


def test_a_function_of_a_notebook_that_calls_itself_has_a_digest():
    there = {"__name__": "__main__"}
    exec("def rule(a, b):\n    return a == b or rule(b, a)", there)
    assert digest_objective(there["rule"]) == digest_objective(there["rule"])


KEYED = """
import math
from functools import cache, partial
from negdistill.training.identity import digest_objective
UNITS, PLACE, data = {"km", "m", "cm", "mm"}, object(), object()
def helper(a, b=0): return a
half = partial(helper, b=2)
@cache
def kept(a): return half(a) in UNITS
def rule(answer, reference):
    return kept(answer) == reference.data or math.isnan(len(UNITS)) or PLACE is None
print(digest_objective(rule), digest_objective(kept))
"""


def test_the_key_of_a_script_s_function_is_the_same_in_every_python(tmp_path):
    """Kind: the order of a set, or an address, in a key; as in streamlit/streamlit#1129."""
    (tmp_path / "mine.py").write_text(KEYED)
    found = set()
    for seed in "12":
        changed = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "mine.py"], cwd=tmp_path, env=changed, check=True, capture_output=True
        )
        found.add(done.stdout)
    assert len(found) == 1 and len(set(found.pop().split())) == 2


def test_an_attribute_is_no_name_of_the_notebook():
    there = {"__name__": "__main__", "data": 1}
    exec("def rule(a, b):\n    return a.data == b.data", there)
    first = digest_objective(there["rule"])
    there["data"] = 2
    assert digest_objective(there["rule"]) == first
