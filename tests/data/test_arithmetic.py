"""The embedded benchmark against independent readings of its text."""

import hashlib
import json
import random
import re
from collections import Counter
from dataclasses import asdict, replace

import pytest

from negdistill.data.answers import equivalent, final_answer, grade
from negdistill.data.arithmetic import KINDS, STRENGTHS, first_wrong_step, slip, teach
from negdistill.data.arithmetic_templates import NAMES, NOUNS, OTHER_NAMES, OTHER_NOUNS
from negdistill.data.arithmetic_text import pretraining_text, tokenizer, vocabulary
from negdistill.data.arithmetic_world import SPLITS, bucket, calculate, generate, hardness, read_steps
from negdistill.data.records import Problem, Rationale

PRINTABLE = "".join(map(chr, range(32, 127))) + "\n"

DIGESTS = {
    "train": "6b01d39d7adcc804",
    "valid": "74af123115e8bfbd",
    "test": "d129b64db52fa176",
    "longer": "6209f23ce2d9f313",
    "reworded": "0e9cff1edbce7aa1",
    "two_step": "f2022b83e20d6da6",
    "distractor": "5ab4f037e8dc3bfc",
}
TAUGHT = {
    "weak": "615ebda4c0a60db9",
    "strong": "daed90b8ea7631d1",
}


def digest(records) -> str:
    text = "\n".join(json.dumps(asdict(record), sort_keys=True) for record in records)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def train() -> list[Problem]:
    return generate("train", 2000, seed=0)


@pytest.fixture(scope="module", params=sorted(STRENGTHS))
def taught(request, train):
    """A teacher's name, its accuracy table, and its grades on 2,000 questions."""
    rationales = teach(train, request.param, n=8, seed=0)
    return STRENGTHS[request.param], grade(train, rationales), rationales


def test_the_output_is_the_committed_one():
    assert {split: digest(generate(split, 35, 0)) for split in SPLITS} == DIGESTS
    assert {name: digest(teach(generate("train", 35, 0), name)) for name in STRENGTHS} == TAUGHT


def test_more_problems_only_add_to_fewer():
    assert generate("valid", 50, 3)[:20] == generate("valid", 20, 3)
    assert generate("valid", 20, 3) != generate("valid", 20, 4)
    assert generate("test", 0) == []


@pytest.mark.parametrize("split", SPLITS)
def test_problems_keep_their_word(split):
    problems = generate(split, 210, 1)
    levels = {"longer": {6, 7, 8}, "two_step": {2}}.get(split, {1, 2, 3, 4, 5})
    for problem in problems:
        _, steps = read_steps(problem)
        numbers = [number for step in steps for number in (step.left, step.right, step.result)]
        assert all(type(number) is int and 0 <= number <= 199 for number in numbers)
        assert all(eval_step(step) for step in steps)
        assert len(steps) == problem.level and problem.answer == str(steps[-1].result)
        assert problem.solution == f"{steps[-1].equation}. The answer is \\boxed{{{problem.answer}}}."
        assert final_answer(problem.solution) == problem.answer
    assert len({p.question for p in problems}) == len({p.id for p in problems}) == 210
    assert set(Counter(p.subject for p in problems).values()) == {30}
    assert Counter(p.level for p in problems) == dict.fromkeys(levels, 210 // len(levels))


def eval_step(step) -> bool:
    return {
        "+": step.left + step.right == step.result,
        "-": step.left - step.right == step.result,
        "*": step.left * step.right == step.result,
        "/": step.right * step.result == step.left,
    }[step.op]


def test_levels_subjects_and_hardness_are_balanced(train):
    cells = Counter((p.subject, p.level) for p in train)
    assert len(cells) == 35 and max(cells.values()) - min(cells.values()) <= 1
    quarters = Counter((p.level, int(4 * hardness(p.question))) for p in train)
    assert len(quarters) == 20 and set(quarters.values()) == {100}


def test_splits_are_disjoint_for_any_seed():
    questions = {split: {p.question for s in (0, 7) for p in generate(split, 140, s)} for split in SPLITS}
    for split, held in questions.items():
        expected = {"train": set(range(8)), "valid": {8}}.get(split, {9})
        assert {bucket(question) for question in held} <= expected
    assert not questions["train"] & set().union(*(held for s, held in questions.items() if s != "train"))
    assert not questions["valid"] & questions["test"]


def test_reworded_shares_no_sentence_name_or_noun_with_train(train):
    def shape(question):
        return {re.sub(r"\d+", "#", sentence) for sentence in re.split(r"(?<=[.?]) ", question)}

    plain = set().union(*(shape(p.question) for p in train))
    other = set().union(*(shape(p.question) for p in generate("reworded", 350)))
    assert not plain & other
    words = set(re.findall(r"\w+", " ".join(p.question for p in train)))
    assert words & set(NAMES + NOUNS) and not words & set(OTHER_NAMES + OTHER_NOUNS)


def test_a_distractor_adds_one_sentence_with_a_number_that_does_not_matter():
    for problem in generate("distractor", 70):
        numbers = re.findall(r"\d+", problem.question)
        assert len(numbers) == problem.level + 2  # start, one per step, the distractor
        assert len(read_steps(problem)[1]) == problem.level


def test_accuracy_per_level_is_that_of_the_real_teachers(taught):
    teacher, grades, _ = taught
    for level, wanted in enumerate(teacher.accuracy, 1):
        labels = [g.label == "right" for i, g in enumerate(grades) if i // 8 % 5 == level - 1]
        assert len(labels) == 3200
        assert abs(sum(labels) / 3200 - wanted) <= 0.02, (level, sum(labels) / 3200)


def test_ability_has_the_wanted_mean():
    for teacher in STRENGTHS.values():
        for level, wanted in enumerate(teacher.accuracy, 1):
            mean = sum(teacher.ability(level, (i + 0.5) / 10_000) for i in range(10_000)) / 10_000
            assert mean * (1 - teacher.unboxed - teacher.notation) == pytest.approx(wanted, abs=1e-4)


def test_questions_are_mostly_always_right_or_always_wrong(taught):
    _, grades, _ = taught
    counts = Counter(sum(g.label == "right" for g in grades[i : i + 8]) for i in range(0, len(grades), 8))
    assert min(counts[0], counts[8]) > 1.5 * max(counts[k] for k in (2, 3, 4, 5, 6))


def test_some_questions_get_the_same_wrong_answer_eight_times(taught):
    _, grades, _ = taught
    wrong = [grades[i : i + 8] for i in range(0, len(grades), 8)]
    wrong = [eight for eight in wrong if all(g.label == "wrong" for g in eight)]
    same = sum(len({g.answer for g in eight}) == 1 for eight in wrong)
    assert 0.2 < same / len(wrong) < 0.7


def test_some_right_rationales_hide_their_answer(train, taught):
    teacher, grades, rationales = taught
    unboxed = [g for g in grades if g.label == "none"]
    assert len(unboxed) / len(grades) == pytest.approx(teacher.unboxed, abs=0.005)
    reference = {p.id: p.answer for p in train}
    rescued = [
        g for g in unboxed if final_answer(g.rationale.text, "lenient") == reference[g.rationale.problem_id]
    ]
    assert rescued
    other = [g for g in grades if g.label == "wrong" and not g.answer.isdigit()]
    assert len(other) / len(grades) == pytest.approx(teacher.notation, abs=0.003)
    assert any(equivalent(g.answer, reference[g.rationale.problem_id], "math") for g in other[:40])


def test_first_wrong_step_finds_the_slip(train):
    rng = random.Random(0)
    seen = Counter()
    for problem in train[:700]:
        _, steps = read_steps(problem)
        for kind in KINDS:
            place = rng.randrange(len(steps))
            written = slip(steps, place, kind, rng)
            if written is None:
                continue
            seen[kind] += 1
            found = first_wrong_step(problem, " ".join(f"{s.equation}." for s in written))
            same = {(s.op, s.right) for s in steps[place : place + 2]}  # one of two equal sentences left out
            assert found == place or (kind == "skipped" and len(same) == 1 and found == place + 1)
    assert min(seen[kind] for kind in KINDS) > 50


def test_first_wrong_step_by_hand():
    question = "Ann has 12 cards. Ben gives Ann 5. Ann loses 3. How many cards does Ann have now?"
    problem = Problem("x", question, "14", "", "change", 2, "arithmetic")
    assert first_wrong_step(problem, "12 + 5 = 17. 17 - 3 = 14.") is None
    assert first_wrong_step(problem, "5 + 12 = 17, so 17 - 3 = 14.") is None
    assert first_wrong_step(problem, "12 + 5 = 18. 18 - 3 = 15.") == 0
    assert first_wrong_step(problem, "12 + 5 = 17. 17 + 3 = 20.") == 1
    assert first_wrong_step(problem, "12 + 5 = 17. The answer is 17.") == 1
    assert first_wrong_step(problem, "12 + 5 = 17. 17 - 3 = 14. 14 - 3 = 11.") == 2
    assert first_wrong_step(problem, "") == 0


def test_every_wrong_rationale_has_a_wrong_step_and_no_right_one(train, taught):
    _, grades, _ = taught
    problems = {p.id: p for p in train}
    for g in grades[:4000]:
        where = first_wrong_step(problems[g.rationale.problem_id], g.rationale.text)
        if g.label == "right":
            assert where is None
        elif g.label == "wrong" and g.answer.isdigit():
            assert where is not None


def test_every_kind_of_slip_is_told_and_goes_on(train):
    chains = [read_steps(p)[1] for p in train if p.level == 5][:60]
    for kind in KINDS:
        told = [(s, w) for s in chains if (w := slip(s, 2, kind, random.Random(0))) is not None]
        for steps, written in told:
            assert written[-1].result != steps[-1].result and written[:2] == steps[:2]
            after = written[2 if kind == "skipped" else 3 :]
            assert [s.op for s in after] == [s.op for s in steps[3:]]
            start = written[1] if kind == "skipped" else written[2]
            assert all(b.left == a.result for a, b in zip((start, *after), after, strict=False))
            assert all(calculate(s.left, s.op, s.right) == s.result for s in after)
        assert len(told) > 10, kind


def test_rationales_are_stable_and_named(train):
    some = teach(train[:10], "strong", n=3, seed=5)
    assert [(r.problem_id, r.index) for r in some] == [(p.id, i) for p in train[:10] for i in range(3)]
    assert all(isinstance(r, Rationale) and r.teacher == "arithmetic-strong" for r in some)
    assert some[6:9] == teach(train[2:3], "strong", n=3, seed=5)
    assert some != teach(train[:10], "strong", n=3, seed=6)


def test_the_tokenizer_is_small_lossless_and_reads_digits_one_by_one():
    tok = tokenizer()
    assert len(tok) == len(vocabulary()) == len(set(vocabulary())) < 200
    rng = random.Random(0)
    samples = [
        PRINTABLE,
        "",
        " ",
        "The answer is \\boxed{17}.",
        *("".join(rng.choices(PRINTABLE, k=60)) for _ in range(200)),
    ]
    for text in samples:
        ids = tok(text)["input_ids"]
        assert tok.unk_token_id not in ids and tok.decode(ids) == text
    for number in ("0", "17", "199"):
        assert tok.convert_ids_to_tokens(tok(number)["input_ids"]) == list(number)
    assert tok("\u00e9")["input_ids"] == [tok.unk_token_id]


def test_everyday_words_are_whole_and_texts_are_short(train):
    tok = tokenizer()
    problem = train[4]
    prompt = tok(f"Problem:\n{problem.question}\nSolution:\n")["input_ids"]
    assert len(prompt) == len(tok(problem.question)["input_ids"]) + 2
    questions = tok([p.question for p in train])["input_ids"]
    single = {t for row in questions for t in tok.convert_ids_to_tokens(row) if len(t) == 1}
    assert single <= set("0123456789ABCDEF?")
    assert max(map(len, questions)) <= 90
    assert max(len(row) for row in tok([r.text for r in teach(train[:700])])["input_ids"]) <= 130


def test_prompt_and_completion_split_where_they_are_joined(train):
    tok = tokenizer()
    for problem, rationale in zip(train[:50], teach(train[:50], n=1), strict=True):
        prompt = f"Problem:\n{problem.question}\nSolution:\n"
        apart = tok(prompt)["input_ids"] + tok(rationale.text)["input_ids"]
        assert apart == tok(prompt + rationale.text)["input_ids"]


def test_auto_tokenizer_loads_what_was_saved(tmp_path):
    from transformers import AutoTokenizer

    tok = tokenizer()
    tok.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "Problem:\nAnn has 12 zebras. \\boxed{17}\nSolution:\n"
    assert (
        again(text)["input_ids"] == tok(text)["input_ids"] and again.decode(again(text)["input_ids"]) == text
    )
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id", "model_max_length"):
        assert getattr(again, name) == getattr(tok, name)


def test_pretraining_text_holds_no_question_of_another_split():
    text = pretraining_text(400, seed=1)
    assert text == pretraining_text(400, seed=1) and text[:5] != pretraining_text(5, seed=2)
    questions = re.findall(r"Q: (.*\?)\n", "\n".join(text) + "\n")
    assert len(questions) > 200 and all(bucket(question) < 8 for question in questions)
    held = {p.question for split in ("valid", "test") for p in generate(split, 350)}
    assert not any(question in piece for piece in text for question in held)
    worked = [line for piece in text for line in piece.splitlines() if line.startswith("A: ")]
    assert len(worked) > 200 and not any("boxed" in line for line in worked)


def test_every_equation_in_pretraining_text_is_true():
    equations = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", "\n".join(pretraining_text(400)))
    assert {op for _, op, _, _ in equations} == set("+-*/")
    for a, op, b, c in equations:
        assert calculate(int(a), op, int(b)) == int(c)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="split must be one of 'train', 'valid', 'test'"):
        generate("dev", 3)
    with pytest.raises(ValueError, match="n must be 0 or more; got -1"):
        generate("train", -1)
    with pytest.raises(ValueError, match="strength must be one of 'weak', 'strong'"):
        teach([], "medium")
    with pytest.raises(ValueError, match="n must be 1 or more; got 0"):
        teach([], n=0)
    with pytest.raises(ValueError, match="kind must be one of"):
        slip(read_steps(generate("train", 1)[0])[1], 0, "typo", random.Random(0))
    stranger = Problem("svamp/1", "Ann has 3 pens. Ann sings 2. How many?", "5", "", "", None, "svamp")
    with pytest.raises(ValueError, match="svamp/1: not a sentence of the embedded benchmark"):
        teach([stranger])
    short = "A cake takes 50 grams of rice. How many grams do 4 cakes take?"  # a number and no step
    for question in ("How many?", "Ann has some pens. How many?", "A train leaves.", short):
        with pytest.raises(ValueError, match="svamp/1: not a question of the embedded benchmark"):
            teach([replace(stranger, question=question)])
