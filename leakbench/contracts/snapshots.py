"""What an attack has to show at each budget: images on the way, kept at a fixed ladder of costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from leakbench.contracts.checkpoint import State
from leakbench.contracts.cost import Cost
from leakbench.errors import PluginError

LADDER = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)
"""budgets at which images are kept: gradient steps and queries an image, together"""
_ROUNDING = 1e-9
"""relative: queries an image are fractions, whose sum may miss a whole number"""


class Snapshot(NamedTuple):
    """What an attack had for all of its targets by the time that it had spent a budget."""

    budget: int
    """of :data:`LADDER`"""
    images: Tensor
    """uint8 [N, C, H, W]; black where there was nothing yet"""


class Snapshots:
    """The last images that were offered for each target within each budget.

    The cost of a target counts every gradient step and each of its queries once: a step that serves all targets counts
    for each of them, queries are shared equally by the targets in hand. No random number is drawn, and an attack sees
    nothing of it.
    """

    def __init__(self, cost: Cost, count: int = 0, shape: tuple[int, ...] = ()) -> None:
        """For ``count`` targets of images [C, H, W]; without any nothing is kept. ``cost`` is read as it grows."""
        self._cost, self._shape = cost, shape
        self._in_hand = torch.arange(count)
        self._spent = torch.zeros(count, dtype=torch.float64)
        self._seen = cost.gradient_steps, cost.queries
        # tensors in it are replaced and never written to, so that a copy of the dictionary keeps what was
        self._kept: dict[int, Tensor] = {}

    @property
    def spent(self) -> float:
        """Gradient steps and queries so far on the target that had the most."""
        self._charge()
        return float(self._spent.max()) if len(self._spent) else 0.0

    @property
    def kept(self) -> list[Snapshot]:
        """By rising budget, those below what was spent: the outcome itself is the next."""
        return [Snapshot(LADDER[rung], self._kept[rung]) for rung in sorted(self._kept) if LADDER[rung] < self.spent]

    def offer(self, images: Tensor) -> None:
        """See :meth:`AttackContext.snapshot`."""
        if not len(self._spent):
            return
        expected = (len(self._in_hand), *self._shape)
        if tuple(images.shape) != expected:
            raise PluginError(f"snapshots are of all targets in hand, images {expected}: got {tuple(images.shape)}")
        self._charge()
        shown = (images.detach().nan_to_num().clamp(0, 1) * 255).round().to("cpu", torch.uint8)
        spent = self._spent[self._in_hand]
        rungs = torch.searchsorted(torch.tensor(LADDER, dtype=torch.float64), spent * (1 - _ROUNDING))
        for rung in rungs.unique().tolist():
            if rung < len(LADDER):
                self._keep(rung, self._in_hand[rungs == rung], shown[rungs == rung])

    def _keep(self, rung: int, targets: Tensor, images: Tensor) -> None:
        if rung not in self._kept:
            below = max((one for one in self._kept if one < rung), default=None)
            nothing = torch.zeros(len(self._spent), *self._shape, dtype=torch.uint8)
            self._kept[rung] = nothing if below is None else self._kept[below]
        # who has these within a budget has them within every larger one, until better ones come
        for one in [one for one in self._kept if one >= rung]:
            self._kept[one] = self._kept[one].index_copy(0, targets, images)

    @contextmanager
    def part(self, index: Tensor) -> Iterator[None]:
        """See :meth:`AttackContext.part`."""
        self._charge()
        whole = self._in_hand
        if len(self._spent):
            self._in_hand = whole[index.cpu()]
        try:
            yield
        finally:
            self._charge()
            self._in_hand = whole

    def changes(self) -> SnapshotChanges:
        """What is kept from now on, for a loop that may be interrupted: what was kept before, an earlier one has."""
        return SnapshotChanges(self)

    def _charge(self) -> None:
        """Counts what was spent since the last time for the targets in hand."""
        steps, queries = self._cost.gradient_steps - self._seen[0], self._cost.queries - self._seen[1]
        if len(self._in_hand) and (steps or queries):
            each = torch.full((len(self._in_hand),), steps + queries / len(self._in_hand), dtype=torch.float64)
            self._spent = self._spent.index_add(0, self._in_hand, each)
        self._seen = self._cost.gradient_steps, self._cost.queries


class SnapshotChanges:
    """The snapshots since it was made, as the part of a loop."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots, self._before = snapshots, dict(snapshots._kept)

    def state(self) -> State:
        snapshots = self._snapshots
        if not len(snapshots._spent):
            return {}
        kept = {str(rung): one for rung, one in snapshots._kept.items() if one is not self._before.get(rung)}
        return {"spent": snapshots._spent, "seen": torch.tensor(snapshots._seen), **kept}

    def restore(self, state: State) -> None:
        snapshots, tensors = self._snapshots, dict(state)
        if not len(snapshots._spent):
            return
        spent, (steps, queries) = tensors.pop("spent"), tensors.pop("seen").tolist()
        if spent.shape != snapshots._spent.shape:
            raise KeyError("other targets")
        snapshots._spent, snapshots._seen = spent.clone(), (steps, queries)
        snapshots._kept = self._before | {int(rung): images for rung, images in tensors.items()}
