"""Greedy answers against a loop without cache or batches."""

import importlib.util
from copy import deepcopy
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch
from tiny import TOKENIZER, llama

from negdistill.bookmaking.tables import accuracy_table, method_table
from negdistill.data import arithmetic
from negdistill.data.prompts import format_prompt
from negdistill.data.records import Problem, Rationale
from negdistill.data.tasks import load_task
from negdistill.inference import evaluate as evaluate_module
from negdistill.inference import sample as sample_module
from negdistill.inference.engine import Engine
from negdistill.inference.evaluate import (
    Follow,
    evaluate,
    fit_followed,
    likelihoods,
    predictions,
    rationale_log_probs,
)
from negdistill.inference.panel import sampled
from negdistill.inference.sample import sample
from negdistill.method.nat import attach, detach, view
from negdistill.method.nat_unit import NATConfig
from negdistill.training.batching import Example, real_text_tokenizer
from negdistill.training.dataset import TrainingSet, taught, training_set
from negdistill.training.fit import adapted, fit
from negdistill.training.loop import TrainConfig, train
from negdistill.training.settings import settings

CONTEXT = 128


def wide(seed=0):
    """A LLaMA whose answers end at a short context, in float64."""
    changes = {"hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": CONTEXT}
    made = llama(seed, initializer_range=0.02, **changes)
    return made._replace(model=made.model.double())


PROBLEMS = [
    replace(problem, level=place % 3) for place, problem in enumerate(arithmetic.generate("test", 8, 0))
]
ANSWERS = [
    *(f"That makes \\boxed{{{problem.answer}}}." for problem in PROBLEMS[:4]),
    "The answer is \\boxed{777}.",  # wrong
    f"The answer is {PROBLEMS[5].answer}.",  # right for the lenient rule only
    f"\\boxed{{{PROBLEMS[6].answer}}}\n\nProblem:\nThat makes \\boxed{{5}}",  # goes on to a next problem
    "There are 3 and 4",  # no answer at all
]


@pytest.fixture(scope="module")
def student():
    """A model that knows one answer to each problem by heart."""
    made = wide()
    examples = [
        Example(p.id, format_prompt(p.question), text) for p, text in zip(PROBLEMS, ANSWERS, strict=True)
    ]
    train(made.model, TOKENIZER, examples, TrainConfig(max_steps=120, lr=1e-2, batch_size=8, progress=False))
    return made


@torch.no_grad()
def loop(student, prompt, limit):
    """One prompt, one token at a time, the whole text again for each."""
    ids = TOKENIZER(prompt)["input_ids"]
    found = []
    while len(found) < limit and len(ids) + len(found) < CONTEXT:
        found.append(int(student.model(torch.tensor([ids + found])).logits[0, -1].argmax()))
        if found[-1] == TOKENIZER.eos_token_id:
            break
    return found


def text_of(ids):
    return TOKENIZER.decode(ids, skip_special_tokens=True)


# --- answers ------------------------------------------------------------------------------------------


def test_known_answers_are_given_and_graded(student):
    frame = evaluate(student, PROBLEMS)
    assert list(frame.columns) == ["problem_id", "subject", "level", "text", "answer", "correct"]
    assert frame["problem_id"].tolist() == [p.id for p in PROBLEMS]
    assert frame["subject"].tolist() == [p.subject for p in PROBLEMS]
    assert frame["level"].tolist() == [p.level for p in PROBLEMS]
    wanted = [text.partition("\n\n")[0] for text in ANSWERS]
    assert frame["text"].tolist() == wanted
    assert frame["correct"].tolist() == [True] * 4 + [False, False, True, False]
    assert frame["answer"].tolist() == [
        *(p.answer for p in PROBLEMS[:4]),
        *("777", None, PROBLEMS[6].answer, None),
    ]


def test_rules_are_those_of_grade(student):
    frame = evaluate(student, PROBLEMS, extract="lenient")
    assert frame["correct"].tolist() == [True] * 4 + [False, True, True, False]
    assert frame["answer"].tolist()[7] == "4"
    with pytest.raises(
        ValueError, match="extract must be one of 'boxed', 'lenient', 'choice', 'text'; got 'box'"
    ):
        evaluate(student, PROBLEMS, extract="box")


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batches_equal_the_loop(batch_size):
    """An untrained model, whose answers are long and never the same."""
    student = wide(seed=1)
    for parameter in student.model.parameters():
        parameter.data *= 10 if parameter.ndim > 1 else 1
    frame = evaluate(student, PROBLEMS, batch_size=batch_size, max_new_tokens=20)
    expected = [loop(student, format_prompt(p.question), 20) for p in PROBLEMS]
    assert frame["text"].tolist() == [text_of(ids).rstrip() for ids in expected]
    assert len({tuple(ids) for ids in expected}) == len(PROBLEMS)
    assert frame.attrs["tokens"] == sum(map(len, expected))
    assert frame.attrs["prompt_tokens"] == sum(
        len(TOKENIZER(format_prompt(p.question))["input_ids"]) for p in PROBLEMS
    )
    assert frame.attrs["seconds"] > 0


def test_rows_end_at_their_own_end_of_text(student):
    frame = evaluate(student, PROBLEMS, max_new_tokens=60)
    expected = [loop(student, format_prompt(p.question), 60) for p in PROBLEMS]
    assert all(ids[-1] == TOKENIZER.eos_token_id for ids in expected)
    assert len(set(map(len, expected))) > 2
    assert frame.attrs["tokens"] == sum(map(len, expected))
    pd.testing.assert_frame_equal(evaluate(student, PROBLEMS, batch_size=3, max_new_tokens=60), frame)


def test_the_order_of_problems_is_kept(student):
    order = [5, 2, 7, 0, 6, 1, 4, 3]
    frame = evaluate(student, PROBLEMS).iloc[order].reset_index(drop=True)
    shuffled = evaluate(student, [PROBLEMS[i] for i in order], batch_size=3)
    pd.testing.assert_frame_equal(frame, shuffled)


def test_an_answer_may_be_cut_by_its_limit_and_by_the_context(student):
    frame = evaluate(student, PROBLEMS, max_new_tokens=2)
    assert frame.attrs["tokens"] == 2 * len(PROBLEMS) and not frame["correct"].any()
    rest = len(TOKENIZER(format_prompt(""))["input_ids"])
    long = replace(PROBLEMS[0], question="3" * (CONTEXT - 3 - rest))
    length = len(TOKENIZER(format_prompt(long.question))["input_ids"])
    assert length == CONTEXT - 3
    alone = evaluate(student, [long])
    assert 0 < alone.attrs["tokens"] <= 3
    both = evaluate(student, [PROBLEMS[4], long])  # a long neighbour shortens no answer
    assert both["text"].tolist() == [ANSWERS[4], alone["text"].item()]


def test_the_models_own_sampling_habits_are_ignored_and_kept(student):
    plain = evaluate(student, PROBLEMS)
    own = student.model.generation_config
    own.do_sample, own.temperature, own.repetition_penalty = True, 5.0, 9.0
    try:
        pd.testing.assert_frame_equal(evaluate(student, PROBLEMS), plain)
        assert student.model.generation_config is own and own.temperature == 5.0
    finally:
        own.do_sample, own.temperature, own.repetition_penalty = False, 1.0, 1.0


def test_the_mode_of_the_model_is_kept(student):
    student.model.train()
    evaluate(student, PROBLEMS[:1], max_new_tokens=1)
    assert student.model.training
    student.model.eval()
    evaluate(student, PROBLEMS[:1], max_new_tokens=1)
    assert not student.model.training


def test_a_prefix_stands_before_every_prompt(student):
    prefix = "Problem:\n3 + 4\nSolution:\n7\n\n"
    frame = evaluate(student, PROBLEMS[:3], prefix=prefix, max_new_tokens=9)
    texts = [text_of(loop(student, prefix + format_prompt(p.question), 9)) for p in PROBLEMS[:3]]
    assert frame["text"].tolist() == [text.partition("\nProblem:")[0].rstrip() for text in texts]


def test_views_of_nat(student):
    plain = evaluate(student, PROBLEMS)
    attach(student.model, NATConfig(unit_dim=4))
    try:
        with pytest.raises(ValueError, match="the view 'nat' was never trained"):
            evaluate(student, PROBLEMS)
        with pytest.raises(ValueError, match="the view 'pos' was never trained"):
            evaluate(student, PROBLEMS, view="pos")
        with pytest.raises(ValueError, match="view must be one of 'base', 'pos', 'neg', 'nat'; got 'net'"):
            evaluate(student, PROBLEMS, view="net")
        pd.testing.assert_frame_equal(evaluate(student, PROBLEMS, view="base"), plain)
        for layer in student.model.modules():
            if hasattr(layer, "value_out"):
                torch.nn.init.normal_(layer.value_out.weight)
        with view(student.model, "base"):  # the argument decides, not the view that holds
            changed = evaluate(student, PROBLEMS, max_new_tokens=9)
        assert changed["text"].tolist() != [text[:9] for text in plain["text"]]
        texts = [text_of(loop(student, format_prompt(p.question), 9)) for p in PROBLEMS]
        assert changed["text"].tolist() == [text.partition("\nProblem:")[0].rstrip() for text in texts]
    finally:
        detach(student.model)
    with pytest.raises(ValueError, match="the model carries no NAT"):
        evaluate(student, PROBLEMS, view="nat")


def test_bad_calls_are_refused(student):
    with pytest.raises(ValueError, match="problems must not be empty"):
        evaluate(student, [])
    for name in ("batch_size", "max_new_tokens"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
            evaluate(student, PROBLEMS, **{name: 0})
    long = replace(PROBLEMS[0], id="long", question="3" * 200)
    with pytest.raises(
        ValueError, match=r"prompt 'long' takes \d+ tokens, the context holds 128; shorten it"
    ):
        evaluate(student, [PROBLEMS[1], long])
    with pytest.raises(ValueError, match="problems must have distinct ids"):
        evaluate(student, [*PROBLEMS, PROBLEMS[0]], max_new_tokens=1)
    with pytest.raises(ValueError, match="preset must be one of 'fixed', 'faithful'; got 'x'"):
        evaluate(student, PROBLEMS, preset="x")


# --- fits ---------------------------------------------------------------------------------------------

DATA_PROBLEMS = arithmetic.generate("train", 6, seed=0)
CONFIG = settings(epochs=2, batch_size=8, progress=False, shots=1, unit_dim=4)


@pytest.fixture(scope="module")
def data():
    return training_set(DATA_PROBLEMS, arithmetic.teach(DATA_PROBLEMS, n=4))


def test_answers_are_kept_and_not_given_twice(student, data, tmp_path, monkeypatch):
    one = fit("CoT KD", student, data, CONFIG, tmp_path / "fits")
    asked = partial(predictions, student, [one])
    frame = asked(PROBLEMS, max_new_tokens=6)
    kept = asked(PROBLEMS, tmp_path / "answers", max_new_tokens=6)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate_module, "evaluate", None)  # nothing is answered any more
        again = asked(PROBLEMS, tmp_path / "answers", max_new_tokens=6)
    for other in (kept, again):
        pd.testing.assert_frame_equal(other, frame, check_dtype=False)
    (folder,) = (tmp_path / "answers").iterdir()
    assert sorted(path.name for path in folder.glob("[!.]*")) == ["answers.parquet", "manifest.json"]
    for problems, options in ((PROBLEMS[:2], {"max_new_tokens": 6}), (PROBLEMS, {"max_new_tokens": 5})):
        asked(problems, tmp_path / "answers", **options)
    assert len(list((tmp_path / "answers").iterdir())) == 3
    (folder / "answers.parquet").write_bytes(b"other")
    with pytest.raises(
        ValueError, match=f"{folder.name}/answers.parquet is not as manifest.json recorded it"
    ):
        asked(PROBLEMS, tmp_path / "answers", max_new_tokens=6)


def test_kept_answers_are_those_of_this_student_and_this_grading(student, data, tmp_path):
    """Kind: a result is found again that another model, or another rule of the same name, has made."""
    one = fit("Few-shot", student, data, CONFIG, tmp_path / "fits")
    asked = partial(
        predictions, fits=[one], problems=PROBLEMS, out_dir=tmp_path / "answers", max_new_tokens=3
    )
    asked(student)
    other = student._replace(model=deepcopy(student.model))
    with torch.no_grad():
        other.model.lm_head.weight.copy_(other.model.lm_head.weight.roll(1, 0))
    pd.testing.assert_frame_equal(
        asked(other), predictions(other, [one], PROBLEMS, max_new_tokens=3), check_dtype=False
    )
    found = []
    for body in ("False", "True"):
        path = tmp_path / f"rules_{body}" / "own_rules.py"
        path.parent.mkdir()
        path.write_text(f"def same(answer, reference):\n    return {body}\n")
        spec = importlib.util.spec_from_file_location("own_rules", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found.append(Follow({"test": PROBLEMS}, options={"rule": module.same}).key)
    assert found[0] != found[1]


def test_answers_go_on_after_a_kill(student, data, tmp_path, monkeypatch):
    one = fit("CoT KD", student, data, CONFIG, tmp_path / "fits")
    options = {"max_new_tokens": 6, "batch_size": 2}
    run, waves = Engine.run, []

    def killed(self, *given):
        waves.append(given)
        if len(waves) == 2:
            raise KeyboardInterrupt
        return run(self, *given)

    monkeypatch.setattr(Engine, "run", killed)
    monkeypatch.setattr(sample_module, "WAVE", 1)
    with pytest.raises(KeyboardInterrupt):
        predictions(student, [one], PROBLEMS, tmp_path / "answers", **options)
    frame = predictions(student, [one], PROBLEMS, tmp_path / "answers", **options)
    assert len(waves) == 1 + len(PROBLEMS) // 2  # the one that was killed is answered again, the first is not
    pd.testing.assert_frame_equal(frame, predictions(student, [one], PROBLEMS, **options), check_dtype=False)


def test_predictions_of_fits_and_along_a_path(student, data, tmp_path):
    follow = Follow({"valid": PROBLEMS[:3], "test": PROBLEMS}, options={"max_new_tokens": 6})
    fits = [
        fit(name, student, data, CONFIG, tmp_path, on_epoch=follow) for name in ("CoT KD", "NAT", "Few-shot")
    ]
    frame = predictions(student, fits, iter(PROBLEMS), max_new_tokens=6)
    with pytest.raises(ValueError, match="fits must not be empty; there is nothing to evaluate"):
        predictions(student, [], PROBLEMS)
    with pytest.raises(TypeError, match="fits must be a list of fits; got Fit"):
        predictions(student, fits[0], PROBLEMS)
    assert frame.groupby("method", sort=False).size().to_dict() == {"CoT KD": 8, "NAT": 8, "Few-shot": 8}
    for one in fits:
        part = frame[frame["method"] == one.method]
        for name, value in one.columns().items():
            assert set(part[name]) == {value}
        if one.method == "Few-shot":
            expected = evaluate(student, PROBLEMS, max_new_tokens=6, prefix=one.prefix)
            assert part["text"].tolist() == expected["text"].tolist()
            assert one.trajectory is None
            continue
        assert one.trajectory.groupby(["epoch", "split"]).size().to_dict() == {
            (1, "test"): 8,
            (1, "valid"): 3,
            (2, "test"): 8,
            (2, "valid"): 3,
        }
        last = one.trajectory[(one.trajectory["epoch"] == 2) & (one.trajectory["split"] == "test")]
        assert last["correct"].tolist() == part["correct"].tolist()
        assert last["level"].tolist() == part["level"].tolist()
        assert set(last["steps"]) == {one.total_steps}


def test_follow_waits_and_has_a_key(student):
    follow = Follow({"valid": PROBLEMS[:2]}, every=3, options={"max_new_tokens": 1})
    assert [follow(student, epoch) is None for epoch in (1, 2, 3, 4, 6)] == [True, True, False, True, False]
    names = ["problem_id", "subject", "level", "answer", "correct", "split"]
    assert list(follow(student, 3).columns) == names
    assert list(replace(follow, last=4)(student, 4).columns) == names
    same = Follow({"valid": list(PROBLEMS[:2])}, every=3, options={"max_new_tokens": 1})
    others = [
        replace(same, every=2),
        replace(same, last=4),
        replace(same, options={}),
        replace(same, sets={"valid": PROBLEMS[:1]}),
    ]
    assert follow.key == same.key and len({follow.key, *(other.key for other in others)}) == 5
    with pytest.raises(ValueError, match="every must be at least 1; got 0"):
        Follow({}, every=0)


def test_log_probs_of_rationales_equal_one_after_the_other(student):
    said = [Rationale(problem.id, 0, text, "t") for problem, text in zip(PROBLEMS, ANSWERS, strict=True)]
    said = [said[3], said[0], replace(said[0], text="")]
    found, tokens = rationale_log_probs(student, PROBLEMS, said, prefix="Right. ", batch_size=2)
    for one, value, count in zip(said, found, tokens, strict=True):
        question = next(problem.question for problem in PROBLEMS if problem.id == one.problem_id)
        prompt = TOKENIZER("Right. " + format_prompt(question))["input_ids"]
        ids = torch.tensor([[*prompt, *TOKENIZER(one.text)["input_ids"], TOKENIZER.eos_token_id]])
        with torch.no_grad():
            logs = student.model(ids).logits[0, :-1].log_softmax(1).gather(1, ids[0, 1:, None])[:, 0]
        wanted = logs[len(prompt) - 1 :]
        assert value == pytest.approx(wanted.sum().item()) and count == len(wanted)
    assert rationale_log_probs(student, PROBLEMS, [])[0].shape == (0,)
    with pytest.raises(ValueError, match="rationales must belong to problems; got problem_id 'x'"):
        rationale_log_probs(student, PROBLEMS, [Rationale("x", 0, "y", "t")])


def test_held_out_rationales_are_followed_question_by_question(student):
    right = [Rationale(PROBLEMS[0].id, i, f"\\boxed{{{i}}}", "t") for i in range(2)]
    wrong = [Rationale(PROBLEMS[1].id, 0, "no", "t")]
    held = TrainingSet(tuple(PROBLEMS[:3]), tuple(right), tuple(wrong))
    by_hand, tokens = rationale_log_probs(student, PROBLEMS, right)
    frame = likelihoods(student, held).set_index("problem_id")
    ids = [problem.id for problem in PROBLEMS]
    assert frame.loc[ids[0], "log_prob_right"] == pytest.approx((by_hand / tokens).mean())
    assert frame["log_prob_right"].isna().tolist() == [False, True, True]
    assert frame["log_prob_wrong"].isna().tolist() == [True, False, True]
    assert likelihoods(student, replace(held, negatives=()))["log_prob_wrong"].isna().all()
    follow = Follow({"valid": PROBLEMS[:2]}, options={"max_new_tokens": 2}, held=held)
    seen = follow(student, 1)
    assert seen["log_prob_right"].isna().tolist() == [False, True] and len(seen) == 2
    assert follow.key != replace(follow, held=None).key
    marked = replace(follow, options={"max_new_tokens": 2, "prefix": "Right. "})(student, 1)
    assert marked["log_prob_right"].iloc[0] != seen["log_prob_right"].iloc[0]


def test_problems_may_lack_subject_and_level(student):
    bare = [Problem("1", "3 + 4", "7", "7", "", None, "svamp")]
    frame = evaluate(student, bare, max_new_tokens=2)
    assert frame["level"].isna().all() and accuracy_table(frame, "level")["questions"].tolist() == [1]


def test_real_questions_of_another_kind_pass_through_the_same_calls(data_dir, monkeypatch, tmp_path):
    """A student that knows nothing: what is right here is right by chance, and no result."""
    monkeypatch.setenv("NEGDISTILL_DATA", str(data_dir))
    task = load_task("math")
    data = taught(task, "tdg-gpt-3.5-turbo", questions=20, samples=4)
    tokenizer = real_text_tokenizer([one.text for one in data.positives + data.negatives], vocab_size=500)
    size = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    size |= {"hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 2048}
    made = llama(tokenizer=tokenizer, initializer_range=0.02, **size)
    at = settings(max_steps=2, batch_size=4, progress=False)
    fits = [fit(name, made, data, at, tmp_path) for name in ("CoT KD", "NAT")]
    assert set(task.shifted) == {"gsm8k", "asdiv", "multiarith", "svamp"}
    for name, other in task.shifted.items():
        problems = other.questions("test", 8)
        frame = predictions(made, fits, problems, max_new_tokens=24, **other.grading)
        assert frame.groupby("method")["problem_id"].agg(list).eq([[p.id for p in problems]] * 2).all()
        table = method_table(frame)
        assert list(table.index) == ["CoT KD", "NAT"] and table["accuracy"].between(0, 1).all()
        by_subject = accuracy_table(frame, "subject")
        assert by_subject.groupby("method")["questions"].sum().eq(8).all()
        prompts = {problem.id: format_prompt(problem.question) for problem in problems}
        with adapted(made, fits[1]) as student:
            drawn = sample(student, prompts, 4, max_new_tokens=24, progress=False)
        panel = sampled(problems, drawn, **other.grading)
        assert panel.group.shape == (8, 4) and (panel.elected() <= panel.right.any(axis=1)).all()
        right = [
            Rationale(p.id, 0, f"So it is {p.answer}. The answer is {p.answer}.", "key") for p in problems
        ]
        assert sampled(problems, right, **other.grading).elected().all(), name


def test_every_end_of_the_generation_settings_ends_an_answer(student):
    """A chat model ends its turns with another token than texts end with.

    Kind: a chat model that runs on past the end of its turn; as in huggingface/lighteval#1279.
    """
    prompts = {problem.id: format_prompt(problem.question) for problem in PROBLEMS[:4]}
    free = [one.ids for one in sample(student, prompts, 1, 0.0, progress=False)]
    turn = free[0][-3]
    student.model.generation_config.eos_token_id = [TOKENIZER.eos_token_id, turn]
    try:
        cut = evaluate(student, PROBLEMS[:4])
    finally:
        student.model.generation_config.eos_token_id = None
    said = [ids[: ids.index(turn)] if turn in ids else ids for ids in free]
    assert said[0] == free[0][: len(said[0])] != free[0]
    assert cut["text"].tolist() == [TOKENIZER.decode(ids, skip_special_tokens=True).rstrip() for ids in said]


def test_a_fit_is_followed_to_its_end_whatever_it_uses(student, tmp_path):
    problems = arithmetic.generate("train", 8, seed=0)
    data = training_set(problems, arithmetic.teach(problems, n=4))
    config = settings(max_steps=12, batch_size=4, progress=False)
    start = fit("CoT KD", student, data, settings(max_steps=6, batch_size=4, progress=False), tmp_path)
    asked, options = {"valid": PROBLEMS[:2]}, {"max_new_tokens": 4}
    for name in ("MIX", "Negatives first", "CoT KD, continued", "NAT"):
        made = fit_followed(name, student, data, config, tmp_path, asked, options, 2, start=start)
        assert made.total_steps == 12 and made.trajectory["steps"].max() == 12, name
        assert 1 <= made.trajectory["steps"].nunique() <= 4
    assert fit_followed("Merge", student, data, config, tmp_path, asked, options).trajectory is None
    with pytest.raises(ValueError, match="config must have max_steps, the budget that is followed"):
        fit_followed("MIX", student, data, settings(epochs=1), tmp_path, asked, options)
    with pytest.raises(ValueError, match="points must be"):
        fit_followed("MIX", student, data, config, tmp_path, asked, options, 0)


def test_a_fit_is_followed_in_the_text_format_of_its_training(student, tmp_path, monkeypatch):
    problems = arithmetic.generate("train", 4, seed=0)
    data, presets = training_set(problems, arithmetic.teach(problems, n=4)), []

    def spied(*arguments, **options):
        presets.append(options["preset"])
        return evaluate(*arguments, **options)

    monkeypatch.setattr(evaluate_module, "evaluate", spied)
    asked, options = {"valid": PROBLEMS[:2]}, {"max_new_tokens": 4}
    for preset in ("faithful", "fixed"):
        config = settings(max_steps=2, batch_size=4, progress=False, preset=preset)
        fit_followed("CoT KD", student, data, config, tmp_path, asked, options, 1)
        assert set(presets) == {preset}
        presets.clear()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"student": "embedded"}, TypeError, "student must be a Student, .*; got 'embedded', a str"),
        ({"problems": ["a"]}, TypeError, "problems must be a list of Problem, .*; got 'a', a str"),
        (
            {"problems": arithmetic.generate("test", 1, 0)[0]},
            TypeError,
            "problems must be a list .*got Problem",
        ),
        ({"prefix": 3}, TypeError, "prefix must be a text; got 3, a int"),
        ({"rule": "exakt"}, ValueError, "rule must be one of .*; got 'exakt'; did you mean 'exact'"),
        ({"extract": "box"}, ValueError, "extract must be one of .*; got 'box'"),
    ],
)
def test_arguments_of_another_kind_are_refused_before_anything_is_answered(
    changes, error, message, monkeypatch
):
    monkeypatch.setattr("negdistill.inference.evaluate.sample", None)
    with pytest.raises(error, match=message):
        evaluate(**{"student": wide(), "problems": arithmetic.generate("test", 2, 0)} | changes)
