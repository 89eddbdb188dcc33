"""Text of the embedded benchmark: its tokenizer, and what the student reads before any rationale.

drills, narrated stories, short examples, echoes  -->  pieces of about 200 tokens
"""

from __future__ import annotations

import random
import string

from negdistill.data.arithmetic_templates import (
    DISTRACTORS,
    NAMES,
    NOUNS,
    OTHER_NAMES,
    REWORDED_WORLD,
    SUBJECTS,
    WORLD,
)
from negdistill.data.arithmetic_world import LARGEST, Story, bucket, calculate, tell

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
