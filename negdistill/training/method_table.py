"""Rows: every row of the paper's tables and every control, as data.

    row          trains on                        forward at test time
    Few-shot     -                                W0, worked examples before the question
    plain rows   solutions, positives or both     W0 + s B A                             (PEFT LoRA)
    NAT rows     positives                        the unit over pos and neg branch       (method.nat)
    KD, NCE      positives and p_nat              W0 + s B A, taught by the frozen NAT   (method.nce)
    Merge        -                                W0 + 1.5 dW(CoT KD) - 0.5 dW(Negative adapter)
    rivals       what else is done with wrong answers, most of it after CoT KD    (method.rivals)

A row may use adapters of other rows: NAT needs the negative adapter, KD and NCE need NAT. A row of your own
is a `Method` in a module of your own, and its name is "module:Name" wherever a row is named.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from inspect import signature
from types import MappingProxyType

from negdistill.checks import check_choice, check_flag, check_number
from negdistill.runs.own_code import digest_own

DATA = ("", "solutions", "positives", "negatives", "both", "answers")
VIEWS = ("base", "lora", "nat", "contrast")
STARTS = ("", "branch", "noise", "continue", "merge", "contrast", "teacher")
VIEW_OF = {"branch": "nat", "noise": "nat", "contrast": "contrast"}  # of a start; "lora" of the others
ORDERS = ("single", "pairs", "mismatched")
UNITS = ("target", "row")
RATES = (1.0, 0.5, 2.0)
GENTLE = (0.1, 0.03, 0.01)  # for losses that compare the student with what it was


@dataclass(frozen=True, slots=True)
class Method:
    """One row.

    origin       "paper", "control" or "rival"; of a row of your own what you like
    data         what its own training reads: "solutions", "positives", "negatives", "both", "answers" (the
                 reference answers alone); "" for none
    view         what computes at test time: "base", "lora", "nat", or "contrast" of two adapters
    objective    name in `objectives.OBJECTIVES`, or a function such as those: model and batch to ()
    uses         rows whose adapters it needs, in the order they are fitted
    start        what becomes of those: "" there are none, "branch" the negative branch, "noise" a negative
                 branch of noise of their size, "continue" training goes on from there, "merge" what Merge
                 is, "contrast" both answer together, "teacher" frozen teachers
    beta_mode    name in `nce.BETA_MODES` for rows with teachers, otherwise ""
    order        how rows become batches: "single"; "pairs", a right and a wrong one of each question that has
                 both, side by side; "mismatched", each beside its prompt with another question's rationale
    per          "target" or "row": what the objective sums over
    reference    whether the batch carries l of each row before this training, as `reference` (B,), and the
                 weight of its kind in the training set, as `weight` (B,); see `rivals.balance`
    memory       whether it carries what the objective left there when it last saw the row, as `memory` (B,)
    marks        text before the prompt of right and of wrong rationales; it answers under the former
    rates        factors of the settings' learning rate that its grid tries, the most likely one first
    description  for the tables

    TypeError or ValueError for a value that is none of these, and for two that do not go together.
    """

    name: str
    origin: str
    data: str
    view: str
    description: str
    objective: str | Callable = "likelihood"
    uses: tuple[str, ...] = ()
    start: str = ""
    beta_mode: str = ""
    order: str = "single"
    per: str = "target"
    reference: bool = False
    memory: bool = False
    marks: tuple[str, ...] = ()
    rates: tuple[float, ...] = RATES

    def __post_init__(self) -> None:
        for name in ("name", "origin", "description"):
            if not (isinstance(value := getattr(self, name), str) and value.strip()):
                raise TypeError(f"{name} of a method must be a text that says something; got {value!r}")
        allowed = {"data": DATA, "view": VIEWS, "start": STARTS, "order": ORDERS, "per": UNITS}
        for name, values in allowed.items():
            check_choice(f"{name} of {self.name}", getattr(self, name), values)
        _check_tuple(self, "uses", str, "names of rows")
        _check_tuple(self, "marks", str, "two texts, for right and wrong", (0, 2))
        _check_tuple(self, "rates", (int, float), "factors above 0")
        if not self.rates:
            raise ValueError(f"rates of {self.name} must be factors above 0, at least one; got {self.rates}")
        for rate in self.rates:
            check_number(f"rates of {self.name}", rate, above=0)
        for flag in ("reference", "memory"):
            check_flag(f"{flag} of {self.name}", getattr(self, flag))
        _check_objective(self)
        _check_together(self)

    @property
    def prefix(self) -> str:
        """Text before every prompt that it answers."""
        return self.marks[0] if self.marks else ""


def _check_objective(row: Method) -> None:
    objective = row.objective
    if isinstance(objective, str):  # which `find_method` looks up: that takes torch
        return
    if not callable(objective):
        raise TypeError(
            f"objective of {row.name} must be a name in objectives.OBJECTIVES or a function of model and "
            f"batch; got {objective!r}"
        )
    try:
        signature(objective).bind("model", "batch")
    except TypeError as error:
        raise TypeError(f"objective of {row.name} must take model and batch: {error}") from error


def _check_together(row: Method) -> None:
    """ValueError for two values that do not go together."""
    if bool(row.uses) != bool(row.start):
        raise ValueError(
            f"start of {row.name} must say what becomes of the rows that it uses; "
            f"got uses {row.uses} and start {row.start!r}"
        )
    if not (row.data or row.uses or row.view == "base"):
        raise ValueError(
            f"data of {row.name} must say what it trains on, or uses what it is made of; got neither"
        )
    if row.view == "base" and (row.data or row.uses):
        raise ValueError(
            f'data and uses of {row.name} must be empty for view "base", the student as it is; got '
            f"{row.data!r} and {row.uses}"
        )
    wanted = VIEW_OF.get(row.start, "lora") if row.start or row.view == "contrast" else row.view
    if row.view != wanted:
        raise ValueError(f"view of {row.name} must be {wanted!r} for start {row.start!r}; got {row.view!r}")
    two = row.start in ("merge", "contrast")
    if row.uses != (tuple(MERGE) if two else row.uses[:1]) or (two and row.data):
        fit = f'{tuple(MERGE)} and data ""' if two else "one row"
        raise ValueError(
            f"uses of {row.name} must be {fit} for start {row.start!r}; got {row.uses} and {row.data!r}"
        )
    if bool(row.beta_mode) != (row.start == "teacher"):
        raise ValueError(
            f"beta_mode of {row.name} must be named where it starts from teachers, nowhere else; got "
            f"{row.beta_mode!r} and start {row.start!r}"
        )
    if row.order != "single" and row.data != "both":
        raise ValueError(f'data of {row.name} must be "both" for order {row.order!r}; got {row.data!r}')


def _check_tuple(
    row: Method, name: str, kind: type | tuple[type, ...], what: str, lengths: tuple[int, ...] = ()
) -> None:
    value = getattr(row, name)
    fits = isinstance(value, tuple) and all(isinstance(one, kind) for one in value)
    if not fits or (lengths and len(value) not in lengths):
        raise TypeError(f"{name} of {row.name} must be a tuple of {what}; got {value!r}")


def _rival(name: str, objective: str, description: str, **more: object) -> Method:
    """Right and wrong rationales, whole ones, after CoT KD and at gentle rates."""
    whole = {"uses": ("CoT KD",), "start": "continue", "per": "row", "rates": GENTLE}
    return Method(name, "rival", "both", "lora", description, objective, **whole | more)


def _control(
    name: str, view: str, says: str, uses: tuple[str, ...] = (), start: str = "", data: str = "positives"
) -> Method:
    return Method(name, "control", data, view, says, uses=uses, start=start)


def _marked(name: str, right: str, wrong: str, description: str) -> Method:
    return Method(name, "rival", "both", "lora", description, marks=(right, wrong))


def _taught(name: str, origin: str, beta_mode: str, description: str) -> Method:
    """A plain LoRA that learns from positives and from NAT."""
    parts = (name, origin, "positives", "lora", description, "distillation")
    return Method(*parts, uses=("NAT",), start="teacher", beta_mode=beta_mode)


NEGATIVE = "Negative adapter"
WIDE = "CoT KD, NAT's size"
LONGER = "CoT KD, continued"
COT = "CoT KD"
MERGE = {NEGATIVE: -0.5, COT: 1.5}
CONTRAST = 0.5  # of the logits: 1.5 and -0.5, as Merge has them of the matrices
RIGHT, WRONG = "Right solution.\n", "Wrong solution.\n"
_PAIRS = {"order": "pairs"}
_REFERENCE = {"reference": True}
_BOTH, _WHOLE_UL = ("rival", "both", "lora"), "unlikelihood of rationales"
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
    _control(WIDE, "lora", "CoT KD with as many trainable parameters as NAT"),
    _control("NAT, empty branch", "nat", "the unit over a zero negative branch"),
    _control("NAT, random branch", "nat", "the unit over noise", _NEG, "noise"),
    _control("NAT, positive branch", "nat", "the unit over CoT KD as negative branch", (COT,), "branch"),
    _control("Negatives first", "lora", "one adapter: wrong rationales, then right ones", _NEG, "continue"),
    _control("Merge", "lora", "1.5 CoT KD - 0.5 negative adapter, no training", tuple(MERGE), "merge", ""),
    _taught("NCE, mean beta", "control", "mean", "NCE with the same beta for all"),
    _taught("NCE, shuffled beta", "control", "shuffled", "NCE with the beta of another rationale"),
    _taught("NCE, inverse beta", "control", "inverse", "NCE with the order of beta reversed"),
    _control(LONGER, "lora", "CoT KD, then CoT KD again: the same start as a rival's", (COT,), "continue"),
    Method("Answers only", "rival", "answers", "lora", "the boxed answer without a rationale"),
    _marked("Label prefix", RIGHT, WRONG, "both, marked right or wrong; answers under the mark right"),
    _marked("Label prefix, swapped", WRONG, RIGHT, "the same with the words of the marks exchanged"),
    _marked("Label prefix, letters", "A.\n", "B.\n", "the same with marks that mean nothing"),
    _rival("DPO", "dpo", "right over wrong of one question, beta 0.1", **_PAIRS | _REFERENCE),
    _rival("DPO, small beta", "dpo, small beta", "the same, beta 0.001", **_PAIRS | _REFERENCE),
    _rival("DPO + NLL", "dpo and likelihood", "DPO, and the likelihood of the right", **_PAIRS | _REFERENCE),
    _rival("KTO", "kto", "right above, wrong below z0, singly", order="mismatched", **_REFERENCE),
    _rival("KTO, no z0", "kto, no z0", "the same around 0", **_REFERENCE),
    _rival("REDI", "redi", "right likelier, wrong 0.8 times less likely", **_PAIRS),
    _rival("REDI, alpha 0", "redi, alpha 0", "REDI without its wrong rationales", **_PAIRS),
    _rival("REDI, alpha 1", "redi, alpha 1", "REDI with equal weights", **_PAIRS),
    _rival("W-REINFORCE", "w-reinforce", "REDI with weights 0.1 and 1", **_PAIRS),
    _rival("NSR", "nsr", "wrong rationales less likely, nothing else", **_PAIRS),
    _rival("TOPR", "topr", "wrong ones count less once they are less likely", **_REFERENCE),
    Method("GLOW", *_BOTH, "both alike, more weight for what gets no better", "glow", per="row", memory=True),
    Method("UL, whole rationales", *_BOTH, "CoT KD, and 0.05 unlikelihood of wrong rationales", _WHOLE_UL),
    Method(
        "Contrastive decoding",
        "rival",
        "",
        "contrast",
        "1.5 CoT KD - 0.5 negative adapter, in logits",
        uses=tuple(MERGE),
        start="contrast",
    ),
)
METHODS: Mapping[str, Method] = MappingProxyType({row.name: row for row in _ROWS})


def find_method(name: str) -> Method:
    """The row of that name; of "module:Name" the `Method` of that name in a module that Python finds.

    Importing runs the module. ValueError for an unknown row, for a module that cannot be imported or lacks
    the name, and for a row that uses unknown ones, or such as do not suit its start, or names an unknown
    objective; TypeError where the name is no `Method`.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        check_choice("method", name, METHODS)
        return METHODS[name]
    if module == "__main__":  # whose code no key could name
        raise ValueError(f"method {name!r} must lie in a module of its own: move it to a file, and name that")
    try:
        loaded = import_module(module)
    except (Exception, SystemExit) as error:  # whatever the module does
        raise ValueError(
            f"method {name!r} needs the module {module!r} where Python finds it, in the working directory or "
            f"on PYTHONPATH: {error}"
        ) from error
    if not hasattr(loaded, attribute):
        raise ValueError(f"method {name!r} must name a Method of its module; {module} has no {attribute!r}")
    found = getattr(loaded, attribute)
    if not isinstance(found, Method):
        raise TypeError(f"method {name!r} must be a method_table.Method; got {type(found).__name__}")
    for one in found.uses:
        check_choice(f"uses of {name}", one, METHODS)
        if METHODS[one].view != ("nat" if found.start == "teacher" else "lora"):
            raise ValueError(f"uses of {name} must suit start {found.start!r}; got {one!r}, which does not")
    if isinstance(found.objective, str):
        from negdistill.method.objectives import OBJECTIVES

        check_choice(f"objective of {name}", found.objective, OBJECTIVES)
    return replace(found, name=name)


def digest_method(row: Method) -> str:
    """sha256 of the module of a row of your own and of those beside it; ValueError as `digest_own`."""
    module, _, name = row.name.partition(":")
    return digest_own(getattr(import_module(module), name), module, name)


def stages(name: str, given: Collection[str] = ()) -> list[str]:
    """The methods to fit for a method in order, itself last; not those `given`, nor what only these need."""
    found: list[str] = []
    for used in find_method(name).uses:
        if used not in given:
            found += [stage for stage in stages(used, given) if stage not in found]
    return [*found, name]


def trainings(name: str, given: Collection[str] = ()) -> int:
    """How many of the stages train something of their own."""
    return sum(bool(find_method(stage).data) for stage in stages(name, given))
