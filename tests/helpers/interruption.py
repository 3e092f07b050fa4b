"""Runs that are interrupted in the middle, and go on from what lies in their folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from leakbench.contracts import Checkpoint, Progress
from leakbench.runtime.checkpoints import CheckpointFolder

Checkpoints = Callable[[str], Checkpoint]
Run = Callable[[Progress, "Checkpoints | None"], Any]
"""(progress, checkpoints) -> an outcome that == compares"""

_AFTER = (
    "encrypting weights",
    "fine-tuning",
    "memorising few images",
    "teaching the student",
    "training",
    "training on shuffled labels",
    "training with spikes",
)
"""loops that show a step when it is done"""
# what is shown outside of loops that are resumed: it is computed again
_REPEATED = ("recording activations", "calibrating layers", "measuring the neurons")


class Interrupted(Exception):
    """In the place of a power cut."""


class Steps:
    """Progress that is written down, and ends everything at call ``last``."""

    def __init__(self, last: int | None = None) -> None:
        self.seen: list[tuple[str, int]] = []
        self._last = last

    def __call__(self, what: str, done: int, total: int) -> None:
        if what in _REPEATED or (done == total and what not in _AFTER):
            return
        if len(self.seen) == self._last:
            raise Interrupted
        self.seen.append((what, done))


def goes_on(run: Run, folder: Path, part: float) -> None:
    """``run``, interrupted after so large a part of its steps, ends as if it had not been, and repeats no step."""
    whole = Steps()
    outcome = run(whole, None)
    stop = int(part * len(whole.seen))
    assert 0 < stop < len(whole.seen)
    try:
        run(Steps(stop), CheckpointFolder(folder, {}, every=0).checkpoint)
    except Interrupted:
        pass
    else:
        raise AssertionError("it was not interrupted")
    rest = Steps()
    assert run(rest, CheckpointFolder(folder, {}, every=0).checkpoint) == outcome
    assert rest.seen == whole.seen[stop:]
