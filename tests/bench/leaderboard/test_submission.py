"""From a run to an entry: what it says, and why there is none."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from board_entries import DIGITS, ENSEMBLE, REQUIRED, following, key_of, plugin, quoted, result, tree
from compared_runs import own

from leakbench.bench.grid import make_config
from leakbench.bench.leaderboard.entries import DefenseEntry, read_entry
from leakbench.bench.leaderboard.submission import attack_entry, defense_entry
from leakbench.bench.protocols import PROTOCOLS
from leakbench.errors import UnknownName, UsageError
from leakbench.records import CellRecord, RunRecord


def test_an_entry_says_what_the_run_says() -> None:
    record = following(0.5)
    made = defense_entry(record, links={"code": "https://example.org"})
    (verdict,) = [one for one in record.verdicts if one.defense == "privatesnn"]
    row = next(one for one in record.rows if (one.defense, one.attack) == ("privatesnn", ENSEMBLE))
    assert made.index and verdict.index
    assert (made.index.value, made.index.low, made.index.high) == (
        verdict.index.value, verdict.index.low, verdict.index.high,
    )  # fmt: skip
    assert (made.verdict.outcome, made.verdict.p, made.verdict.networks) == (verdict.outcome, verdict.p, 4)
    assert made.accuracy.value == pytest.approx(194 / 200)
    assert made.accuracy_drop.value == pytest.approx(2 / 200)
    assert made.energy_ratio and made.energy_ratio.value == 21.5
    assert (made.defense.params, made.defense.given, made.defense.source) == ({"epochs": 5}, ["epochs"], "built-in")
    assert made.defense.cites == "Kim 2022"
    attack = made.attacks[0]
    assert [one.plugin.name for one in made.attacks] == list(REQUIRED)
    assert (attack.plugin.name, attack.access, attack.validity) == (ENSEMBLE, "WEIGHTS", row.validity)
    assert (attack.queries, attack.gradient_steps, attack.seconds) == (10.0, 40.0, 2.0)
    assert [one.access for one in made.access] == ["LABELS", "SCORES", "WEIGHTS"]
    assert made.access[-1].cost_to_half and made.access[-1].area
    assert made.artifacts.anns == [key_of(f"ann {seed}") for seed in range(4)]
    assert made.artifacts.victims == [key_of(f"privatesnn {seed}") for seed in range(4)]
    assert made.artifacts.images == {
        name: [key_of(f"privatesnn {name} {seed}") for seed in range(4)] for name in REQUIRED
    }
    assert (made.comparable, made.why, made.links) == (True, "", {"code": "https://example.org"})
    assert len(made.model_dump_json(indent=1)) < 8000
    assert read_entry(made.model_dump_json().encode()) == made


def test_an_entry_has_the_time_steps_of_the_networks() -> None:
    """A plugin may deploy another T than the run asks for."""
    record = following()
    assert defense_entry(record).timesteps == [16]

    def deployed(*steps: int | None) -> list[int]:
        cells = [
            c.model_copy(update={"timesteps": steps[c.seed % len(steps)]} if c.defense == "privatesnn" else {})
            for c in record.cells
        ]
        return defense_entry(record.model_copy(update={"cells": cells})).timesteps

    assert (deployed(32, 4), deployed(None)) == ([4, 32], [])


def test_no_folder_of_a_machine_is_in_it() -> None:
    record = following(defense="mine")
    mine = {"defense_source": key_of("mine"), "defense_ran": "not isolated: no libseccomp in /home/me/secret"}
    cells = [c.model_copy(update=mine if c.defense_name else {}) for c in record.cells]
    plugins = [p.model_copy(update={"origin": "/home/me/secret/mine.py:Mine"}) for p in record.plugins]
    made = defense_entry(record.model_copy(update={"cells": cells, "plugins": plugins}))
    assert (made.defense.origin, made.defense.source) == ("mine.py:Mine", key_of("mine"))
    assert made.defense.ran == "not isolated"
    assert "secret" not in made.model_dump_json()


def test_what_may_not_be_compared_says_why() -> None:
    record = following()
    verdicts = [v.model_copy(update={"comparable": False, "reason": "decoys are suspected"}) for v in record.verdicts]
    made = defense_entry(record.model_copy(update={"verdicts": verdicts}))
    assert (made.comparable, made.why) == (False, "decoys are suspected")


def failed(record: RunRecord, which: Callable[[CellRecord], bool]) -> RunRecord:
    cells = [c.model_copy(update={"status": "failed"} if which(c) else {}) for c in record.cells]
    return record.model_copy(update={"cells": cells})


def departing(**given: Any) -> dict[str, Any]:
    options = {**PROTOCOLS[DIGITS].options, "defense": ("privatesnn",), **given}
    return make_config(options).model_dump(mode="json")


NO_ENTRY: dict[str, tuple[Callable[[], RunRecord], str]] = {
    "departs": (
        lambda: following(protocol="", grid=departing(seeds=1, preset="quick")),
        f"follows no protocol: from {DIGITS} departs --preset quick, not standard; .*--seeds 1, not 4",
    ),
    "no grid": (lambda: following(protocol="", grid={}), "follows no protocol: its grid can't be read"),
    "other data": (lambda: following(protocol="", grid=departing()), "other data: fingerprint 0123456789ab, not "),
    "unknown": (lambda: following(protocol="leakbench-v9"), "follows no protocol"),
    "a name that it does not deserve": (
        lambda: following(grid=departing(seeds=1)),
        f"does not follow {DIGITS}, whose name it bears: --seeds 1, not 4",
    ),
    "incomplete": (lambda: following(complete=False), "incomplete"),
    "attacks failed": (
        lambda: failed(following(), lambda c: c.attack == ENSEMBLE),
        "cells of the run failed: han2020 auto-v2 seed 0, .* more",
    ),
    "control failed": (
        lambda: failed(following(), lambda c: c.defense == "random" and not c.attack),
        "cells of the run failed: random seed 0",
    ),
    "anchor failed": (
        lambda: failed(following(), lambda c: c.defense == "" and c.seed == 1),
        "cells of the run failed: noise seed 1",
    ),
}


@pytest.mark.parametrize("case", NO_ENTRY)
def test_why_there_is_no_entry(case: str) -> None:
    record, wanted = NO_ENTRY[case]
    with pytest.raises(UsageError, match=wanted) as error:
        defense_entry(record())
    assert len(str(error.value).splitlines()) == 1


def test_another_defence_that_failed_does_no_harm() -> None:
    other = [own("mine", seed, status="failed") for seed in range(4)]
    record = following()
    both = record.model_copy(update={"cells": [*record.cells, *other]})
    assert defense_entry(both, "privatesnn").defense.name == "privatesnn"
    with pytest.raises(UsageError, match="--defense is missing: name one of privatesnn, mine"):
        defense_entry(both)
    with pytest.raises(UnknownName, match="did you mean 'privatesnn'"):
        defense_entry(both, "privatesn")
    with pytest.raises(UsageError, match="cells of the run failed: mine"):
        defense_entry(both, "mine")


def test_without_an_attack_there_is_no_entry() -> None:
    record = following()
    alone = [c for c in record.cells if not (c.defense == "privatesnn" and c.attack)]
    with pytest.raises(UsageError, match="privatesnn was not attacked"):
        defense_entry(record.model_copy(update={"cells": alone, "rows": [], "verdicts": []}))


# --- attacks ---------------------------------------------------------------------------------------------------------


def test_an_attack_that_gets_more_breaks_an_entry() -> None:
    before = defense_entry(following(0.5))
    made = attack_entry(following(attacks={ENSEMBLE: 0.5, "direct": 0.8}), "direct", before, key_of("file"))
    assert made.attack.index and before.index
    assert made.attack.index.value > before.index.value
    assert (made.attack.plugin.name, made.attack.plugin.cites) == ("direct", "direct 2020")
    assert made.breaks.entry == key_of("file")
    assert (made.breaks.attack, made.breaks.index) == (ENSEMBLE, before.index)
    assert made.key == before.key
    assert list(made.artifacts.images) == ["direct"]


DIRECT: dict[str, Any] = {"version": 2, "params": {"steps": 40}}
"""as the runs have it"""


@pytest.mark.parametrize(
    ("attacks", "broken", "wanted"),
    [
        ({"direct": 0.5}, tree(value=0.8), "breaks nothing: its index is 0.5"),
        ({"direct": 0.1}, tree(value=0.0), "breaks nothing: it is not valid, or"),
        (
            {"direct": 0.8},
            tree(
                value=0.1, attacks=quoted(result(value=0.1), result("direct", 0.1, plugin=plugin("direct", **DIRECT)))
            ),
            "--attack direct is in the entry already",
        ),
        ({}, tree(value=0.1), "unknown attack of the run 'direct'"),
        ({"direct": 0.8}, tree("other", 0.1), "of another defence: name other there"),
        (
            {"direct": 0.8},
            tree(value=0.1) | {"protocol": "leakbench-v2-fashion"},
            "protocol leakbench-v2-fashion there, leakbench-v2-digits here",
        ),
        (
            {"direct": 0.8},
            tree(
                comparable=False,
                why="masking",
                index=None,
                attack="",
                attacks=[result(name, index=None) for name in REQUIRED],
            ),
            "has no leakage index that an attack could be above",
        ),
    ],
    ids=range(7),
)
def test_why_an_attack_has_no_entry(attacks: dict[str, float], broken: dict[str, Any], wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        attack_entry(
            following(attacks={ENSEMBLE: 0.5, **attacks}), "direct", DefenseEntry.model_validate(broken), key_of("file")
        )


def test_an_attack_on_other_parameters_breaks_nothing() -> None:
    before = defense_entry(following(0.5))
    other = before.model_copy(update={"defense": before.defense.model_copy(update={"params": {"epochs": 6}})})
    with pytest.raises(UsageError, match=re.escape('params {"epochs": 6} there, {"epochs": 5} here')):
        attack_entry(following(attacks={ENSEMBLE: 0.5, "direct": 0.8}), "direct", other, key_of("file"))
