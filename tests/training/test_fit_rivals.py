"""Rivals as rows: what they read and start from, what they cost, and how they are resumed."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny import llama

from negdistill.data import arithmetic, arithmetic_text
from negdistill.training.batching import beside, encode, mismatched, pad_id, pairs, shared
from negdistill.training.dataset import TrainingSet, training_set
from negdistill.training.fit import adapted, fit
from negdistill.training.method_table import METHODS, RIGHT, WRONG
from negdistill.training.reference import log_probs, reference
from negdistill.training.reference import weights as weights_of
from negdistill.training.settings import settings

TOKENIZER = arithmetic_text.tokenizer()
CONFIG = settings(epochs=2, batch_size=8, progress=False, unit_dim=4, seed=3, dropout=0.0)
RIVALS = [name for name, row in METHODS.items() if row.origin == "rival" and row.data]
START = [name for name in RIVALS if METHODS[name].start == "continue"]


def make_data(n: int = 6) -> TrainingSet:
    problems = arithmetic.generate("train", n, seed=0)
    return training_set(problems, arithmetic.teach(problems, n=4))


def weights(one) -> dict[str, torch.Tensor]:
    return load_file(one.folder / "adapter/adapter_model.safetensors")


@pytest.fixture(scope="module")
def student():
    return llama()


@pytest.fixture(scope="module")
def data():
    return make_data()


@pytest.fixture(scope="module")
def cot(student, data, tmp_path_factory):
    return fit("CoT KD", student, data, CONFIG, tmp_path_factory.mktemp("start"))


# --- data ---------------------------------------------------------------------------------------------


def test_marks_stand_before_the_prompt(data):
    plain, marked = data.examples("both"), data.examples("both", marks=("+ ", "- "))
    for one, other in zip(plain, marked, strict=True):
        assert other == replace(one, prompt=("+ " if one.positive else "- ") + one.prompt)
    assert data.examples("both", marks=()) == plain


def test_answers_alone(data):
    found = data.examples("answers")
    assert [(one.id, one.completion) for one in found] == [
        (problem.id, rf"\boxed{{{problem.answer}}}") for problem in data.problems
    ]
    none = replace(data, problems=tuple(replace(problem, answer="") for problem in data.problems))
    with pytest.raises(ValueError, match="answers must not be empty: .*; leave Answers only out"):
        none.examples("answers")


def test_mismatched_rows_keep_the_prompt_and_take_another_questions_rationale(data):
    rows = encode(data.examples("both"), TOKENIZER, 256)
    made = mismatched(rows, 0, 256)
    own = {row.question: set() for row in rows}
    for row in rows:
        own[row.question].add(row.input_ids[row.prompt :].tobytes())
    for row, other in zip(rows, made, strict=True):
        ids = other.input_ids
        assert (ids[: row.prompt] == row.input_ids[: row.prompt]).all() and not other.matched
        assert ids[row.prompt :].tobytes() not in own[row.question]
        assert any(ids[row.prompt :].tobytes() in texts for texts in own.values())
        assert other.length == len(ids) == len(other.loss_mask)
        assert (other.loss_mask.nonzero()[0] >= row.prompt).all()
    assert (
        [a.id for a in mismatched(rows, 0, 256)]
        == [a.id for a in made]
        != [a.id for a in mismatched(rows, 1, 256)]
    )
    assert max(row.length for row in mismatched(rows, 0, 60)) == 60
    alone = [row for row in rows if row.question == rows[0].question]
    with pytest.raises(ValueError, match="rationales must belong to two questions at least"):
        mismatched(alone, 0, 256)


def test_neighbours_stay_together_in_orders_and_shares(data):
    rows = encode(data.examples("both"), TOKENIZER, 256)
    partners = []
    for epoch in range(3):
        for batch in beside(rows + mismatched(rows, 0, 256), 4, 0, epoch):
            assert all(b == a + len(rows) for a, b in zip(batch[::2], batch[1::2], strict=True))
        drawn = pairs(rows, 4, 0, epoch)
        for batch in drawn:
            for a, b in zip(batch[::2], batch[1::2], strict=True):
                assert rows[a].question == rows[b].question and rows[a].positive and not rows[b].positive
        ordered = [place for batch in drawn for place in batch]
        partners.append({*zip(ordered[::2], ordered[1::2], strict=True)})
    assert len(partners[0]) == len(partners[1]) and not partners[0] == partners[1] == partners[2]
    again = [place for batch in pairs(rows, 4, 0, 1) for place in batch]
    assert partners[1] == {*zip(again[::2], again[1::2], strict=True)}
    parts = [shared(range(10), rank, 3, 2) for rank in range(3)]
    assert parts == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5]]
    assert shared(range(5), 1, 2) == [1, 3]


# --- the reference ------------------------------------------------------------------------------------


def test_the_reference_is_that_of_one_row_after_the_other_and_kept(student, data, tmp_path):
    rows = encode(data.examples("both"), TOKENIZER, 256)
    found = reference(student.model, rows, pad_id(TOKENIZER), tmp_path / "r", 4, progress=False)
    for row, value in zip(rows, found.log_prob.tolist(), strict=True):
        ids = torch.tensor(row.input_ids[None], dtype=torch.long)
        with torch.no_grad():
            logs = student.model(ids).logits[0, :-1].log_softmax(1).gather(1, ids[0, 1:, None])[:, 0]
        assert value == pytest.approx(logs[torch.tensor(row.loss_mask[1:])].sum().item(), rel=1e-5)
    again = reference(student.model, rows, pad_id(TOKENIZER), tmp_path / "r", 4, progress=False)
    assert torch.equal(again.log_prob, found.log_prob) and again.key == found.key
    assert torch.equal(found([2, 0])["reference"], found.log_prob[[2, 0]]) and found([])["reference"] == 0
    assert torch.equal(found([2, 0])["weight"], found.weight[[2, 0]]) and found([])["weight"] == 0
    with pytest.raises(ValueError, match="belongs to another run: other data"):
        reference(student.model, rows[1:], pad_id(TOKENIZER), tmp_path / "r", 4, progress=False)
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        reference(student.model, rows, pad_id(TOKENIZER), tmp_path / "r", 0, progress=False)
    with pytest.raises(ValueError, match="belongs to another run: other model"):
        other = llama().model
        other.lm_head.weight.data += 1
        reference(other, rows, pad_id(TOKENIZER), tmp_path / "r", 4, progress=False)


def test_weights_follow_from_the_whole_training_set(data):
    """Not from a batch, and not from each prompt's rationale of another question."""
    rows = encode(data.examples("both"), TOKENIZER, 256)
    right, wrong = ([row for row in rows if row.positive is side] for side in (True, False))
    for few in (rows, right + wrong[:2], right[:2] + wrong):
        found = weights_of(few + mismatched(few, 0, 256))
        positive = torch.tensor([row.positive for row in few])
        ratio = found[: len(few)][positive].sum() / found[: len(few)][~positive].sum()
        assert 1 - 1e-6 <= ratio <= 4 / 3 + 1e-6 and torch.equal(found[: len(few)], weights_of(few))


def test_rows_of_the_table_that_ask_the_same_share_the_reference(student, data, cot, tmp_path):
    for name in ("DPO", "DPO + NLL", "TOPR", "KTO, no z0", "KTO"):
        fit(name, student, data, CONFIG, tmp_path, start=cot)
    assert len(list(tmp_path.glob("reference-*"))) == 2  # KTO has more rows


# --- rows ---------------------------------------------------------------------------------------------


def test_losses_at_the_start(student, data, cot, tmp_path):
    """The first step is taken at the start: d is 0, and TOPR is REINFORCE."""
    first = {}
    for name in START:
        done = fit(name, student, data, CONFIG, tmp_path, start=cot)
        assert done.total_steps == done.steps + cot.steps
        first[name] = done.history["loss"].iloc[0]
    assert first["DPO"] == pytest.approx(0.693147, abs=1e-4) == first["DPO, small beta"]
    right = len(data.positives)
    lambdas = {max(1, (24 - right) / right), max(1, right / (24 - right) * 3 / 4)}
    for name in ("KTO", "KTO, no z0"):
        assert min(lambdas) / 2 - 1e-4 < first[name] < max(lambdas) / 2 + 1e-4 and max(lambdas) > 1
    nll = first["DPO + NLL"] - first["DPO"]
    assert nll == pytest.approx(2 * first["REDI, alpha 0"], rel=1e-4)
    wrong = first["NSR"]
    assert first["REDI"] == pytest.approx(nll / 2 + 0.8 * wrong, rel=1e-3)
    assert first["W-REINFORCE"] == pytest.approx(0.1 * nll / 2 + wrong, rel=1e-3)


@pytest.mark.parametrize("name", ["DPO", "KTO"])
def test_training_goes_on_from_cot_kd(name, student, data, cot, tmp_path):
    still = replace(CONFIG, train=replace(CONFIG.train, lr=1e-12))
    done = fit(name, student, data, still, tmp_path, start=cot)
    for key, tensor in weights(cot).items():
        assert torch.allclose(weights(done)[key], tensor, atol=1e-9)


def test_preference_losses_part_right_from_wrong(student, data, cot, tmp_path):
    rows = encode(data.examples("both"), TOKENIZER, 256)
    right = torch.tensor([row.positive for row in rows])
    both = {row.question for row in rows if row.positive} & {row.question for row in rows if not row.positive}
    paired = torch.tensor([row.question in both for row in rows])

    def margin(one):
        with adapted(student, one) as trained:
            summed = log_probs(trained.model, rows, pad_id(TOKENIZER))[0]
        return (summed[right & paired].mean() - summed[~right & paired].mean()).item()

    many = replace(CONFIG, train=replace(CONFIG.train, epochs=20))
    for name in ("DPO", "KTO", "REDI, alpha 1", "NSR"):
        assert margin(fit(name, student, data, many, tmp_path, start=cot)) > margin(cot) + 1, name


def test_marked_rows_answer_under_the_mark_of_right_ones(student, data, tmp_path):
    done = fit("Label prefix", student, data, CONFIG, tmp_path)
    swapped, mix = (fit(name, student, data, CONFIG, tmp_path) for name in ("Label prefix, swapped", "MIX"))
    assert (done.prefix, swapped.prefix, mix.prefix) == (RIGHT, WRONG, "")
    assert done.steps == mix.steps and done.tokens > mix.tokens


def test_glow_weighs_from_the_second_epoch_on(student, data, tmp_path):
    one = replace(CONFIG, train=replace(CONFIG.train, epochs=1, gradient_accumulation_steps=2))
    done, mix = (fit(name, student, data, one, tmp_path) for name in ("GLOW", "MIX"))
    assert done.history["loss"].iloc[0] == pytest.approx(mix.history["loss"].iloc[0], rel=0.05)
    more = replace(CONFIG, train=replace(CONFIG.train, epochs=2, lr=1e-12))
    history = fit("GLOW", student, data, more, tmp_path).history
    half = len(history) // 2  # nothing is learnt: every weight of the second epoch is 1/2
    first, second = (part["loss"].mean() for part in (history[:half], history[half:]))
    assert second == pytest.approx(first / 2, rel=0.05)


@pytest.mark.parametrize("name", ["DPO", "KTO", "GLOW"])
def test_an_interrupted_rival_continues_to_the_same_weights(name, student, data, cot, tmp_path):
    config = replace(CONFIG, train=replace(CONFIG.train, epochs=3, checkpoint_every=1))
    calls, fail = [], []

    def cut(trained, epoch):
        calls.append(epoch)
        if fail == [epoch]:
            fail.clear()
            raise KeyboardInterrupt

    cut.key = "counts"
    whole = fit(name, student, data, config, tmp_path / "whole", start=cot, on_epoch=cut)
    calls.clear()
    fail.append(2)
    with pytest.raises(KeyboardInterrupt):
        fit(name, student, data, config, tmp_path / "cut", start=cot, on_epoch=cut)
    done = fit(name, student, data, config, tmp_path / "cut", start=cot, on_epoch=cut)
    assert calls == [1, 2, 2, 3]
    for key, tensor in weights(whole).items():
        assert torch.equal(weights(done)[key], tensor)


def test_bad_calls_are_refused(student, data, cot, tmp_path):
    with pytest.raises(ValueError, match="start.method must be one of 'CoT KD'; got 'MIX'"):
        fit("DPO", student, data, CONFIG, tmp_path, start=replace(cot, method="MIX"))
    wrong = {one.problem_id for one in data.negatives}
    apart = replace(data, positives=tuple(one for one in data.positives if one.problem_id not in wrong))
    if apart.positives:
        with pytest.raises(ValueError, match="examples must hold a batch in the order asked for"):
            fit("DPO", student, apart, CONFIG, tmp_path, start=cot)


@pytest.mark.parametrize(("row", "module"), [("DPO", "reference"), ("KD", "teacher_cache")])
def test_a_pass_of_other_code_is_made_again_and_not_refused(
    student, data, tmp_path, monkeypatch, row, module
):
    brief = settings(max_steps=4, batch_size=8, progress=False, unit_dim=4, dropout=0.0)
    fit(row, student, data, brief, tmp_path)
    for name in (module, "passes", "fit"):
        monkeypatch.setattr(f"negdistill.training.{name}.digest_code", lambda *names: "changed")
    fit(row, student, data, brief, tmp_path)
    assert len(list(tmp_path.glob(f"{module.removesuffix('_cache')}-*"))) == 2
