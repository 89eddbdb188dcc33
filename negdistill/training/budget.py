"""Budget: what each training of a row may use of the steps or tokens that the row has in all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from negdistill.training.fits import Fit
from negdistill.training.method_table import find_method, stages, trainings
from negdistill.training.settings import Settings


def _limits(config: Settings) -> list[tuple[str, str, int]]:
    """Each limit of the training that is set: its name, what counts towards it in a fit, its value."""
    pairs = (("max_steps", "total_steps"), ("max_tokens", "total_tokens"))
    values = ((limit, total, getattr(config.train, limit)) for limit, total in pairs)
    return [(limit, total, value) for limit, total, value in values if value is not None]


def stage_settings(
    stage: str, method: str, config: Settings, fits: Mapping[str, Fit], given: Mapping[str, Fit]
) -> Settings:
    """The settings with the budget of a stage and of all that it uses.

    What the given fits left of the whole budget is shared equally by the trainings; the last has the rest.
    """
    if not find_method(stage).data:
        return config
    last = [name for name in stages(method, given) if find_method(name).data][-1:] == [stage]
    for limit, total, budget in _limits(config):
        below = _totals(stage, given, total)
        spent, parts = _totals(method, given, total), trainings(method, given)
        if budget - spent < parts:
            raise ValueError(
                f"{limit} must exceed the {spent} that the adapters took which the row uses, by a batch "
                f"for each of {parts} trainings; got {budget}; raise it"
            )
        part = below + (budget - spent) // parts * trainings(stage, given)
        if last:
            beside = [name for name in find_method(method).uses if name in fits and stage != method]
            part = budget - sum(getattr(fits[name], total) for name in beside)
        config = replace(config, train=replace(config.train, **{limit: part}))
    return config


def _totals(name: str, given: Mapping[str, Fit], total: str) -> int:
    """What the given fits took that a method stands on."""
    return sum(
        getattr(given[used], total) if used in given else _totals(used, given, total)
        for used in find_method(name).uses
    )


def rest(config: Settings, used: Sequence[Fit]) -> Settings:
    """The settings with what the fits that a training uses left of its budget."""
    for limit, total, budget in _limits(config):
        spent = sum(getattr(one, total) for one in used)
        if spent >= budget:  # tokens come in whole batches
            raise ValueError(
                f"{limit} must exceed the {spent} that the trainings took which come before; got {budget}; "
                "raise it"
            )
        left = budget - spent
        config = replace(config, train=replace(config.train, **{limit: left}))
    return config
