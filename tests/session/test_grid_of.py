"""A protocol on the command line and in Python: its options, and what drops its name."""

from __future__ import annotations

import re
from typing import Any

import pytest

from leakbench import registry
from leakbench.errors import UnknownName, UsageError
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


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seeds": 2}, "--null-networks 6: null networks are compared with from --seeds 3 on, not with 2"),
        ({"seeds": 3, "controls": False}, "--null-networks 6 and --no-controls: null networks are controls"),
        ({"seeds": 3, "attack": "none"}, "--null-networks 6: no attack of this run is run on any: leave it out"),
        ({"seeds": 3, "attack": "loss_threshold"}, "--null-networks 6: no attack of this run is run on any"),
    ],
)
def test_null_networks_are_refused_where_no_attack_would_be_run_on_them(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        grid_of({**GIVEN, **given, "null_networks": 6})
    assert grid_of({**GIVEN, **given, "null_networks": 0})[0].null_networks == 0
