"""The plan of the claims: what is asked, and what decides it, as book/plan.yml says before the runs.

plan.yml    a comparison in words: rows `one` minus rows `other` of a chapter
read_plan   each of them for every teacher, with the columns of the chapter's predictions that it selects
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from negdistill.bookmaking.documents import read_yaml
from negdistill.checks import check_choice

TEACHERS = {"weak": "GPT-3.5", "strong": "GPT-4"}  # of the embedded benchmark, and whose level they have
BOTH = "both"  # of the teachers
REAL = "real"  # the chapter with the real student
METHODS = "methods"  # the chapter with two teachers and several budgets
CHAPTERS = ("negative", "nat", METHODS, "nce", "votes", "shifted", "ablations", "rivals", REAL, "when")
SAME_ACCURACY = "equal accuracy"  # the budget at which two students are asked what they have in common
KEYS = ("chapter", "teachers", "budget", "set", "variant", "students", "one", "other", "sign", "wider")


class Comparison(NamedTuple):
    """Rows `one` minus rows `other`, in a chapter's predictions.

    where    values of its columns; set "shifted" takes all sets but "test" together
    one, other  methods; of several, place by place, questions of each pair count apart
    sign     of the difference that a claim expects
    wider    why its interval may be wider than the limit, "" where it may not
    """

    label: str
    chapter: str
    where: Mapping[str, object]
    one: tuple[str, ...]
    other: tuple[str, ...]
    sign: int = 1
    wider: str = ""


class Claim(NamedTuple):
    """A numbered claim.

    published   pairs of methods whose difference the paper's Table 2 prints, and what else it says
    overlap     chapter whose overlap of solved sets decides it, "" for none
    wider       why the interval of that may be wider than the limit
    real        what decides it for the real student
    """

    number: int
    says: str
    differences: tuple[tuple[str, str], ...]
    published: str
    overlap: str
    wider: str
    decided_by: tuple[Comparison, ...]
    controls: tuple[Comparison, ...]
    real: tuple[Comparison, ...]


class Plan(NamedTuple):
    """All of book/plan.yml.

    margin, floor, half_width  fractions; real_floor and real_half_width those of the real student
    uses     comparisons by what wrong answers are used for
    elsewhere  comparisons by the profile of a run on another task; they decide no claim
    sweeps   how the conditions are moved, and what counts there
    waiting  chapters whose committed run is smaller than planned, and how small
    """

    margin: float
    floor: float
    half_width: float
    real_floor: float
    real_half_width: float
    claims: tuple[Claim, ...]
    uses: Mapping[str, tuple[Comparison, ...]]
    elsewhere: Mapping[str, tuple[Comparison, ...]]
    sweeps: str
    waiting: Mapping[str, str]
    pilot: str
    changes: tuple[Mapping[str, object], ...]


def comparisons(said: Mapping[str, object], where: str = "plan") -> tuple[Comparison, ...]:
    """What one line of the plan asks for: a comparison, or one for each teacher.

    ValueError for a key, a chapter or a teacher that is unknown, naming `where` it stands.
    """
    for key in said:
        check_choice(f"{where}: key of a comparison", key, KEYS)
    check_choice(f"{where}: chapter", said.get("chapter"), CHAPTERS)
    one, other, budget = said["one"], said["other"], said.get("budget", "")
    chosen = {name: said[name] for name in ("budget", "set", "variant") if name in said}
    pair = ((one,), (other,))
    if students := said.get("students"):
        pair = tuple(tuple(f"{student}, {rule}" for student in students) for rule in (one, other))
    label = f"{one} − {other}"
    if students and len(students) == 1:
        label = f"{students[0]}: {label}"
    label += f", {budget}" if budget else ""
    label = f"real: {label}" if said["chapter"] == REAL else label
    rest = (*pair, said.get("sign", 1), said.get("wider", ""))
    if "teachers" not in said:
        return (Comparison(label, said["chapter"], chosen, *rest),)
    check_choice(f"{where}: teachers", said["teachers"], (BOTH, *TEACHERS))
    return tuple(
        Comparison(f"{teacher}: {label}", said["chapter"], {"teacher": teacher, **chosen}, *rest)
        for teacher in TEACHERS
        if said["teachers"] in (BOTH, teacher)
    )


def _all(lines: Sequence[Mapping[str, object]], where: str) -> tuple[Comparison, ...]:
    return tuple(found for said in lines for found in comparisons(said, where))


def read_plan(path: str | Path) -> Plan:
    """The plan in a file as book/plan.yml.

    ValueError for what is missing, for two claims of one number, else as `comparisons`.
    """
    try:
        return _plan(read_yaml(Path(path)), path)
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}; book/plan.yml shows where it belongs") from error


def _plan(said: Mapping[str, Any], path: str | Path) -> Plan:
    claims = []
    for one in said["claims"]:
        where = f"{path}: claim {one['number']}"
        if any(one["number"] == claim.number for claim in claims):
            raise ValueError(f"{where} stands there twice; number each claim once")
        published, overlap = one.get("published", {}), one.get("overlap", {})
        if overlap:
            check_choice(f"at of {where}", overlap.get("at"), [SAME_ACCURACY])
        claims.append(
            Claim(
                one["number"],
                one["says"],
                tuple(map(tuple, published.get("differences", ()))),
                published.get("says", ""),
                overlap.get("chapter", ""),
                overlap.get("wider", ""),
                _all(one.get("decided_by", ()), where),
                _all(one.get("controls", ()), where),
                _all(one.get("real", ()), where),
            )
        )
    named = {
        part: {name: _all(lines, f"{path}: {name}") for name, lines in said[part].items()}
        for part in ("uses", "elsewhere")
    }
    rest = {name: said[name] for name in ("sweeps", "waiting", "pilot")}
    changes = tuple(said["changes"])
    return Plan(**said["verdict"], **rest, claims=tuple(claims), **named, changes=changes)
