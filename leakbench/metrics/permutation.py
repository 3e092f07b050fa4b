"""Whether images tell which class they were made for: a permutation test over classes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from leakbench.contracts import Params
from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.estimate import exact
from leakbench.metrics.metric import Measurement
from leakbench.metrics.reconstructions import ReconstructionMetric, Reconstructions

PERMUTATIONS = 9999


def label_permutation_p(table: ArrayLike, classes: ArrayLike | None = None) -> float:
    """One-sided p of "the images carry no information on the class that they were made for", in (0, 1].

    ``table`` [R, C]: ``table[r, k]`` is the mean probability that the judge gives to class k on the images of the r-th
    of the R classes present; these are ``classes``, integers [R] (all C in order, if not given). The statistic is the
    judge's probability of the intended class, summed over classes. If the images carry nothing, whole rows could as
    well be dealt to other classes: exact however alike the images of one class are. Tests that take images as
    independent are far too sure: an untrained network's ten images of a class are nearly copies.

    All R! arrangements are tried if they are at most 9999, else 9999 at random, always the same ones, and p =
    (1 + count) / (1 + 9999) (Phipson & Smyth 2010); the order of classes may then move p within the random error,
    sqrt(p (1 - p) / 9999). 1 for a single class; 4 classes can't reach .01 (1/24) and 5 just can (1/120).

    Raises UsageError for a table that doesn't fit the classes, NumericalError for NaN or infinity.
    """
    own = _own_columns(table, classes)
    rows = np.arange(len(own))
    if len(rows) == 1:
        return 1.0

    def statistic(order: NDArray[np.intp], axis: int) -> NDArray[np.float64]:
        total: NDArray[np.float64] = own[rows, order].sum(axis)
        return total

    from scipy.stats import permutation_test  # takes half as long to load as torch

    outcome = permutation_test(
        [rows],
        statistic,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=1000,
        alternative="greater",
        axis=-1,
        random_state=np.random.default_rng(0),
    )
    return float(outcome.pvalue)


def _own_columns(table: ArrayLike, classes: ArrayLike | None) -> NDArray[np.float64]:
    """[R, R]: the columns of the classes present, in the order of the rows."""
    array = np.asarray(table, dtype=np.float64)
    if array.ndim != 2 or not all(array.shape):
        raise UsageError(f"a permutation test needs a table [classes present, classes], got shape {array.shape}")
    present = np.arange(array.shape[1]) if classes is None else np.asarray(classes)
    if present.shape != array.shape[:1] or not np.issubdtype(present.dtype, np.integer):
        raise UsageError(f"a table with {len(array)} rows needs as many integer classes, got shape {present.shape}")
    if present.min() < 0 or present.max() >= array.shape[1] or len(np.unique(present)) < len(present):
        raise UsageError(f"classes must be distinct and within 0..{array.shape[1] - 1}, got {present.tolist()}")
    if not np.isfinite(array).all():
        raise NumericalError("a permutation test needs a finite table, got NaN or infinity")
    return array[:, present]


class PValue(ReconstructionMetric[Params]):
    """How often classes assigned at random are recognised as often as the target classes (permutation test)."""

    name = "p_value"
    title = "p"
    unit, scale = "p", ""
    of_predictions = True

    def measure(self, drawn: Reconstructions) -> Measurement:
        present = drawn.targets.unique()
        table = torch.stack([drawn.predictions[drawn.targets == c].double().mean(0) for c in present.tolist()])
        return Measurement(exact(label_permutation_p(table.numpy(), present.numpy())))
