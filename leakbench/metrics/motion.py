"""How far a defence moved the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from leakbench.contracts import Params
from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.metric import Metric


@dataclass(frozen=True)
class LayerMotion:
    """One weight layer of the victim against the same layer of the ANN."""

    layer: str
    cosine: float
    relative_norm: float
    """||W_victim - W_ann||_F / ||W_ann||_F"""


def weight_motion(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[LayerMotion]:
    """Each layer's cosine (in [-1, 1]) and relative motion (>= 0), in the order of ``before``, in float64.

    ``before`` are the ANN's weights, ``after`` the victim's, by layer name: the same names and shapes, else
    UsageError. Where a layer is all zero the ratios have no value; they are set to stay finite: zero before
    and after is (cosine 1, motion 0), nothing moved; zero on one side alone is (cosine 0, motion 1), all of
    it moved.
    """
    return [_motion(name, *pair) for name, pair in _pairs(before, after).items()]


def overall_cosine(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """Cosine of all weights concatenated, in [-1, 1], each of the victim's layers brought to the length that it had:
    one that is scaled computes the same where thresholds are. Errors and zeros as in :func:`weight_motion`.

    It is the mean of the layers' cosines, weighted by the squares of their lengths before.
    """
    pairs = _pairs(before, after)
    lengths = {name: float(a.norm()) for name, (a, _) in pairs.items()}
    if not (longest := max(lengths.values())):
        return float(not any(bool(b.any()) for _, b in pairs.values()))
    shares = {name: (length / longest) ** 2 for name, length in lengths.items()}
    cosines = {name: _motion(name, *pair).cosine for name, pair in pairs.items()}
    return sum(share * cosines[name] for name, share in shares.items()) / sum(shares.values())


def _motion(name: str, before: Tensor, after: Tensor) -> LayerMotion:
    length, new_length = float(before.norm()), float(after.norm())
    if length == 0 or new_length == 0:
        unmoved = length == new_length
        return LayerMotion(name, cosine=float(unmoved), relative_norm=float(not unmoved))
    # unit vectors first: a product of two norms can overflow or vanish where the norms themselves don't
    cosine = float((before / length) @ (after / new_length))
    return LayerMotion(name, max(-1.0, min(1.0, cosine)), float((after - before).norm()) / length)


def _pairs(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    if before.keys() != after.keys():
        odd = ", ".join(sorted(before.keys() ^ after.keys()))
        raise UsageError(f"weight motion needs the same layers before and after; only on one side: {odd}")
    if not before:
        raise UsageError("weight motion needs at least one layer")
    for name, weight in before.items():
        if weight.shape != after[name].shape:
            raise UsageError(
                f"layer {name!r} has shape {tuple(weight.shape)} before and {tuple(after[name].shape)} after"
            )
    pairs = {name: (_flat(weight), _flat(after[name])) for name, weight in before.items()}
    for name, (a, b) in pairs.items():
        if not (math.isfinite(float(a.norm())) and math.isfinite(float(b.norm()))):
            raise NumericalError(f"layer {name!r} holds NaN or infinity")
    return pairs


def _flat(weight: Tensor) -> Tensor:
    return weight.detach().to("cpu", torch.float64).flatten()


class WeightCosine(Metric[Params]):
    """Cosine between the deployed weights and the ANN's, with batch norms folded and each layer scaled to the same
    length. 1 means that they did not turn at all.
    """

    name = "weight_cosine"
    title = "Weight cosine"
    unit = "cosine"
