"""The studies by name: what each compares, and which tables it ends in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from medlocker_dicom.evaluation import tables
from medlocker_dicom.evaluation.study import Condition
from medlocker_dicom.lesions.positions import Mode
from medlocker_dicom.search import ALPHA_LIST
from medlocker_dicom.watermark.style import read_look

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from medlocker_dicom.evaluation.results import Row
    from medlocker_dicom.evaluation.tables import Table
    from medlocker_dicom.pipeline.policy import Policy

Sources = tuple[str, ...]

#: Strategies that look at distinct candidates alone, as many as the paper's.
_OF_THE_PAPER: Final = ("paper", "random-mutation", "random-placement")
_PAPER_BUDGET: Final = 650
#: A lead that no candidate has: the whole budget is spent.
_NEVER: Final = 1.0
_ABLATED: Final[Mapping[str, tuple[Any, ...]]] = {
    "population": (10, 30, 50, 70),
    "proposals": (1, 3, 5),
    "crossover_rate": (0.5, 0.7, 0.9),
    "step": (5, 10, 20),
}
_SIZES: Final = (3.0, 4.0, 6.0)
_LOOKS: Final = ("solid", "outline,dark-red,3", "dotted,dark-red,3", "dotted,white,3")


@dataclass(frozen=True)
class Plan:
    """A study.

    Attributes
    ----------
    conditions
        Of the models that may be searched against, and a policy whose mode, size and seed all
        share.
    tables
        Of the rows, the conditions and the names of all models.
    attacks
        Whether what is locked is attacked.
    """

    conditions: Callable[[Sources, Policy], list[Condition]]
    tables: Callable[[Sequence[Row], Sequence[Condition], Sequence[str]], list[Table]]
    attacks: bool = False


def policy_of(strategy: str, base: Policy) -> Policy:
    """Give a strategy its usual budget; the paper's stop at the first flip."""
    if strategy in _OF_THE_PAPER:
        return replace(base, strategy=strategy, budget=_PAPER_BUDGET, margin=0.0)
    return replace(base, strategy=strategy)


def _by_source(sources: Sources, base: Policy) -> list[Condition]:
    """Each model alone and all together, by the paper's strategy and by ours."""
    groups = [(name,) for name in sources] + ([sources] if len(sources) > 1 else [])
    return [
        Condition(f"{strategy} against {' + '.join(map(tables.short, group))}", group, policy)
        for strategy in ("paper", ALPHA_LIST)
        for policy in [policy_of(strategy, base)]
        for group in groups
    ]


def _by_mode(sources: Sources, base: Policy) -> list[Condition]:
    return [
        Condition(f"{strategy} {mode}", sources, replace(policy_of(strategy, base), mode=mode))
        for mode in (Mode.ANYWHERE, Mode.INSIDE, Mode.AVOID)
        for strategy in ("paper", "random-mutation", ALPHA_LIST)
    ]


def _by_parameter(sources: Sources, base: Policy) -> list[Condition]:
    paper = policy_of("paper", base)
    # Beyond its nominal budget a larger population would be cut off, and show nothing.
    free = replace(paper, budget=10 * _PAPER_BUDGET)
    changed = [
        (f"{name}={value:g}", replace(free, parameters=replace(paper.parameters, **{name: value})))
        for name, values in _ABLATED.items()
        for value in values
    ]
    changed += [(f"sl={sl:g}", replace(paper, sl=sl, smallest_sl=2 * sl)) for sl in _SIZES]
    changed += [(f"look={look}", replace(paper, look=read_look(look))) for look in _LOOKS]
    return [Condition(name, sources, policy) for name, policy in changed]


def _against_chance(sources: Sources, base: Policy) -> list[Condition]:
    """Ours, the paper's, and any place, as good as chance finds it within our budget."""
    chance = replace(base, strategy="random-placement", margin=_NEVER)
    policies = {"default": base, "paper": policy_of("paper", base), "random-placement": chance}
    return [Condition(name, sources, policy) for name, policy in policies.items()]


def _attacked(sources: Sources, base: Policy) -> list[Condition]:
    """Add the paper's search that does not stop at its first flip: a wider margin lasts longer."""
    whole = replace(policy_of("paper", base), margin=_NEVER)
    return [*_against_chance(sources, base), Condition("paper-whole-budget", sources, whole)]


def _seen(sources: Sources, base: Policy) -> list[Condition]:
    """Add ours, with lesions as the search would know them without true ones."""
    conditions = _against_chance(sources, base)
    if base.mode is not Mode.ANYWHERE:
        name = "default, lesions as segmented"
        conditions.append(Condition(name, sources, base, segmented=True))
    return conditions


STUDIES: Mapping[str, Plan] = MappingProxyType(
    {
        "asr": Plan(
            _by_source,
            lambda rows, conditions, _: [tables.asr(rows, conditions)],
        ),
        "transfer": Plan(
            _by_source,
            tables.transfer,
        ),
        "wsm": Plan(
            _by_mode,
            lambda rows, conditions, _: [tables.wsm(rows, conditions)],
        ),
        "ablation": Plan(
            _by_parameter,
            lambda rows, conditions, _: [tables.ablation(rows, conditions)],
        ),
        "redteam": Plan(
            _attacked,
            tables.redteam,
            attacks=True,
        ),
        "visibility": Plan(
            _seen,
            lambda rows, conditions, _: [tables.visibility(rows, conditions)],
        ),
    }
)
"""Every study by its name."""
