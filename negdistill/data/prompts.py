r"""Prompts: what a teacher is asked, at once or after worked examples, in the words of each data set.

    chat         user: task, question       assistant: solution     user: question      ...
    completions  task  Problem: question  Solution: solution  Problem: question  Solution:

All tasks ask for steps first and for the final answer in \boxed{}, which is where `answers` looks for it.
Wording and worked examples are our own; none of the examples is in a data set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from negdistill.checks import check_choice
from negdistill.data.records import Problem

STOP = "\nProblem:"  # where a model that goes on after its solution begins the next one


class WorkedExample(NamedTuple):
    """A question, its worked solution, and the answer that the solution boxes."""

    question: str
    solution: str
    answer: str


MATH = (
    WorkedExample(
        "What is the sum of all solutions of $x^2 - 5x - 14 = 0$?",
        "The left side factors: $x^2 - 5x - 14 = (x - 7)(x + 2)$. A product is zero when a factor is, so "
        r"$x = 7$ or $x = -2$. Their sum is $7 + (-2) = 5$. The answer is \boxed{5}.",
        "5",
    ),
    WorkedExample(
        "Two fair six-sided dice are rolled. What is the probability that the sum is at most 3?",
        "There are $6 \\cdot 6 = 36$ equally likely outcomes. A sum of 2 comes from $(1, 1)$, a sum of 3 "
        "from $(1, 2)$ and $(2, 1)$. The probability is $\\frac{3}{36} = \\frac{1}{12}$. "
        r"The answer is \boxed{\frac{1}{12}}.",
        r"\frac{1}{12}",
    ),
    WorkedExample(
        "The legs of a right triangle measure 2 and 4. How long is its hypotenuse?",
        "By the theorem of Pythagoras the square of the hypotenuse is $2^2 + 4^2 = 20$. Its length is "
        r"$\sqrt{20} = 2\sqrt{5}$. The answer is \boxed{2\sqrt{5}}.",
        r"2\sqrt{5}",
    ),
)
STORY = (
    WorkedExample(
        "A baker fills 6 trays with 12 rolls each and sells 50 rolls before noon. How many rolls are left?",
        "Six trays hold 6 * 12 = 72 rolls. After the sales 72 - 50 = 22 are left. "
        r"The answer is \boxed{22}.",
        "22",
    ),
    WorkedExample(
        "Lena saves 15 dollars a week. She has 40 dollars and wants a tent for 130 dollars. How many weeks "
        "must she save?",
        "She lacks 130 - 40 = 90 dollars. At 15 dollars a week this takes 90 / 15 = 6 weeks. "
        r"The answer is \boxed{6}.",
        "6",
    ),
    WorkedExample(
        "A train has 4 wagons with 36 seats each. 100 seats are taken. 10 more people get on and sit down. "
        "How many seats stay empty?",
        "The train has 4 * 36 = 144 seats. Taken are 100 + 10 = 110. Empty are 144 - 110 = 34. "
        r"The answer is \boxed{34}.",
        "34",
    ),
)
ARITHMETIC = (
    WorkedExample(
        "Tom has 17 shells. Tom finds 8 more. How many shells does Tom have now?",
        r"Tom has 17 shells. Tom finds 8 more, so 17 + 8 = 25. The answer is \boxed{25}.",
        "25",
    ),
    WorkedExample(
        "A bag holds 12 coins. There are 3 such bags. Eva takes 9 out. How many coins are there in all?",
        "A bag holds 12 coins. There are 3 such bags, so 12 * 3 = 36. Eva takes 9 out, so 36 - 9 = 27. "
        r"The answer is \boxed{27}.",
        "27",
    ),
    WorkedExample(
        "There are 60 cards. Only one of 4 equal parts is left. Ben puts 6 back. How many cards are left?",
        "There are 60 cards. Only one of 4 equal parts is left, so 60 / 4 = 15. Ben puts 6 back, so "
        r"15 + 6 = 21. The answer is \boxed{21}.",
        "21",
    ),
)
_EXACT = (
    "Solve the problem step by step. Give the final answer in its simplest exact form, without units, in "
    r"\boxed{}."
)
_NUMBER = (
    r"Solve the problem step by step. The final answer is one number; put it, without its unit, in \boxed{}."
)
_WHOLE = r"Work through the story sentence by sentence. Put the final number in \boxed{}."
TASKS = {  # Problem.source: task and worked examples
    "math": (_EXACT, MATH),
    **dict.fromkeys(("gsm8k", "asdiv", "multiarith", "svamp"), (_NUMBER, STORY)),
    "arithmetic": (_WHOLE, ARITHMETIC),
}
OTHER = (r"Answer the question. Reason step by step, then put the final answer in \boxed{}.", ())


def _asked(source: str, shots: int) -> tuple[str, tuple[WorkedExample, ...]]:
    task, examples = TASKS.get(source, OTHER)
    if not 0 <= shots <= len(examples):
        raise ValueError(
            f"shots must be from 0 to {len(examples)}, the worked examples for source {source!r}; got {shots}"
        )
    return task, examples[:shots]


def chat_messages(problem: Problem, shots: int = 0, task: bool = True) -> list[dict[str, str]]:
    """The turns of a chat, as OpenAI-compatible servers and chat templates take them.

    shots  number of worked examples, 0 to 3; 0 for a source without any. ValueError otherwise.
    task   whether the first turn says what to do; a trained student was never told
    """
    words, examples = _asked(problem.source, shots)
    turns = []
    for example in examples:
        turns += [("user", example.question), ("assistant", example.solution)]
    turns.append(("user", problem.question))
    if task:
        turns[0] = ("user", f"{words}\n\n{turns[0][1]}")
    return [{"role": role, "content": text} for role, text in turns]


def completion_text(problem: Problem, shots: int = 0, task: bool = True) -> str:
    """One text for a model to continue, in the layout that students read; the rest as in `chat_messages`."""
    words, examples = _asked(problem.source, shots)
    worked = [format_prompt(example.question) + example.solution for example in examples]
    return "\n\n".join([*([words] if task else []), *worked, format_prompt(problem.question)])


def most_prompt_tokens(texts: Iterable[str]) -> int:
    """The most tokens of a prompt: each holds at least a byte, and a turn of a chat adds a few of its own."""
    return sum(len(text.encode("utf-8", "replace")) + 32 for text in texts)


@dataclass(frozen=True, slots=True)
class Preset:
    """How text becomes tokens.

    prompt        template of the question
    completion    template of the rationale
    prompt_loss   whether prompt tokens are targets
    padding_loss  whether rows are padded to the longest of the whole set and the padding is a target
    end_of_text   whether the tokenizer's end-of-text token closes the completion
    second_start  whether the tokenizer's special tokens stand before the completion too
    """

    prompt: str
    completion: str
    prompt_loss: bool
    padding_loss: bool
    end_of_text: bool
    second_start: bool


PRESETS = {
    "fixed": Preset("Problem:\n{question}\nSolution:\n", "{text}", False, False, True, False),
    # released code: labels are the padded input, pad id 0, no end of text, a begin-of-text token twice
    "faithful": Preset("Problem:\n{question}", "\n{text}", True, True, False, True),
}


def format_prompt(question: str, preset: str = "fixed") -> str:
    """The prompt of a question, the same text in training and at test time."""
    check_choice("preset", preset, PRESETS)
    return PRESETS[preset].prompt.format(question=question)


def first_answer(text: str, preset: str = "fixed") -> str:
    """What a student said to its own question: up to where it goes on to a next one."""
    next_problem = "\n" + format_prompt("", preset).partition("\n")[0]
    return text.partition(next_problem)[0].rstrip()
