"""Conditions under which a run or a comparison fails (``--fail-if``), as in ``classes.weights.high > 0.2``.

    CONDITION = VALUE OPERATOR NUMBER          OPERATOR = > | >= | < | <=
    VALUE = KIND.ACCESS.END                    what attacks of that access or less got out, the worst case
          | leakage                            the highest upper limit over all kinds and accesses that were attacked
          | METRIC | METRIC.END                of the defence itself: accuracy_drop, energy_ratio_int32, ...
    KIND = classes | members    ACCESS = labels | scores | weights    END = low | value | high, of the 95 % interval

Nothing is evaluated but this. A value that is missing fails, and so does leakage of classes that is inconclusive for
another reason than that more networks would tell more: a gate that can't be checked does not hold. No verdict on
members says that a defence resists, so there the interval of valid attacks is asked for, of the higher of their
indices, on average and of single images; what invalid attacks show, or networks that do not count, must not exceed it.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from leakbench import registry
from leakbench.bench.comparison.records import ComparedAttack, ComparedDefense
from leakbench.cells import AttackCell, Cell
from leakbench.contracts import Access
from leakbench.contracts.attack import BaseAttack
from leakbench.errors import UnknownName, UsageError
from leakbench.leakage import compared_kind, leakage_kind, leakage_kinds
from leakbench.metrics.accuracy import Accuracy, AccuracyDrop, AnnAccuracy, ReconvertedAccuracy
from leakbench.metrics.costs import Seconds, Timesteps, TrainingImagesRead
from leakbench.metrics.energy import ENERGY_RATIOS
from leakbench.metrics.motion import WeightCosine
from leakbench.records import Index, Value
from leakbench.runtime.plugins import load_plugin

KINDS = {kind.title: kind.name for kind in leakage_kinds()}
"""what leaks, as a condition names it -> the kind of leak"""
ENDS = ("low", "value", "high")
LEAKAGE = "leakage"
METRICS = (
    *(metric.name for metric in (AccuracyDrop, Accuracy, AnnAccuracy, ReconvertedAccuracy)),
    *ENERGY_RATIOS,
    *(metric.name for metric in (TrainingImagesRead, Timesteps, Seconds, WeightCosine)),
)
_SHARES = tuple(metric.name for metric in (AccuracyDrop, Accuracy, AnnAccuracy, ReconvertedAccuracy, WeightCosine))
_ASKED = ("G1", "G2", "G7", "M1", "M2", "M3", "M5")
"""gates by controls, without which an attack that shows nothing says nothing"""
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_SHAPE = re.compile(
    r"\s*(?P<value>[A-Za-z][A-Za-z0-9_.]*)\s*(?P<sign>[<>]=?)\s*(?P<number>[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)\s*",
    re.ASCII,
)


@dataclass(frozen=True)
class Condition:
    """One condition, parsed."""

    text: str
    value: tuple[str, ...]
    """the parts between its dots"""
    sign: str
    number: float

    def holds(self, x: float) -> bool:
        """Whether it is so for a value, and the defence fails."""
        return _OPERATORS[self.sign](x, self.number)


@dataclass(frozen=True)
class Failure:
    """A condition that holds for a defence, or can't be checked."""

    condition: str
    defense: str
    """empty where there is no defence to check"""
    why: str

    @property
    def line(self) -> str:
        """In one line."""
        where = f"{self.defense}: " if self.defense else ""
        return f"--fail-if {self.condition!r}: {where}{self.why}"


def parse(text: str) -> Condition:
    """A condition; UsageError, one line that says what would be right, for anything else."""
    match = _SHAPE.fullmatch(text)
    if not match:
        raise UsageError(
            f"--fail-if {text!r}: give VALUE > NUMBER (or >=, <, <=), as in 'classes.weights.high > 0.2', "
            "'leakage > 0.2' or 'accuracy_drop > 0.02'"
        )
    parts = tuple(match["value"].split("."))
    name, ends = parts[0], parts[1:]
    if name in KINDS:
        accesses = [access.name.lower() for access in Access]
        if len(parts) != 3 or parts[1] not in accesses or parts[2] not in ENDS:
            known = f"ACCESS one of {', '.join(accesses)}, END one of {', '.join(ENDS)}"
            raise UsageError(f"--fail-if {text!r}: give {name}.ACCESS.END, {known}")
    elif name == LEAKAGE:
        if ends:
            raise UsageError(f"--fail-if {text!r}: {LEAKAGE} is the highest upper limit: leave out .{'.'.join(ends)}")
    elif name not in METRICS:
        raise UnknownName(f"value in --fail-if {text!r}:", name, (LEAKAGE, *KINDS, *METRICS))
    elif len(ends) > 1 or (ends and ends[0] not in ENDS):
        raise UsageError(f"--fail-if {text!r}: give {name} or {name}.END, END one of {', '.join(ENDS)}")
    number = float(match["number"])
    if not math.isfinite(number):
        raise UsageError(f"--fail-if {text!r}: the number is too large")
    if abs(number) > 1 and (name == LEAKAGE or name in (*KINDS, *_SHARES)):
        raise UsageError(f"--fail-if {text!r}: {name} is a share, 1 at most: 2 % are .02")
    return Condition(text.strip(), parts, match["sign"], number)


def check_planned(conditions: Sequence[Condition], cells: Sequence[Cell]) -> None:
    """UsageError for a condition on what no attack of a run can tell: it would fail when all is computed."""
    planned: dict[str, set[Access]] = {}
    targets = {(cell.leakage, cell.attack.target) for cell in cells if conditions and type(cell) is AttackCell}
    for leakage, target in sorted(targets):
        plugin: type[BaseAttack[Any]] = load_plugin("attack", target)
        planned.setdefault(leakage, set()).add(plugin.needs)
    for condition in conditions:
        name, *rest = condition.value
        if name == LEAKAGE and not planned:
            missing = "no attack"
        elif name in KINDS and Access[rest[0].upper()] not in planned.get(KINDS[name], ()):
            missing = f"no attack on {name} with {rest[0].upper()}"
        else:
            continue
        raise UsageError(f"--fail-if {condition.text!r}: {missing} is in this run: add one with --attack")


def failures(conditions: Sequence[Condition], defenses: Sequence[ComparedDefense]) -> list[Failure]:
    """The conditions that hold for a defence or can't be checked on it, in their order."""
    failed_conditions = []
    for condition in conditions:
        if not defenses:
            failed_conditions.append(Failure(condition.text, "", "there is no defence to check"))
        for defense in defenses:
            why = _why(condition, defense)
            if why:
                failed_conditions.append(Failure(condition.text, defense.label, why))
    return failed_conditions


def _why(condition: Condition, defense: ComparedDefense) -> str:
    """Why the defence fails; empty where it does not."""
    name, *rest = condition.value
    if defense.failed:
        return f"can't be checked: it failed at seed {', '.join(map(str, defense.failed))}"
    if name in METRICS:
        return _checked(condition, _number(defense.value(name), rest[0] if rest else "value"), "")
    every = name == LEAKAGE
    access, end = (Access.WEIGHTS, "high") if every else (Access[rest[0].upper()], rest[1])
    ends: list[tuple[float, str]] = []
    for leakage in (list(defense.leakage) or [compared_kind().name]) if every else [KINDS[name]]:
        valid, problem = _valid(defense, leakage, access, end)
        if problem:
            return f"can't be checked: {problem}"
        if every and not valid:
            return f"can't be checked: no attack on {leakage_kind(leakage).title} is valid"
        if not every and not any(_access(attack) == access for attack in valid):
            return f"can't be checked: no valid attack with {access.name} was run"
        ends += _of_worst_case(defense, leakage, access, end) or [(_end_of(one, end), one.attack) for one in valid]
    x, attack = max(ends)
    return _checked(condition, x, f" by {attack}") or _invalid(condition, defense, access, end)


def _invalid(condition: Condition, defense: ComparedDefense, access: Access, end: str) -> str:
    """Why invalid attacks after members leave a condition open that valid ones keep, empty where they do not: what is
    at fault, they or the defence, is not known where they show more."""
    for leakage, known in defense.leakage.items():
        if leakage_kind(leakage).comparable or (condition.value[0] != LEAKAGE and KINDS[condition.value[0]] != leakage):
            continue
        for one in known.attacks:
            shown = _end_of(one, end)
            has = f"no {end}" if math.isnan(shown) else f"{end} {shown:.4g}" if condition.holds(shown) else ""
            if has and one.validity == "invalid" and _access(one) <= access:
                return f"can't be checked: {one.attack} is invalid ({one.reason}), and its index has {has}"
    return ""


def _of_worst_case(defense: ComparedDefense, leakage: str, access: Access, end: str) -> list[tuple[float, str]]:
    """The end of the verdict's worst case over the attacks with that access or less, which allows for its having been
    picked, and its attack; nothing where a kind of leak has no such worst case."""
    of_access = (one for one in defense.threats if one.access == access.name and leakage == compared_kind().name)
    return [(x, one.attack) for one in of_access if not math.isnan(x := _number(one.index, end))]


def _valid(defense: ComparedDefense, leakage: str, access: Access, end: str) -> tuple[list[ComparedAttack], str]:
    """The valid attacks of a kind with that access or less; why these can't be relied on, empty where they can."""
    known = defense.leakage.get(leakage)
    if known is None:
        return [], f"no attack on {leakage_kind(leakage).title} was run on it"
    if leakage_kind(leakage).comparable and (known.outcome is None or defense.unranked):
        return [], defense.unranked or known.reason
    if not known.comparable:
        return [], known.reason
    tried = [attack for attack in known.attacks if _access(attack) <= access]
    for status, word in (("failed", "failed"), ("no-signal", "got no signal")):
        if names := [attack.attack for attack in tried if attack.status == status]:
            return [], f"{', '.join(names)} {word}"
    # these got less than they might: gates.py
    if masked := [attack.attack for attack in tried if attack.validity == "gradient masking suspected"]:
        return [], f"gradient masking is suspected with {', '.join(masked)}"
    valid = [attack for attack in tried if attack.validity == "valid"]
    # what leaks in spite of a gate that is open, leaks; what shows nothing may have shown nothing anywhere
    quiet = [attack for attack in valid if not attack.leaks or not leakage_kind(leakage).comparable]
    if leakage_kind(leakage).comparable:  # other attacks beside the recommended take nothing from what these say
        quoted = registry.together("attack", "auto")
        quiet = [attack for attack in quiet if attack.plugin in quoted] or quiet
    if gates := sorted({gate for one in quiet for gate in one.unchecked if gate in _ASKED}):
        return [], f"{', '.join(gates)} could not be checked by its controls"
    if unknown := [attack.attack for attack in valid if math.isnan(_end_of(attack, end))]:
        return [], f"{', '.join(unknown)} has no {end}"
    return valid, ""


def _access(attack: ComparedAttack) -> Access:
    """All, where the record doesn't say."""
    return Access.__members__.get(attack.access, Access.WEIGHTS)


def _end_of(attack: ComparedAttack, end: str) -> float:
    """The highest over the indices that count; NaN where one of them has none."""
    ends = [_number(index, end) for index in attack.limited]
    return math.nan if not ends or any(map(math.isnan, ends)) else max(ends)


def _number(value: Value | Index | None, end: str) -> float:
    """NaN where there is none."""
    x = None if value is None else getattr(value, end)
    return math.nan if x is None else float(x)


def _checked(condition: Condition, x: float, suffix: str) -> str:
    if math.isnan(x):
        return f"can't be checked: {'.'.join(condition.value)} has no value"
    return f"{'.'.join(condition.value)} is {x:.4g}{suffix}" if condition.holds(x) else ""
