"""Sweeps as curves, as in the paper's Figure 5: rows of a run that differ in T alone, or in one numeric parameter."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from leakbench.leakage.controls import ANN, UNPROTECTED
from leakbench.leakage.membership.verdict import CHANCE, HEADLINE, TAIL, TAIL_RATE
from leakbench.metrics.audit import DELTA, AuditedEpsilon
from leakbench.metrics.membership import found_by_chance
from leakbench.metrics.metric import INDEX, Declaration
from leakbench.records import Value
from leakbench.reports.grid import GridCell, GridRow, Line, Table, cell_of, mean_cell
from leakbench.reports.summary import Group
from leakbench.reports.vocabulary import number, value_of

TIMESTEPS = "T"
CLAIMED_EPSILON = "epsilon, claimed"
"""what a defence says of itself"""
_SAME = 0.01
"""relative difference within which the noise that was found for an epsilon has that epsilon"""
EPSILON = "epsilon"
"""parameter of a guarantee: an audit's lower bound belongs beside it"""
LOG_SPREAD = 20
"""numbers further apart than this, largest over smallest, stand on a logarithmic axis; T and epsilon always do"""
_STARTS_FROM = {"privatesnn": "datafree"}
"""what a defence is before its training: the dotted line of the paper's Figure 5b"""
_OWN_TIMESTEPS = "timesteps"
"""the parameter by which a defence has a T of its own, which its cell's T says already"""


@dataclass(frozen=True)
class Point:
    """One experiment on a curve: the mean over its seeds; of bounds the highest, from the lowest to it."""

    x: float
    value: Value
    defense: str
    """its label"""


@dataclass(frozen=True)
class Series:
    """One line: its points from left to right, two at least."""

    label: str
    plugin: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Level:
    """What does not depend on what is across, and how the table has it."""

    label: str
    value: Value
    cell: GridCell


@dataclass(frozen=True)
class Curve:
    """One figure, and the table of the same numbers."""

    id: str
    title: str
    across: str
    """"T" or the name of the parameter"""
    log: bool
    metric: Declaration
    up: str
    """what the vertical axis says"""
    series: tuple[Series, ...]
    levels: tuple[Level, ...]
    """the ANN first"""
    table: Table
    worst: bool = False
    """whether each point is of the attack that finds most there: intervals don't allow for that choice"""

    @property
    def index(self) -> bool:
        """Whether an index from 0 to 1 is up."""
        return self.metric.name.startswith(INDEX)

    @property
    def claimed(self) -> bool:
        """Whether a claim is across whose lower bound is up: it belongs below the diagonal."""
        return self.across == EPSILON and self.metric.name == AuditedEpsilon.name


@dataclass(frozen=True)
class _Setting:
    """A defence of the grid by what it was made with."""

    label: str
    plugin: str
    timesteps: int | None
    params: Mapping[str, object]

    def number(self, name: str) -> float | None:
        """The parameter, where it is a finite number."""
        value = self.params.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        return value

    def others(self, name: str = "") -> str:
        """All parameters but this one as text: the same where two settings share them."""
        return json.dumps({key: value for key, value in self.params.items() if key != name}, sort_keys=True)


@dataclass(frozen=True)
class _Line:
    """Settings that differ in what is across alone: its value -> setting, from left to right."""

    label: str
    plugin: str
    along: Mapping[float, _Setting]


@dataclass(frozen=True)
class _Reading:
    """Of a defence's label the value, and the same as a table has it."""

    value: Callable[[str], Value | None]
    cell: Callable[[str], GridCell]

    def points(self, line: _Line) -> tuple[Point, ...]:
        values = ((x, self.value(setting.label), setting.label) for x, setting in line.along.items())
        return tuple(Point(x, value, label) for x, value, label in values if value)


@dataclass(frozen=True)
class _Quantity:
    """What is drawn up."""

    title: str
    up: str
    metric: Declaration
    readings: Mapping[str, _Reading]
    """attack -> what is read of it; "" where it is one for a defence"""
    levels: tuple[Level, ...] = ()
    worst: bool = False
    """as in a curve"""


def curves(group: Group, members: Group | None = None) -> list[Curve]:
    """Every sweep of the run: over T, all defences in one figure, then over parameters; accuracy, then leakage.

    A sweep has two values at least at which the defence's accuracy is known. Its leakage is drawn where two of them
    have a worst case. ``members``: the same part of the grid as attacks on members see it, drawn after the classes.
    """
    settings = list(_settings(group))
    ids = (f"curve-{group.number}-{number}" for number in count(1))
    lines = _over_timesteps(settings)
    figures = []
    if lines:
        figures += _figures(ids, TIMESTEPS, "over T", lines, _quantities(group, members, TIMESTEPS, lines, _ann(group)))
    for name, first, lines in _over_parameters(settings):
        suffix = f", T = {first.timesteps}" if first.timesteps else ""
        quantities = _quantities(group, members, name, lines, _ann(group) + _untrained(group, settings, first))
        figures += _figures(ids, name, f"of {first.plugin} over {name}{suffix}", lines, quantities)
    return figures


def _settings(group: Group) -> Iterator[_Setting]:
    """The defences whose accuracy is known, those that were attacked first: of two that are made alike one is drawn.

    Of the controls only the conversion is among them, which is one like others.
    """
    attacked = group.attacked
    for label in sorted(group.defenses, key=lambda name: name not in attacked):
        plugin = group.plugin(label)
        if _accuracy(group, label) and (label not in group.controls or plugin == UNPROTECTED):
            first = next(cell for cell in group.experiments[label, ""].cells if cell.status == "ok")
            params = {key: value for key, value in first.defense_params.items() if key != _OWN_TIMESTEPS}
            yield _Setting(label, plugin, first.timesteps, params)


def _accuracy(group: Group, label: str) -> Value | None:
    return _finite(experiment.overall("accuracy")) if (experiment := group.experiments.get((label, ""))) else None


def _finite(value: Value | None) -> Value | None:
    return value if value and math.isfinite(value.value) else None


def _over_timesteps(settings: Iterable[_Setting]) -> list[_Line]:
    lines: dict[tuple[str, str], dict[float, _Setting]] = {}
    for setting in settings:
        if setting.timesteps is not None:
            lines.setdefault((setting.plugin, setting.others()), {}).setdefault(setting.timesteps, setting)
    return _lines(lines.values(), lambda plugin, text: f"{plugin}[{text}]" if text else plugin)


def _over_parameters(settings: Iterable[_Setting]) -> Iterator[tuple[str, _Setting, list[_Line]]]:
    """(parameter, one of the settings, lines) of every plugin and T.

    The parameter with the most values lies across and the others tell the lines apart. Another one has a figure of
    its own only where it shows settings that none before it does.
    """
    alike: dict[tuple[str, int | None], list[_Setting]] = {}
    for setting in settings:
        alike.setdefault((setting.plugin, setting.timesteps), []).append(setting)
    for members in alike.values():
        left = {setting.label for setting in members}
        for name in _numeric(members):
            lines = _along(name, members)
            shown = {setting.label for line in lines for setting in line.along.values()}
            if shown & left:
                yield name, members[0], lines
                left -= shown


def _numeric(members: Sequence[_Setting]) -> list[str]:
    """Parameters that have two numbers at least, the one with the most first."""
    names = dict.fromkeys(name for setting in members for name in setting.params)
    numbers = {name: {setting.number(name) for setting in members} - {None} for name in names}
    return sorted((name for name in names if len(numbers[name]) > 1), key=lambda name: -len(numbers[name]))


def _along(name: str, members: Iterable[_Setting]) -> list[_Line]:
    lines: dict[str, dict[float, _Setting]] = {}
    for setting in members:
        x = setting.number(name)
        if x is not None:
            lines.setdefault(setting.others(name), {}).setdefault(x, setting)
    return _lines(lines.values(), lambda plugin, text: text or plugin, name)


def _lines(
    alongs: Iterable[Mapping[float, _Setting]], label: Callable[[str, str], str], across: str = ""
) -> list[_Line]:
    """Those with two settings at least; ``label`` makes a name of the plugin and of what tells its lines apart."""
    kept = [dict(sorted(along.items())) for along in alongs if len(along) > 1]
    firsts = [next(iter(along.values())) for along in kept]
    lines = []
    for first, along in zip(firsts, kept, strict=True):
        alike = [other for other in firsts if other.plugin == first.plugin]
        lines.append(_Line(label(first.plugin, _told_apart(alike, across)[alike.index(first)]), first.plugin, along))
    return lines


def _told_apart(settings: Sequence[_Setting], across: str) -> list[str]:
    """As few parameters of each as tell them apart, as in "od=True,beta=10"; nothing where there is one alone."""
    names = dict.fromkeys(name for setting in settings for name in setting.params if name != across)
    texts = [""] * len(settings)
    for name in names:
        longer = [
            f"{text}{',' if text else ''}{name}={setting.params[name]}" if name in setting.params else text
            for text, setting in zip(texts, settings, strict=True)
        ]
        if len(set(longer)) > len(set(texts)):
            texts = longer
    return texts


def _ann(group: Group) -> list[Level]:
    """The ANN's own row; where there is none, what a defence says of the ANN that it started from."""
    ann = group.named(ANN)
    tried = [(ann, "accuracy")] if ann else []
    tried += [(label, "ann_accuracy") for label in group.defenses]
    levels = (_level(group, "ANN", label, metric) for label, metric in tried)
    return [level for level in levels if level][:1]


def _untrained(group: Group, settings: Iterable[_Setting], trained: _Setting) -> list[Level]:
    """The network that the training of this one starts from, at the same T."""
    name = _STARTS_FROM.get(trained.plugin)
    labels = [one.label for one in settings if one.plugin == name and one.timesteps == trained.timesteps]
    return [level for label in labels[:1] if (level := _level(group, label, label, "accuracy"))]


def _level(group: Group, name: str, label: str, metric: str) -> Level | None:
    experiment = group.experiments.get((label, ""))
    value = _finite(experiment.overall(metric)) if experiment else None
    return Level(name, value, mean_cell(experiment, metric)) if value else None


def _quantities(
    group: Group, members: Group | None, across: str, lines: Sequence[_Line], levels: Sequence[Level]
) -> Iterator[_Quantity]:
    """Accuracy with what lies level there, the worst-case leakage, and what attacks on members find; over a claimed
    epsilon the audited one, too."""
    describe = group.vocabulary.describe
    accuracy = _Reading(
        lambda label: _accuracy(group, label), lambda label: mean_cell(group.experiments[label, ""], "accuracy")
    )
    yield _Quantity("Accuracy", "accuracy on test images", describe("accuracy"), {"": accuracy}, tuple(levels))
    leakage = _Reading(lambda label: value_of(group.worst(label)), lambda label: cell_of(group.worst(label)))
    up, metric = "leakage index, worst attack", describe(f"{INDEX}{group.headline}")
    yield _Quantity("Worst-case leakage", up, metric, {"": leakage}, worst=len(group.attacks) > 1)
    if members is None:
        return
    found_by: dict[str, float | None] = {HEADLINE: CHANCE, TAIL: _guessed(members)}
    audited = {AuditedEpsilon.name: None} if across == EPSILON and _claimed(group, lines) else {}
    for name, chance in (found_by | audited).items():
        found = describe(name)
        # of one line each attack is drawn, of several the worst case
        several = len(members.attacks) > 1
        attacks = members.attacks if len(lines) == 1 and several else ("",)
        worst = several and attacks == ("",)
        title = f"{found.title}, worst attack" if worst else found.title
        readings = {attack: _found(members, attack, name) for attack in attacks}
        below = [] if chance is None else [_chance(found, chance)]
        yield _Quantity(title, title, found, readings, (*below, *_of_ann(members, attacks, name)), worst)


def _claimed(group: Group, lines: Sequence[_Line]) -> bool:
    """Whether every setting's parameter is the epsilon that its defence claims, at the audit's delta or a smaller one:
    one may be named so and mean something else, or stand aside for another."""

    def claims(x: float, setting: _Setting) -> bool:
        cells = group.experiments[setting.label, ""].cells
        found = [{one.name: one.value for one in cell.findings} for cell in cells if cell.status == "ok"]
        return all(
            math.isclose(one.get(CLAIMED_EPSILON, math.nan), x, rel_tol=_SAME) and one.get("delta", 1.0) <= DELTA
            for one in found
        )

    return all(claims(x, setting) for line in lines for x, setting in line.along.items())


def _found(members: Group, attack: str, metric: str) -> _Reading:
    """What an attack on members measured where it is valid; without a name the defence's worst case."""

    def named(label: str) -> str | None:
        chosen = attack or members.worst_case(label)[0]
        row = members.rows.get((label, chosen))
        return chosen if row and row.validity == "valid" else None

    def value(label: str) -> Value | None:
        chosen = named(label)
        return _finite(members.experiments[label, chosen].overall(metric)) if chosen else None

    def cell(label: str) -> GridCell:
        chosen = named(label)
        return mean_cell(members.experiments[label, chosen] if chosen else None, metric)

    return _Reading(value, cell)


def _guessed(members: Group) -> float:
    """The share of members that is found at 1 % FPR where scores say nothing; where attacks are asked about different
    numbers of others, the highest."""
    others = set()
    for experiment in members.experiments.values():
        for cell in experiment.cells:
            counted = {value.metric: value.n for value in cell.values}
            if {HEADLINE, TAIL} <= counted.keys():  # of all candidates, and of the members alone
                others.add(counted[HEADLINE] - counted[TAIL])
    return max((found_by_chance(one, TAIL_RATE) for one in others if one > 0), default=TAIL_RATE)


def _chance(metric: Declaration, x: float) -> Level:
    value = Value(metric=metric.name, value=x)
    return Level("chance", value, GridCell((Line("", number(metric.unit, value), "", ""),), None, repr(x)))


def _of_ann(members: Group, attacks: Sequence[str], metric: str) -> list[Level]:
    """The unprotected ANN's worst case, beside worst cases."""
    ann = members.named(ANN)
    if ann is None or len(attacks) > 1:
        return []
    found = _found(members, attacks[0], metric)
    value = found.value(ann)
    return [Level("ANN", value, found.cell(ann))] if value else []


def _figures(
    ids: Iterator[str], across: str, title: str, lines: Sequence[_Line], quantities: Iterable[_Quantity]
) -> list[Curve]:
    """One of each quantity of which a line has two points."""
    figures = []
    for quantity in quantities:
        drawn = [
            (attack or line.label, line, reading)
            for attack, reading in quantity.readings.items()
            for line in lines
            if len(reading.points(line)) > 1
        ]
        if drawn:
            ends = sorted(x for _, line, _ in drawn for x in line.along)
            figures.append(
                Curve(
                    next(ids),
                    f"{quantity.title} {title}",
                    across,
                    ends[0] > 0 and (across in (TIMESTEPS, EPSILON) or ends[-1] / ends[0] > LOG_SPREAD),
                    quantity.metric,
                    quantity.up,
                    tuple(Series(name, line.plugin, reading.points(line)) for name, line, reading in drawn),
                    quantity.levels,
                    _table(drawn, quantity.levels, across),
                    quantity.worst,
                )
            )
    return figures


def _table(drawn: Sequence[tuple[str, _Line, _Reading]], levels: Iterable[Level], across: str) -> Table:
    """A row a value of what is across, a column a line; below, what lies level."""

    def cell(line: _Line, reading: _Reading, x: float) -> GridCell:
        return reading.cell(line.along[x].label) if x in line.along else GridCell((), None, "", missing="–")

    values = sorted({x for _, line, _ in drawn for x in line.along})
    rows = tuple(GridRow(tick(x), False, tuple(cell(line, reading, x) for _, line, reading in drawn)) for x in values)
    below = tuple(GridRow(level.label, False, (level.cell,)) for level in levels)
    return Table(None, tuple(name for name, _, _ in drawn), rows, below, None, across)


def tick(x: float) -> str:
    """A number of what is across, as in "5000" and "0.95"."""
    return f"{int(x)}" if x == int(x) and abs(x) < 1e9 else f"{x:g}"
