"""Rows: every row of the paper's tables and every control, as data.

    row          trains on                        forward at test time
    Few-shot     -                                W0, worked examples before the question
    plain rows   solutions, positives or both     W0 + s B A                             (PEFT LoRA)
    NAT rows     positives                        the unit over pos and neg branch       (negdistill.nat)
    KD, NCE      positives and p_nat              W0 + s B A, taught by the frozen NAT   (negdistill.nce)
    Merge        -                                W0 + 1.5 dW(CoT KD) - 0.5 dW(Negative adapter)

A row may use adapters of other rows: NAT needs the negative adapter, KD and NCE need NAT.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Method:
    """One row.

    origin       "paper" or "control"
    data         what its own training reads: "solutions", "positives", "negatives", "both"; "" for none
    view         what computes at test time: "base", "lora" or "nat"
    objective    name in `objectives.OBJECTIVES`
    uses         rows whose adapters it needs, in the order they are fitted
    start        what becomes of those: "" there are none, "branch" the negative branch, "noise" a negative
                 branch of noise of their size, "continue" training goes on from there, "merge" their sum,
                 "teacher" frozen teachers
    beta_mode    name in `nce.BETA_MODES` for rows with teachers, otherwise ""
    description  for the tables
    """

    name: str
    origin: str
    data: str
    view: str
    description: str
    objective: str = "likelihood"
    uses: tuple[str, ...] = ()
    start: str = ""
    beta_mode: str = ""


def _taught(name: str, origin: str, beta_mode: str, description: str) -> Method:
    """A plain LoRA that learns from positives and from NAT."""
    parts = (name, origin, "positives", "lora", description, "distillation")
    return Method(*parts, uses=("NAT",), start="teacher", beta_mode=beta_mode)


NEGATIVE = "Negative adapter"
WIDE = "CoT KD, NAT's size"
MERGE = {NEGATIVE: -0.5, "CoT KD": 1.5}
_NEG = (NEGATIVE,)
_ROWS = (
    Method("Few-shot", "paper", "", "base", "worked examples in the prompt, no training"),
    Method("Fine-tune", "paper", "solutions", "lora", "the data set's own solutions"),
    Method("CoT KD", "paper", "positives", "lora", "right rationales of the teacher"),
    Method("MIX", "paper", "both", "lora", "right and wrong rationales alike"),
    Method("CL", "paper", "both", "lora", "CoT KD, and contrast with wrong rationales", "contrastive"),
    Method("NT", "paper", "both", "lora", "CoT KD, less 0.05 likelihood of wrong ones", "negative"),
    Method("UL", "paper", "both", "lora", "CoT KD, and 0.05 unlikelihood of wrong ones", "unlikelihood"),
    Method("NAT", "paper", "positives", "nat", "the unit over both adapters", uses=_NEG, start="branch"),
    _taught("KD", "paper", "none", "CoT KD, and the distribution of NAT"),
    _taught("NCE", "paper", "paper", "KD, weighted by beta of each rationale"),
    Method(NEGATIVE, "paper", "negatives", "lora", "wrong rationales only"),
    Method(WIDE, "control", "positives", "lora", "CoT KD with as many trainable parameters as NAT"),
    Method("NAT, empty branch", "control", "positives", "nat", "the unit over a zero negative branch"),
    Method(
        "NAT, random branch", "control", "positives", "nat", "the unit over noise", uses=_NEG, start="noise"
    ),
    Method(
        *("NAT, positive branch", "control", "positives", "nat", "the unit over CoT KD as negative branch"),
        uses=("CoT KD",),
        start="branch",
    ),
    Method(
        *(
            "Negatives first",
            "control",
            "positives",
            "lora",
            "one adapter: wrong rationales, then right ones",
        ),
        uses=_NEG,
        start="continue",
    ),
    Method(
        *("Merge", "control", "", "lora", "1.5 CoT KD - 0.5 negative adapter, no training of its own"),
        uses=tuple(MERGE),
        start="merge",
    ),
    _taught("NCE, mean beta", "control", "mean", "NCE with the same beta for all"),
    _taught("NCE, shuffled beta", "control", "shuffled", "NCE with the beta of another rationale"),
    _taught("NCE, inverse beta", "control", "inverse", "NCE with the order of beta reversed"),
)
METHODS: Mapping[str, Method] = MappingProxyType({row.name: row for row in _ROWS})


def stages(name: str, given: Collection[str] = ()) -> list[str]:
    """The methods to fit for a method in order, itself last; not those `given`, nor what only these need."""
    found: list[str] = []
    for used in METHODS[name].uses:
        if used not in given:
            found += [stage for stage in stages(used, given) if stage not in found]
    return [*found, name]


def trainings(name: str, given: Collection[str] = ()) -> int:
    """How many of the stages train something of their own."""
    return sum(bool(METHODS[stage].data) for stage in stages(name, given))
