"""Prompts: every worked example is right, and chat and text say the same."""

import re
from fractions import Fraction

import pytest

from negdistill.data.answers import final_answer
from negdistill.data.prompts import (
    ARITHMETIC,
    MATH,
    STORY,
    TASKS,
    chat_messages,
    completion_text,
    format_prompt,
    most_prompt_tokens,
)
from negdistill.data.records import Problem
from negdistill.data.sources import PROBLEM_SETS


def problem(source="math", question="How much is $1 + 1$?"):
    return Problem("p", question, "2", "", "", None, source)


@pytest.mark.parametrize("example", [*MATH, *STORY, *ARITHMETIC], ids=lambda example: example.question[:20])
def test_examples_box_their_answer_once_at_the_end(example):
    assert final_answer(example.solution) == example.answer
    assert example.solution.count("boxed") == 1 and example.solution.endswith("}.")


@pytest.mark.parametrize("example", [*STORY, *ARITHMETIC], ids=lambda example: example.question[:20])
def test_equations_of_the_stories_are_true_and_lead_to_the_answer(example):
    found = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", example.solution)
    for a, op, b, result in found:
        a, b = Fraction(a), Fraction(b)
        assert {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[op] == int(result)
    assert found[-1][-1] == example.answer
    assert all(number in example.question for number in (found[0][0], found[0][2]))


def test_examples_of_mathematics_are_true():
    assert sorted(x for x in range(-50, 50) if x * x - 5 * x - 14 == 0) == [-2, 7]
    dice = [a + b for a in range(1, 7) for b in range(1, 7)]
    assert Fraction(sum(total <= 3 for total in dice), len(dice)) == Fraction(1, 12)
    assert 2**2 + 4**2 == 2**2 * 5


def test_every_data_set_has_a_task_and_three_examples():
    assert set(TASKS) == set(PROBLEM_SETS)
    assert all(r"\boxed{}" in task and len(examples) == 3 for task, examples in TASKS.values())


@pytest.mark.parametrize(("source", "shots"), [(name, n) for name in TASKS for n in (0, 2)] + [("mine", 0)])
def test_chat_and_text_hold_the_same(source, shots):
    turns = chat_messages(problem(source), shots)
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * shots + ["user"]
    text = completion_text(problem(source), shots)
    task = text.split("\n\n")[0]
    assert turns[0]["content"].startswith(task + "\n\n") and turns[-1]["content"].endswith("$1 + 1$?")
    assert text.count("Problem:\n") == text.count("Solution:\n") == shots + 1
    assert text.endswith("Problem:\nHow much is $1 + 1$?\nSolution:\n")
    for turn in turns:
        assert turn["content"].removeprefix(task + "\n\n") in text


def test_a_trained_student_is_asked_the_bare_question():
    assert chat_messages(problem(), task=False) == [{"role": "user", "content": problem().question}]
    assert completion_text(problem(), task=False) == format_prompt(problem().question)
    for shots in (0, 2):
        assert completion_text(problem(), shots).endswith("\n\n" + completion_text(problem(), shots, False))


@pytest.mark.parametrize(("source", "shots", "most"), [("math", 4, 3), ("gsm8k", -1, 3), ("mine", 1, 0)])
def test_examples_that_there_are_not_are_refused(source, shots, most):
    for ask in (chat_messages, completion_text):
        with pytest.raises(ValueError, match=rf"shots must be from 0 to {most}, .*{source}.*; got {shots}"):
            ask(problem(source), shots)


def test_a_token_is_at_least_a_byte():
    assert most_prompt_tokens(["ab", "é"]) == 2 + 2 + 2 * 32
