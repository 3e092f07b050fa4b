"""Fooling rates: a measurement that is interrupted ends with the numbers of one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import OURS, Warm, artifacts, copied, forget

from leakbench.bench.grid import make_config
from leakbench.bench.pipeline import Pipeline
from leakbench.bench.suites import cells_of
from leakbench.cells import AttackCell
from leakbench.runtime import checkpoints
from leakbench.runtime.process import fixed_threads
from leakbench.runtime.workspace import Settings

ASKED = "asking the protected network"


class Interrupted(BaseException):
    """What ends a stage without its fault, as Ctrl-C does."""


def measured(warm: Warm, cache: Path, stop: int | None) -> int:
    """How often the network is asked for its answers, until it is the ``stop``-th time."""
    cells = cells_of(make_config(warm.tiny.options()))
    cell = next(
        c for c in cells if type(c) is AttackCell and (c.defense.name, c.attack.name) == (OURS, "direct")
    )  # fmt: skip
    asked = 0

    def progress(what: str, _done: int, _total: int) -> None:
        nonlocal asked
        if what == ASKED:
            asked += 1
            if asked == stop:
                raise Interrupted

    with fixed_threads(1):
        Pipeline(Settings(str(cache)), progress).perform("compute", cell)
    return asked


def files(cache: Path, key: str) -> dict[str, bytes]:
    return {name: (cache / "objects" / key[:2] / key / name).read_bytes() for name in ("record.json", "manifest.json")}


@pytest.mark.slow
def test_answers_that_were_given_are_not_asked_for_again(
    warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unperturbed, with random signs, and with perturbations from noise, real and the attack's images."""
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    cache = copied(warm.cache, tmp_path / "cache")
    forget(cache, "uap-brackets")
    before = artifacts(cache)
    with pytest.raises(Interrupted):
        measured(warm, cache, stop=3)
    assert measured(warm, cache, stop=None) == 3
    new = artifacts(cache).keys() - before.keys()
    assert len(new) == 2
    for key in new:
        assert files(cache, key) == files(warm.cache, key)
