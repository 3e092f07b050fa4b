"""What the report says of a metric, and how it writes a measured value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from leakbench.bench.records import Value
from leakbench.metrics.energy import FP32, INT32, EnergyConstants

Kind = Literal["share", "cosine", "distance", "count", "ratio", "seconds", "number"]


@dataclass(frozen=True)
class Metric:
    """A metric's name in the records, its heading, how its values are written, and what it means."""

    name: str
    title: str
    kind: Kind
    meaning: str


def _priced(constants: EnergyConstants) -> str:
    return f"{constants.name.upper()} at 45 nm: {constants.mac_pj} pJ a MAC, {constants.ac_pj} pJ an accumulate"


_KNOWN = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Accuracy", "share", "share of test images that the network names correctly"),
        Metric("ann_accuracy", "ANN accuracy", "share", "the same for the ANN that the defence started from"),
        Metric("timesteps", "T", "count", "time-steps of one inference"),
        Metric(
            "training_images_read",
            "Training images read",
            "count",
            "different private training images that the defence asked for, counted by the framework",
        ),
        Metric(
            "energy_ratio_int32",
            "E(ANN) / E(SNN), INT32",
            "ratio",
            f"energy of one inference, ANN over this network; {_priced(INT32)}",
        ),
        Metric(
            "energy_ratio_fp32",
            "E(ANN) / E(SNN), FP32",
            "ratio",
            f"the same counts; {_priced(FP32)}",
        ),
        Metric(
            "weight_cosine",
            "Weight cosine",
            "cosine",
            "cosine between the deployed weights and the ANN's: 1 means that they did not turn at all",
        ),
        Metric("seconds", "Seconds", "seconds", "wall time on the machine named under provenance"),
        Metric(
            "judge_accuracy",
            "Judge accuracy",
            "share",
            "share of images in which an independent classifier, unseen by any attack, recognises the target "
            "class; higher means that more leaks",
        ),
        Metric(
            "fid",
            "FID",
            "distance",
            "Fréchet inception distance to the private test images; lower means that more leaks; "
            "depends on the number of images, so read it beside the anchors",
        ),
        Metric(
            "victim_confidence",
            "Victim's confidence",
            "share",
            "mean probability that the attacked network itself gives to the target class",
        ),
        Metric(
            "victim_accuracy",
            "Victim's own accuracy",
            "share",
            "share of images that the attacked network itself names as the target class: "
            "low means that the optimisation failed, which is no protection",
        ),
        Metric("gradient_steps", "Gradient steps", "count", "optimiser steps that the attack took"),
        Metric("queries", "Queries", "count", "images that the victim answered"),
    )
}


def describe(name: str) -> Metric:
    """The metric of that name; a name unknown here is shown as it is, its values with four digits."""
    if name in _KNOWN:
        return _KNOWN[name]
    if name.startswith("fd_"):
        network = name.removeprefix("fd_")
        meaning = (
            f"Fréchet distance to the private test images in the features of {network}; lower means that "
            "more leaks; depends on the number of images, so read it beside the anchors"
        )
        return Metric(name, f"Fréchet distance ({network})", "distance", meaning)
    return Metric(name, name.replace("_", " "), "number", "")


def is_distance(name: str) -> bool:
    """Whether a lower value of the metric means that more leaks."""
    return describe(name).kind == "distance"


def interval(value: Value) -> tuple[float, float] | None:
    """The value's interval where one is defined and finite."""
    if value.low is None or value.high is None or not (math.isfinite(value.low) and math.isfinite(value.high)):
        return None
    return value.low, value.high


def number(metric: Metric, value: Value) -> str:
    """The value alone, as in ".71"."""
    return _written(metric, value)[0]


def bounds(metric: Metric, value: Value) -> str:
    """The interval alone, as in "[.61, .79]"; empty where none is defined."""
    _, *ends = _written(metric, value)
    return f"[{', '.join(ends)}]" if ends else ""


def in_full(metric: Metric, value: Value) -> str:
    """Value, interval and number of observations, as in ".71 [.61, .79] n=100"."""
    counted = f"n={value.n:,}" if shows_n(value) else ""
    return " ".join(part for part in (number(metric, value), bounds(metric, value), counted) if part)


def shows_n(value: Value) -> bool:
    """Whether n says anything: a single observation without an interval (a count, a time) needs none."""
    return value.n != 1 or interval(value) is not None


def mean_text(name: str, values: list[Value]) -> str:
    """The mean of several seeds' values, written as one of them would be."""
    mean = math.fsum(value.value for value in values) / len(values)
    return number(describe(name), Value(metric=name, value=mean, n=max(value.n for value in values)))


def _written(metric: Metric, value: Value) -> list[str]:
    # One number of decimals for the value and both ends, so that they can be compared by eye.
    numbers = [value.value, *(interval(value) or ())]
    if metric.kind == "share":
        return [_bare(x, 2 if value.n < 1000 else 3) for x in numbers]
    if metric.kind == "cosine":
        return [_bare(x, 4) for x in numbers]
    if metric.kind == "count" and all(math.isfinite(x) and x == int(x) for x in numbers):
        return [f"{int(x):,}" for x in numbers]
    if metric.kind == "seconds":
        size = abs(value.value)
        return [f"{x:,.{2 if size < 10 else 1 if size < 100 else 0}f}" for x in numbers]
    digits = 4 if metric.kind == "number" else 3
    unit = "×" if metric.kind == "ratio" else ""
    decimals = _decimals(max((abs(x) for x in numbers if math.isfinite(x)), default=0.0), digits)
    return [f"{x:,.{decimals}f}{unit}" if decimals is not None else f"{x:.{digits - 1}e}{unit}" for x in numbers]


def _bare(x: float, decimals: int) -> str:
    text = f"{x:.{decimals}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _decimals(size: float, digits: int) -> int | None:
    """Decimals that show ``digits`` significant digits of a number of that size; None: too small or big."""
    if size == 0:
        return 0
    magnitude = math.floor(math.log10(size))
    if not -4 <= magnitude <= 9:
        return None
    return max(0, digits - 1 - magnitude)
