"""Side by side: what a student says to one question as it is, and with the adapters of fitted rows.

python -m negdistill try "A shelf holds 12 books. How many do 3 shelves hold?" --fits _runs/.../fits
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from negdistill.data.prompts import format_prompt
from negdistill.inference.ranker_fit import HEAD
from negdistill.inference.sample import sample
from negdistill.training.fit import adapted
from negdistill.training.fits import ADAPTER, FIT, Fit, finished, load_fit
from negdistill.training.method_table import METHODS, NEGATIVE

if TYPE_CHECKING:
    from negdistill.training.students import Student

BASE = "as it is"
SHOWN = ("CoT KD", NEGATIVE, "NAT", "NCE")


def fits_in(folder: str | Path) -> dict[str, Fit]:
    """One finished fit of each row of SHOWN that a folder holds: of the smallest seed, with the fewest steps.

    ValueError where the folder holds none of them.
    """
    places = [path.parent for path in sorted(Path(folder).glob(f"*/{FIT}")) if finished(path.parent)]
    places = [place for place in places if not (place / ADAPTER / HEAD).is_file()]  # a ranker's
    found = [one for one in map(load_fit, places) if one.method in METHODS]
    found.sort(key=lambda one: (one.seed, one.total_steps))
    chosen = {name: next((one for one in found if one.method == name), None) for name in SHOWN}
    if not any(chosen.values()):
        raise ValueError(
            f"fits must be a folder with finished fits of {', '.join(map(repr, chosen))}; "
            f"{folder} holds none; run a chapter first, its fits lie in _runs/PROFILE/CHAPTER/fits"
        )
    return {name: one for name, one in chosen.items() if one}


def side_by_side(
    student: Student, question: str, fits: Mapping[str, Fit], max_new_tokens: int = 256
) -> dict[str, str]:
    """Greedy answers of the student as it is and with each fit, by name. ValueError for an empty question."""
    if not question.strip():
        raise ValueError("question must not be empty; ask something")
    said = {}
    for name, one in {BASE: None, **fits}.items():
        preset, prefix = (one.preset, one.prefix) if one else ("fixed", "")
        prompts = {"question": prefix + format_prompt(question, preset)}
        with adapted(student, one) if one else nullcontext(student) as trained:
            drawn = sample(trained, prompts, 1, 0.0, max_new_tokens=max_new_tokens, progress=False)
        said[name] = drawn[0].text.partition("\n" + format_prompt("", preset).partition("\n")[0])[0].strip()
    return said
