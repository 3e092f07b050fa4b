"""The time left of simulated runs: events with their times, and no clock."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import pytest

from leakbench.session.eta import TimeLeft, spoken


@dataclass(frozen=True)
class Simulated:
    alike: tuple[Hashable, ...]
    after: tuple[int, ...] = ()


def grid(*kinds: str) -> list[Simulated]:
    """Jobs that wait for nothing: "defense attack", or "attack" where no other defence tells anything."""
    return [Simulated((kind, kind.split()[-1]) if " " in kind else (kind,)) for kind in kinds]


def test_nothing_is_said_before_anything_is_known() -> None:
    run = TimeLeft(grid("a", "a", "b"))
    assert run.left(0) is None
    run.started(0, 0)
    assert run.left(100) is None
    run.ended(0, 100)
    assert run.left(100) is None  # b is like none
    run.started(2, 100)
    run.ended(2, 1)
    assert run.left(101) == 100


def test_cells_a_thousandfold_apart_are_not_mixed() -> None:
    run = TimeLeft(grid(*["cheap"] * 10, "dear", *["cheap"] * 10, "dear"))
    now = 0.0
    for number in range(11):
        run.started(number, now)
        now += 1000 if number == 10 else 1
        run.ended(number, 1000 if number == 10 else 1)
    assert run.left(now) == 10 + 1000


def test_the_closest_kin_counts() -> None:
    run = TimeLeft(grid("one x", "two x", "two x", "three x"))
    for number, seconds in ((0, 10.0), (1, 30.0)):
        run.started(number, 0)
        run.ended(number, seconds)
    assert run.left(0) == 30 + 20  # the same again as it was; of a new one what x took on the others


def test_a_running_job_takes_what_is_left_of_it() -> None:
    run = TimeLeft(grid("a", "a"))
    run.started(0, 0)
    run.ended(0, 60)
    run.started(1, 60)
    assert [run.left(60 + elapsed) for elapsed in (0, 20, 60, 100)] == [60, 40, 0, 0]
    assert run.left(60 + 121) is None  # whatever it is at, it is not like the other


def test_what_came_out_of_the_store_is_no_measure_of_what_has_to_be_computed() -> None:
    run = TimeLeft(grid("a", "a", "a"))
    run.started(0, 0)
    run.ended(0, 0)
    assert run.left(0) is None
    run.started(1, 0)
    run.ended(1, 50)
    assert run.left(50) == 50


def test_workers_share_the_work_but_not_a_chain() -> None:
    alone = TimeLeft(grid("a", "a", "a", "a", "a"))
    pair = TimeLeft(grid("a", "a", "a", "a", "a", "a"))
    chain = TimeLeft([*grid("a", "a"), *(Simulated(("a",), (before,)) for before in (1, 2, 3))])
    for run, workers in ((alone, 1), (pair, 2), (chain, 2)):
        for number in range(workers):
            run.started(number, 0)
        for number in range(workers):
            run.ended(number, 10)
    assert alone.left(10) == 40
    assert pair.left(10) == 20
    assert chain.left(10) == 30


def test_what_was_told_of_a_job_that_is_like_none_counts_at_the_pace_of_those_that_are_over() -> None:
    run = TimeLeft(grid("a", "b", "c", "b", "d"), (10.0, 40.0, 0.0, 60.0, None))
    assert run.left(0) is None  # of d nothing is known
    run.ended(4, 7)
    assert run.left(0) == 10 + 40 + 60  # c is in the store
    run.started(0, 0)
    run.ended(0, 20)  # twice of what was told, and of d nothing was
    assert run.left(20) == 80 + 120
    run.started(1, 20)
    assert run.left(60) == 40 + 120
    run.ended(1, 50)
    assert run.left(70) == 50  # what the other b took is nearer than what was told


def test_a_short_job_tells_nothing_of_the_pace() -> None:
    run = TimeLeft(grid("a", "b", "c"), (0.01, 10.0, 20.0))
    run.ended(0, 8)  # it loaded what the others use
    assert run.left(8) == 30
    run.ended(1, 40)
    assert run.left(48) == 80


def test_a_job_that_was_half_done_before_does_not_make_the_rest_short() -> None:
    run = TimeLeft(grid("a", "b", "c", "d", "e"), (100.0,) * 5)
    run.ended(0, 10)
    assert run.left(10) == 400
    run.ended(1, 90)
    run.ended(2, 80)
    assert run.left(180) == 160  # three are enough, and the one that was half done doesn't count


def test_what_takes_seconds_may_take_longer_and_several_workers_share_from_the_start() -> None:
    run = TimeLeft(grid("a", "b", "c"), (0.0, 0.1, 100.0), workers=2)
    assert run.left(0) == 100  # the longest
    run.started(0, 0)
    run.started(1, 0)
    assert run.left(20) == 100 and run.left(31) is None


def test_a_job_that_never_began_may_end() -> None:
    """What stands on something broken."""
    run = TimeLeft(grid("a", "b"))
    run.ended(1, 0)
    run.started(0, 0)
    run.ended(0, 5)
    assert run.left(5) == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "10 s"),
        (14, "10 s"),
        (44, "40 s"),
        (94, "90 s"),
        (96, "2 min"),
        (3600, "60 min"),
        (9000, "2 h"),
        (1e6, "278 h"),
    ],
)
def test_an_estimate_is_as_precise_as_it_can_be(seconds: float, text: str) -> None:
    assert spoken(seconds) == text
