"""A protocol on the command line and in Python: its options, and what drops its name."""

from __future__ import annotations

import pytest

from leakbench import registry
from leakbench.errors import UnknownName
from leakbench.session.run import grid_of

GIVEN = {"defense": ("privatesnn",)}


def test_a_protocol_sets_what_is_not_given() -> None:
    grid, departures = grid_of(GIVEN, "leakbench-v2-fashion")
    assert (grid.dataset, grid.seeds, grid.preset) == (("fashion-mnist",), 4, "standard")
    assert grid.attack == registry.together("attack", "auto")
    assert departures == []


def test_what_is_given_wins_and_drops_the_name() -> None:
    grid, departures = grid_of({**GIVEN, "seeds": 2}, "leakbench-v2-digits")
    assert grid.seeds == 2
    assert departures == ["the numbers will not bear the name of leakbench-v2-digits: --seeds 2, not 4"]


def test_without_a_protocol_nothing_is_set() -> None:
    grid, departures = grid_of(GIVEN)
    assert (grid.seeds, departures) == (1, [])


def test_an_unknown_protocol_is_one_line() -> None:
    with pytest.raises(UnknownName, match="unknown protocol 'x'"):
        grid_of(GIVEN, "x")
