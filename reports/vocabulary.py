"""What a record says of its metrics, and how a measured value is written."""

from __future__ import annotations

import math
from collections.abc import Iterable

from leakbench.leakage.seed_group import Declarations
from leakbench.metrics.metric import INDEX, Declaration, Unit
from leakbench.records import Index, Status, Value

STATUSES: dict[Status, str] = {
    "ok": "ok",
    "failed": "failed",
    "not-applicable": "not applicable",
    "no-signal": "no signal",
}
"""a cell's status -> words"""
INDEX_MEANING = "0: no more than noise images or the same attack on an untrained network; 1: as much as real images"


class Vocabulary:
    """The metrics of a record by name, as they declared themselves."""

    def __init__(self, metrics: Iterable[Declaration]) -> None:
        self.declared: Declarations = {metric.name: metric for metric in metrics}

    def describe(self, name: str) -> Declaration:
        """The metric of that name, or the leakage index by it (``index_<name>``).

        A name that nothing declares is shown as it is, its values with four digits.
        """
        if name in self.declared:
            return self.declared[name]
        metric = name.removeprefix(INDEX)
        title = self.declared[metric].title if metric in self.declared else metric.replace("_", " ")
        if metric == name:
            return Declaration(name, title, "")
        return Declaration(name, f"Leakage index, {title}", f"{INDEX_MEANING}, by {title}.", "share", "more")

    def unit(self, name: str) -> Unit:
        """How values of the metric are written."""
        return self.describe(name).unit


def explained(metric: Declaration) -> str:
    """What a value means, and in which direction more leaks."""
    meaning = metric.meaning or "Not described: a metric's docstring says what it means."
    direction = {"more": "Higher means that more leaks.", "less": "Lower means that more leaks.", "": ""}[metric.leaks]
    return meaning if direction in meaning else f"{meaning} {direction}"


def compares_sets(metric: Declaration) -> bool:
    """Whether it is a distance between sets of images, by statistics of a network's features."""
    return metric.unit == "distance" and metric.per == "set"


def value_of(index: Index | None) -> Value | None:
    """The index as a measured value named after its metric; None where it has none."""
    if index is None or index.value is None or math.isnan(index.value):
        return None
    return Value(metric=f"{INDEX}{index.metric}", value=index.value, low=index.low, high=index.high, n=index.n)


def index_text(index: Index | None) -> str:
    """The index with its interval, as in ".83 [.71, .93]"; "–" where it has no value."""
    value = value_of(index)
    if value is None:
        return "–"
    return " ".join(part for part in (number("share", value), bounds("share", value)) if part)


def interval(value: Value) -> tuple[float, float] | None:
    """The value's interval where one is defined and finite."""
    if value.low is None or value.high is None or not (math.isfinite(value.low) and math.isfinite(value.high)):
        return None
    return value.low, value.high


def number(unit: Unit, value: Value) -> str:
    """The value alone, as in ".71"."""
    return _written(unit, value)[0]


def bounds(unit: Unit, value: Value) -> str:
    """The interval alone, as in "[.61, .79]"; empty where none is defined."""
    _, *ends = _written(unit, value)
    return f"[{', '.join(ends)}]" if ends else ""


def in_full(unit: Unit, value: Value) -> str:
    """Value, interval and number of observations, as in ".71 [.61, .79] n=100"."""
    counted = f"n={value.n:,}" if shows_n(value) else ""
    return " ".join(part for part in (number(unit, value), bounds(unit, value), counted) if part)


def plain(unit: Unit, x: float) -> str:
    """A number without an interval, written as values of that unit are."""
    return number(unit, Value(metric="", value=x))


def extremes(unit: Unit, values: Iterable[Value]) -> str:
    """The lowest and the highest, as in "0 to 0.1178"; one number where they read the same."""
    each = [value.value for value in values]
    return " to ".join(dict.fromkeys(plain(unit, end) for end in (min(each), max(each))))


def shows_n(value: Value) -> bool:
    """Whether n says anything: a single observation without an interval (a count, a time) needs none."""
    return value.n != 1 or interval(value) is not None


def mean_text(unit: Unit, values: list[Value]) -> str:
    """The mean of several seeds' values, written as one of them would be."""
    mean = math.fsum(value.value for value in values) / len(values)
    return number(unit, Value(metric="", value=mean, n=max(value.n for value in values)))


def _p(x: float) -> str:
    """Three decimals, or as many as keep it below .05 or .01 where it is."""
    crossed = (d for d in range(3, 7) if not any(x < level <= round(x, d) for level in (0.01, 0.05)))
    return bare(x, next(crossed, 7))


def _written(unit: Unit, value: Value) -> list[str]:
    # One number of decimals for the value and both ends, so that they can be compared by eye.
    numbers = [value.value, *(interval(value) or ())]
    if unit == "share":
        return [bare(x, 2 if value.n < 1000 else 3) for x in numbers]
    if unit == "p":
        return ["<.001" if x < 0.001 else _p(x) for x in numbers]
    if unit == "cosine":
        return [bare(x, 4) for x in numbers]
    if unit == "count" and all(math.isfinite(x) and x == int(x) for x in numbers):
        return [f"{int(x):,}" for x in numbers]
    if unit == "seconds":
        size = abs(value.value)
        return [f"{x:,.{2 if size < 10 else 1 if size < 100 else 0}f}" for x in numbers]
    digits = 4 if unit == "number" else 3
    sign = "×" if unit == "ratio" else ""
    decimals = _decimals(max((abs(x) for x in numbers if math.isfinite(x)), default=0.0), digits)
    return [f"{x:,.{decimals}f}{sign}" if decimals is not None else f"{x:.{digits - 1}e}{sign}" for x in numbers]


def bare(x: float, decimals: int) -> str:
    """With so many decimals and no zero before the point."""
    text = f"{x:.{decimals}f}"
    if float(text) == 0:
        text = text.removeprefix("-")  # "-0.00" is no number that anybody measured
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _decimals(size: float, digits: int) -> int | None:
    """Decimals that show ``digits`` significant digits of a number of that size; None: too small or big."""
    if size == 0:
        return 0
    magnitude = math.floor(math.log10(size))
    if not -4 <= magnitude <= 9:
        return None
    return max(0, digits - 1 - magnitude)
