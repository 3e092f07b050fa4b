"""What the report says of a metric, and how it writes a measured value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from leakbench.metrics.energy import ENERGY_RATIOS as ENERGY_RATIOS
from leakbench.metrics.energy import FP32, INT32, EnergyConstants
from leakbench.metrics.energy import PAPER_RATIO as PAPER_RATIO
from leakbench.records import Index, Status, Value

Kind = Literal["share", "cosine", "distance", "count", "ratio", "seconds", "p", "number"]
STATUSES: dict[Status, str] = {
    "ok": "ok",
    "failed": "failed",
    "not-applicable": "not applicable",
    "no-signal": "no signal",
}
"""a cell's status -> words"""
INDEX = "index_"
"""before a metric's name: its leakage index"""
INDEX_MEANING = "0: no more than noise images or the same attack on an untrained network; 1: as much as real images"


@dataclass(frozen=True)
class Metric:
    """A metric's name in the records, its heading, how its values are written, and what it means."""

    name: str
    title: str
    kind: Kind
    meaning: str
    leak: Literal["up", "down", ""] = ""
    """which way more leaks; empty for what measures no leakage"""


def _priced(constants: EnergyConstants) -> str:
    return f"{constants.name.upper()} at 45 nm: {constants.mac_pj} pJ a MAC, {constants.ac_pj} pJ an accumulate"


_MATCHED = "lower means that more leaks; depends on the number of images, so read it beside the anchors"
_KERNEL = "unbiased in the number of images, so it may be negative; lower means that more leaks"
_KNOWN = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Accuracy", "share", "share of test images that the network classifies correctly"),
        Metric("accuracy_drop", "Accuracy lost", "share", "accuracy of the ANN less that of the network"),
        Metric("ann_accuracy", "ANN accuracy", "share", "the same for the ANN that the defence started from"),
        Metric(
            "reconverted_accuracy",
            "reconverted",
            "share",
            "the same for the ReLU network reconverted from the deployed weights",
        ),
        Metric("timesteps", "T", "count", "time-steps of one inference"),
        Metric(
            "training_images_read",
            "Training images read",
            "count",
            "different private training images that the defence asked for, counted by the framework; holds for honest "
            "plugins, which run in the same process as the data",
        ),
        Metric(
            "energy_ratio_int32",
            "E(ANN) / E(SNN), INT32",
            "ratio",
            "energy of one inference, ANN over this network; accumulates counted where spikes arrive, those of the "
            f"input included; {_priced(INT32)}",
        ),
        Metric(
            "energy_ratio_fp32",
            "E(ANN) / E(SNN), FP32",
            "ratio",
            f"the same counts; {_priced(FP32)}",
        ),
        Metric(
            "energy_ratio_paper",
            "E(ANN) / E(SNN), the paper's count",
            "ratio",
            "as the PrivateSNN paper counts it: spikes per neuron of each layer before pooling, those of the input "
            "left out; INT32 constants; the one ratio to compare with its Table 5, and no measure of what the network "
            "takes: spikes that reach pooled inputs and the input's own cost accumulates too",
        ),
        Metric(
            "energy_ratio_memory",
            "E(ANN) / E(SNN), with memory",
            "ratio",
            "with every read and write of weights, inputs and potentials priced by the SRAM that holds them, INT32 "
            "(Lemaire et al. 2022); no data are reused on either side",
        ),
        Metric(
            "energy_ratio_quantized",
            "E(quantised ANN) / E(SNN)",
            "ratio",
            "against an ANN whose activations have ceil(log2(T + 1)) bits, as many levels as T steps can represent; "
            "arithmetic alone, INT32; below 1 that ANN would have been cheaper",
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
            "accuracy of the evaluation models (judges), an ensemble of independent classifiers that no attack sees: "
            "share of images classified as the target class, averaged over small shifts and blurs; higher means that "
            "more leaks",
            "up",
        ),
        Metric(
            "judge_top5",
            "Judge accuracy, top 5",
            "share",
            "share of images whose target class is among the five most probable predictions of the evaluation models",
            "up",
        ),
        Metric(
            "kes",
            "Knowledge extraction (KES)",
            "share",
            "accuracy on real test images of a small fresh classifier that was trained on the attack's images alone; "
            "chance is one over the number of classes; hard to fool",
            "up",
        ),
        Metric(
            "daa",
            "Distinguishability (DAA)",
            "share",
            "share of classes whose own image the evaluation models rate highest among one image of every class",
            "up",
        ),
        Metric(
            "knn_distance",
            "Distance to the nearest real image",
            "distance",
            "squared distance, in an evaluation model's features, to the nearest real image of the target class; lower "
            "means that more leaks",
            "down",
        ),
        Metric(
            "fid",
            "FID",
            "distance",
            f"Fréchet inception distance to the private test images; {_MATCHED}",
            "down",
        ),
        Metric(
            "kid",
            "KID",
            "distance",
            f"kernel inception distance to the private test images: {_KERNEL}",
            "down",
        ),
        Metric(
            "precision",
            "Precision",
            "share",
            "share of the attack's images that lie among real ones: within the distance from some real image to its "
            "fifth neighbour",
            "up",
        ),
        Metric(
            "density",
            "Density",
            "number",
            "in how many neighbourhoods of real images the attack's images lie, over five; near 1 for real images, "
            "and may exceed it",
            "up",
        ),
        Metric(
            "coverage",
            "Coverage",
            "share",
            "share of real images with one of the attack's within the distance to their fifth neighbour",
            "up",
        ),
        Metric(
            "recall",
            "Recall",
            "share",
            "share of real images within the distance from some image of the attack to its fifth neighbour; wide "
            "scatter inflates it",
            "up",
        ),
        Metric(
            "uap_fooling",
            "Fooled by a perturbation from these images",
            "share",
            "share of real test images whose predicted class changes under one perturbation that was built from the "
            "attack's images",
            "up",
        ),
        Metric(
            "uap_fooling_real",
            "Fooled by a perturbation from real images",
            "share",
            "upper bracket of the perturbation's harm, at the same size",
        ),
        Metric(
            "uap_fooling_noise",
            "Fooled by a perturbation from noise images",
            "share",
            "needs no leak: only what exceeds it may come from one",
        ),
        Metric(
            "uap_fooling_random",
            "Fooled by random signs",
            "share",
            "lower bracket of the perturbation's harm, at the same size",
        ),
        Metric(
            "p_value",
            "p",
            "p",
            "how often randomly permuted target classes are recognised as often as the true ones (permutation test)",
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
            "share of images that the attacked network itself classifies as the target class: "
            "low means that the optimisation failed, which is no protection",
        ),
        Metric("gradient_steps", "Gradient steps", "count", "optimiser steps that the attack took"),
        Metric("queries", "Queries", "count", "images that the victim answered"),
    )
}


def finding(name: str) -> Metric:
    """What an attack measured on its way: a whole number is written as such, any other with three digits."""
    return Metric(name, name, "count", "")


def describe(name: str) -> Metric:
    """The metric of that name; a name unknown here is shown as it is, its values with four digits."""
    if name in _KNOWN:
        return _KNOWN[name]
    if name.startswith(INDEX):
        metric = describe(name.removeprefix(INDEX))
        return Metric(name, f"Leakage index, {metric.title}", "share", f"{INDEX_MEANING}, by {metric.title}", "up")
    if name.startswith("fd_"):
        network = name.removeprefix("fd_")
        meaning = f"Fréchet distance to the private test images in the features of {network}; {_MATCHED}"
        return Metric(name, f"Fréchet distance ({network})", "distance", meaning, "down")
    if name.startswith("kd_"):
        network = name.removeprefix("kd_")
        meaning = f"kernel distance to the private test images in the features of {network}: {_KERNEL}"
        return Metric(name, f"Kernel distance ({network})", "distance", meaning, "down")
    return Metric(name, name.replace("_", " "), "number", "")


def is_distance(name: str) -> bool:
    """Whether a lower value of the metric means that more leaks."""
    return describe(name).leak == "down"


def depends_on_n(name: str) -> bool:
    """Whether values of the metric are comparable only at the same number of images."""
    return name == "fid" or name.startswith("fd_")


def in_features(name: str) -> bool:
    """Whether the metric compares sets of images by statistics of a network's features."""
    return name in ("fid", "kid") or name.startswith(("fd_", "kd_"))


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
    metric = describe(value.metric)
    return " ".join(part for part in (number(metric, value), bounds(metric, value)) if part)


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


def plain(name: str, x: float) -> str:
    """A number that belongs to the metric of that name, written as its values are."""
    return number(describe(name), Value(metric=name, value=x))


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
    if metric.kind == "p":
        return ["<.001" if x < 0.001 else _bare(x, 3) for x in numbers]
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
