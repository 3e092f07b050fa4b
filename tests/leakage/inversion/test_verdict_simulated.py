"""How often verdicts over whole records are wrong, and how often they find what is there.

Votes are those of simulated_votes.py; everything else of a record is as it is where all controls work: see
grids_by_hand.py. A rule that always says "inconclusive" fails here, as does one that never does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from grids_by_hand import FAILS, QUOTED, agreement_of, anchors, attacked, concluded, controls, rows, study
from numpy.typing import NDArray
from scipy.stats import binom
from simulated_votes import Study

from leakbench.metrics import class_votes
from leakbench.records import CellRecord, Verdict, Votes

TIERS = [
    pytest.param(20, id="short", marks=pytest.mark.slow),
    pytest.param(1000, id="full", marks=[pytest.mark.slow, pytest.mark.long]),
]
NOTHING, TWO = Study(), Study(leaking=2)


def votes_of(accepted: NDArray[np.bool_]) -> Votes:
    """Of one cell [C, C]."""
    pairs = [(int(meant), int(seen)) for meant, seen in np.argwhere(accepted)]
    return Votes(classes=list(range(len(accepted))), accepted=pairs, forced=pairs)


def record(own: class_votes.Votes, nulls: class_votes.Votes) -> Iterator[CellRecord]:
    """The cells of a defence and of networks that know nothing, and controls on which the recommended attacks work."""
    names = [*QUOTED, *(f"attack {number}" for number in range(len(QUOTED), own.attacks))]
    at_controls = [one for name in QUOTED for one in controls(name)]
    yield from study(*anchors(), *rows("mine"), *at_controls, seeds=own.networks)
    for network, seen in enumerate(own.accepted):
        for name, cell in zip(names, seen, strict=True):
            share = [0.9 if hit else 0.05 for hit in np.diagonal(cell)]
            yield attacked("mine", name, share, FAILS, seed=network, votes=votes_of(cell), agreement=agreement_of(name))
    for network, seen in enumerate(nulls.accepted):
        for name, cell in zip(names, seen, strict=True):
            yield attacked(f"random {network}", name, 0.0, control=True, of=name, votes=votes_of(cell))


@dataclass(frozen=True)
class Rates:
    """Shares of simulated records."""

    leaks: float
    resists: float
    all_named: float
    false_names: float
    """in which a class that does not leak is named"""


@cache
def simulated(study: Study, records: int) -> Rates:
    rng = np.random.default_rng(8)
    found: list[tuple[bool, ...]] = []
    for _ in range(records):
        (verdict,) = concluded(list(record(*study.votes(rng)))).verdicts
        found.append(_outcome(verdict, set(range(study.leaking))))
    return Rates(*np.mean(found, axis=0).tolist())


def _outcome(verdict: Verdict, leaking: set[int]) -> tuple[bool, ...]:
    named = set(verdict.named)
    return verdict.outcome == "leaks", verdict.outcome == "resists", leaking <= named, bool(named - leaking)


def at_most(rate: float, records: int) -> float:
    """What the share of records of a rate no higher than this exceeds in one of 1000 simulations."""
    return float(binom.ppf(0.999, records, rate)) / records


def at_least(rate: float, records: int) -> float:
    return float(binom.ppf(0.001, records, rate)) / records


@pytest.mark.parametrize("records", TIERS)
def test_four_networks_that_leak_nothing_resist_and_seldom_leak(records: int) -> None:
    rates = simulated(NOTHING, records)
    assert rates.leaks <= at_most(0.013, records)
    assert rates.false_names <= at_most(0.013, records)
    assert rates.resists >= at_least(0.8, records)


@pytest.mark.long
@pytest.mark.parametrize("records", TIERS)
def test_two_of_ten_classes_are_found_and_named_and_never_resist(records: int) -> None:
    rates = simulated(TWO, records)
    assert rates.leaks >= at_least(0.8, records)
    assert rates.all_named >= at_least(0.8, records)
    assert rates.false_names <= at_most(0.013, records)
    assert rates.resists == 0


@pytest.mark.long
@pytest.mark.parametrize("records", TIERS)
def test_two_classes_drawn_from_four_in_five_networks_never_resist(records: int) -> None:
    rates = simulated(Study(leaking=2, drawn=0.8), records)
    # each is excluded in 2.7 % where one vote in four networks is all that it has; both, hardly ever
    assert rates.resists <= at_most(0.0272**2, records)
    assert rates.leaks >= at_least(0.8, records)
