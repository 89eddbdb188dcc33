"""The embedded benchmark: generated word problems, a fallible teacher, a tokenizer, text to pre-train on.

    generate -> Problem      teach -> 8 rationales each, right or wrong as often as a real teacher's

A question has a hardness h, uniform in [0, 1) and the same for all teachers. A teacher's chance to reason
rightly falls from 1 to 0 along a straight line of width w around h = r, and so has the mean r:

    q(h) = clip(1/2 + (r - h) / w, 0, 1),    w = min(3 r (1 - r), 2 r, 2 (1 - r))

The first term of w makes the correlation between two samples of one question 1/2, as it is in the released
MATH rationales within a level (.49 for GPT-3.5, .52 for GPT-4); the others keep the line inside [0, 1]. A
rationale counts as right under the strict rule only if it also boxes the answer plainly, hence

    r = accuracy / (1 - unboxed - notation)
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from negdistill.checks import check_choice
from negdistill.data.arithmetic_world import (
    DISTRACTORS,
    LARGEST,
    NAMES,
    NOUNS,
    OTHER_NAMES,
    REWORDED_WORLD,
    SPLITS,
    SUBJECTS,
    WORLD,
    Step,
    Story,
    bucket,
    calculate,
    generate,
    hardness,
    read_steps,
    tell,
)
from negdistill.data.records import Problem, Rationale

__all__ = [
    "KINDS",
    "SPLITS",
    "STRENGTHS",
    "SUBJECTS",
    "equations",
    "first_wrong_step",
    "generate",
    "pretraining_text",
    "read_steps",
    "slip",
    "teach",
    "tokenizer",
]


@dataclass(frozen=True)
class Strength:
    """Accuracy per level 1-5 under the strict rule, and how often the answer is stated otherwise."""

    accuracy: tuple[float, ...]
    unboxed: float  # share of rationales that state the answer without a box
    notation: float  # share that box the same number written otherwise

    def ability(self, level: int, hardness: float) -> float:
        """Chance, in [0, 1], to reason rightly; beyond level 5 as at level 5."""
        r = self.accuracy[min(level, 5) - 1] / (1 - self.unboxed - self.notation)
        width = min(3 * r * (1 - r), 2 * r, 2 * (1 - r))
        return min(1.0, max(0.0, 0.5 + (r - hardness) / width))


STRENGTHS = {  # measured on the released MATH rationales of GPT-3.5 and GPT-4
    "weak": Strength((0.742, 0.577, 0.426, 0.282, 0.126), unboxed=0.013, notation=0.0045),
    "strong": Strength((0.743, 0.657, 0.566, 0.458, 0.232), unboxed=0.073, notation=0.007),
}
SYSTEMATIC = 0.4  # share of questions on which a teacher always makes the same mistake, when it makes one
READING = ("operation", "skipped", "misread")  # the written equations are true, the question is another
KINDS = ("neighbour", "digits", *READING)


def _swapped(number: int) -> int:
    """The number with its last two digits exchanged (itself when it has one digit)."""
    return number - number % 100 + number % 10 * 10 + number // 10 % 10 if number > 9 else number


def slip(steps: Sequence[Step], place: int, kind: str, rng: random.Random) -> tuple[Step, ...] | None:
    """The chain as written by somebody who slips at step `place` (from 0) and then goes on correctly.

    kind  neighbour: result off by 1, 2 or 10; digits: two digits of the result exchanged;
          operation: another operation; skipped: the sentence is left out; misread: another number is read
    Returns None when this slip cannot be told: no number changes, a later value leaves the range, or the
    final answer is right all the same.
    """
    check_choice("kind", kind, KINDS)
    step = steps[place]
    if kind == "neighbour":
        step = step._replace(result=step.result + rng.choice((-10, -2, -1, 1, 2, 10)))
    elif kind == "digits":
        step = step._replace(result=_swapped(step.result))
    elif kind == "operation":
        op = rng.choice([op for op in "+-*/" if op != step.op])
        step = step._replace(op=op, result=calculate(step.left, op, step.right))
    elif kind == "misread":
        right = rng.choice((step.right - 1, step.right + 1, _swapped(step.right)))
        sentence = re.sub(r"\d+", str(right), step.sentence)
        step = step._replace(right=right, result=calculate(step.left, step.op, right), sentence=sentence)
    value = step.left if kind == "skipped" else step.result
    written = [*steps[:place], *([] if kind == "skipped" else [step])]
    for later in steps[place + 1 :]:
        if value is None:
            return None
        later = later._replace(left=value, result=calculate(value, later.op, later.right))
        written.append(later)
        value = later.result
    if value is None or not 0 <= value <= LARGEST or value == steps[-1].result:
        return None
    return tuple(written)


def _mistaken(steps: Sequence[Step], kinds: Sequence[str], rng: random.Random) -> tuple[Step, ...]:
    """The first slip of random place and kind that can be told; at worst a last result one too low."""
    for _ in range(50):
        written = slip(steps, rng.randrange(len(steps)), rng.choice(kinds), rng)
        if written is not None:
            return written
    return (*steps[:-1], steps[-1]._replace(result=steps[-1].result - 1))


def _say(opening: str, steps: Sequence[Step], answer: str, rng: random.Random) -> str:
    """A rationale: the sentences of the question, each with its equation, then the answer."""
    said = [opening] if rng.random() < 0.7 else []
    for step in steps:
        joint = rng.choice((", so ", ", so ", ": ", ""))
        said.append(f"{step.sentence[:-1] + joint if joint else ''}{step.equation}.")
    return " ".join(
        [*said, rng.choice(("The answer is ", "So the answer is ", "That makes ")) + f"{answer}."]
    )


def teach(problems: Sequence[Problem], strength: str = "weak", n: int = 8, seed: int = 0) -> list[Rationale]:
    """n rationales per problem, in order, by the teacher `arithmetic-<strength>`.

    How able the teacher is at a question, and which misconception it holds, depends on question and strength
    only; the n samples depend on `seed` too. Problems with more than 5 steps are as hard as level 5.
    Raises ValueError for an unknown strength, n < 1, or a problem that is not of this benchmark.
    """
    check_choice("strength", strength, STRENGTHS)
    if n < 1:
        raise ValueError(f"n must be 1 or more; got {n}")
    teacher, rationales = STRENGTHS[strength], []
    for problem in problems:
        opening, steps = read_steps(problem)
        habit = random.Random(f"habit/{strength}/{problem.question}")
        able = teacher.ability(len(steps), hardness(problem.question))
        belief = _mistaken(steps, READING, habit) if habit.random() < SYSTEMATIC else None
        rng = random.Random(f"teach/{strength}/{seed}/{problem.question}")
        for index in range(n):
            right = rng.random() < able
            written = steps if right else _mistaken(steps, KINDS, rng) if belief is None else belief
            value = written[-1].result if written else steps[0].left  # a skipped only step leaves the start
            form = rng.random()
            answer = f"\\boxed{{{value}}}"
            if form < teacher.unboxed:
                answer = str(value)
            elif form < teacher.unboxed + teacher.notation:
                answer = rng.choice((f"\\boxed{{{value}.0}}", f"\\boxed{{\\frac{{{2 * value}}}{{2}}}}"))
            text = _say(opening, written, answer, rng)
            rationales.append(Rationale(problem.id, index, text, f"arithmetic-{strength}"))
    return rationales


_EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


def first_wrong_step(problem: Problem, text: str) -> int | None:
    """Index, from 0, of the first step of the problem that a step-by-step rationale gets wrong or leaves out.

    Compares the equations in the text with the problem's own steps, in order; the two sides of + and * may be
    exchanged. None when all are right; the number of steps when a superfluous equation follows them.
    """
    _, steps = read_steps(problem)
    found = [(op, {a, b} if op in "+*" else (a, b), c) for a, op, b, c in _EQUATION.findall(text)]
    for index, step in enumerate(steps):
        pair = (str(step.left), str(step.right))
        if found[index : index + 1] != [(step.op, set(pair) if step.op in "+*" else pair, str(step.result))]:
            return index
    return len(steps) if len(found) > len(steps) else None


# Pieces of several characters; single characters follow, so that any ASCII text can be written.
_PIECES = (
    "Problem:\n|\nSolution:\n| + | - | * | / | = |. |?|, so |: |The answer is |So the answer is "
    "|That makes |\\boxed{|}.|Ann |Ben |Eva |Tom | apples| books| cards| coins| pens| shells| dollars"
    "| minutes| more|has | holds |finds |brings |takes | away|How many| are there| now| does |have"
    "|wins |gives |loses |A bag|fills | such| bags|There are | in all|adds | out|makes | equal| parts"
    "| and keeps one|Only one of | is| left| are|puts | back|drops |Box | does box | than| box | fewer"
    "| times| as many as| as much| as fast| hold|earns |pays |spends |The money grows to |keeps one of "
    "|walks |A stop adds |A short way |saves |does it | does it take|A bike is |\nA: |Q: "
)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


def vocabulary() -> list[str]:
    """The tokens in order of their ids: special tokens, pieces, single characters."""
    pieces = dict.fromkeys(_PIECES.split("|"))
    return [*SPECIAL, *pieces, *(c for c in "\n" + string.printable[:95] if c not in pieces)]


def tokenizer():
    """A PreTrainedTokenizerFast of under 200 tokens: whole words, digits one by one, else characters.

    ASCII text (printable characters and line breaks) comes back unchanged from decode(encode(text)); any
    other character becomes <unk>. No token is added by encoding.
    """
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    scores = [(token, -1.0) for token in vocabulary()]  # equal scores: the fewest tokens win
    core = Tokenizer(models.Unigram(scores, unk_id=SPECIAL.index("<unk>"), byte_fallback=False))
    core.decoder = decoders.Fuse()
    pad, bos, eos, unk = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )


def _equation(rng: random.Random) -> str:
    """One true equation; small numbers are a little more frequent, as they are in stories."""
    op = rng.choice("+++---**//")
    if op in "+-":
        whole = rng.randint(0, LARGEST)
        part = rng.randint(0, whole)
        left, right = (whole - part, part) if op == "+" else (whole, part)
    else:
        right = rng.randint(1, 9 if rng.random() < 0.8 else LARGEST)
        left = rng.randint(0, LARGEST // right)
        left, right = (left * right, right) if op == "/" else rng.sample((left, right), 2)
    return f"{left} {op} {right} = {calculate(left, op, right)}."


def equations(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """n true equations, each cut before its result: ("12 + 45 = ", "57.")."""
    rng = random.Random(f"arithmetic/equations/{seed}")
    cut = (_equation(rng).split(" = ") for _ in range(n))
    return [(f"{left} = ", result) for left, result in cut]


def _drill(rng: random.Random) -> str:
    """Single operations, all four, over the whole range."""
    return " ".join(_equation(rng) for _ in range(5))


def _spelled(rng: random.Random) -> str:
    """A made-up noun, so that unknown words are nothing new."""
    return "".join(rng.choice("bdfgklmnprst") + rng.choice("aeiou") for _ in range(rng.randint(2, 3))) + "s"


def _known_story(steps: int, rng: random.Random) -> Story:
    """A story whose question is in the bucket of train, in the plain or the other wording."""
    world, names = (WORLD, NAMES) if rng.random() < 0.7 else (REWORDED_WORLD, OTHER_NAMES)
    while True:
        nouns = NOUNS if rng.random() < 0.6 else (_spelled(rng),)
        story = tell(world[rng.choice(SUBJECTS)], steps, rng, names, nouns)
        if bucket(story.text()) < 8:
            return story


def _narration(rng: random.Random) -> str:
    """A story told to the end, with the count after each step and sometimes a number that does not matter.

    A short one is often told without the counts first. Finding the place in what was said, and saying it
    again sentence by sentence, is most of what a rationale does.
    """
    story = _known_story(rng.randint(1, 5), rng)
    plain, counted = [story.opening], [story.opening]
    for step in story.steps:
        if rng.random() < 0.1:
            extra = rng.choice(DISTRACTORS).replace("#", str(rng.randint(2, 90)))
            plain.append(extra.replace("~", rng.choice(NOUNS)))
            counted.append(plain[-1])
        plain.append(step.sentence)
        counted.append(f"{step.sentence} That makes {step.result}.")
    first, second = " ".join(plain), " ".join(counted)
    return f"{first} {second}" if len(first) < 200 and rng.random() < 0.8 else second


def _example(rng: random.Random) -> str:
    """A worked example of one or two steps, or only its answer, in a layout of its own."""
    story = _known_story(rng.randint(1, 2), rng)
    worked = " ".join(f"{step.equation}." for step in story.steps)
    return f"Q: {story.text()}\nA: {worked if rng.random() < 0.8 else story.steps[-1].result}"


def _echo(rng: random.Random) -> str:
    """Arbitrary tokens, said twice: every token gets an embedding of its own, and copying is learnt."""
    said = "".join(rng.choices(vocabulary()[len(SPECIAL) :], k=rng.randint(6, 12)))
    return f"{said}\n{said}"


def pretraining_text(n: int, seed: int = 0) -> list[str]:
    """n pieces of about 200 tokens: drills, narrated stories, short worked examples, echoes.

    Questions lie in the bucket of train, so none of them is a question of any other split.
    """
    rng, pieces = random.Random(f"arithmetic/pretraining/{seed}"), []
    items, weights = (_drill, _narration, _example, _echo), (8, 7, 5, 2)
    for _ in range(n):
        said, size = [], rng.randint(150, 450)
        while sum(map(len, said)) < size:
            said.append(rng.choices(items, weights)[0](rng))
        while sum(map(len, said)) > 600:  # a context of 512 tokens holds what remains
            said.pop(0)
        pieces.append("\n".join(said))
    return pieces
