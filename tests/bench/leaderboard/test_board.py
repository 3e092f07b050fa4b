"""Ranks, worst known values and doubts."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import numpy as np
import pytest
from board_entries import attack_on, entry, key_of, keys, measured, plugin, quoted, result, tree

import leakbench
from leakbench.bench.leaderboard.board import Leaderboard, Row, leaderboard, rank_of
from leakbench.bench.leaderboard.entries import AttackEntry, DefenseEntry, Entry, Share, read_entry
from leakbench.bench.leaderboard.files import EntryFile


def filed(**entries: Entry) -> list[EntryFile]:
    """Each in a file; attacks say that they break the first file of their defence, where there is one."""
    first = {one.key: key_of(name) for name, one in reversed(entries.items()) if isinstance(one, DefenseEntry)}
    return [
        EntryFile(f"{name}.json", key_of(name), breaking(one, first[one.key]) if one.key in first else one)
        for name, one in entries.items()
    ]


def breaking(one: Entry, digest: str) -> Entry:
    """An attack's entry with the sha256 of the file that it breaks; that of a defence as it is."""
    if isinstance(one, DefenseEntry):
        return one
    return one.model_copy(update={"breaks": one.breaks.model_copy(update={"entry": digest})})


def board_of(**entries: Entry) -> Leaderboard:
    made, left_out = leaderboard(filed(**entries))
    assert left_out == []
    return made


def only(**entries: Entry) -> Row:
    (board,) = board_of(**entries).boards
    (row,) = (*board.ranked, *board.open)
    return row


def ranks(**entries: Entry) -> dict[str, tuple[int, int] | None]:
    (board,) = board_of(**entries).boards
    return {row.shown.entry.defense.name: row.rank for row in board.ranked}


def test_intervals_apart_have_ranks_apart() -> None:
    assert ranks(c=entry("c", 0.9, 0.05), a=entry("a", 0.1, 0.05), b=entry("b", 0.5, 0.05)) == {
        "a": (1, 1),
        "b": (2, 2),
        "c": (3, 3),
    }


def test_overlapping_intervals_share_ranks() -> None:
    # b overlaps with both, which are apart
    made = {"a": entry("a", 0.2, 0.1), "b": entry("b", 0.35, 0.1), "c": entry("c", 0.5, 0.1)}
    assert ranks(**made) == {"a": (1, 2), "b": (1, 3), "c": (2, 3)}


def test_intervals_that_touch_are_not_apart() -> None:
    a, b = (Share(value=x, low=x - 0.25, high=x + 0.25) for x in (0.25, 0.75))
    assert rank_of(a, [a, b]) == rank_of(b, [a, b]) == (1, 2)


def test_without_an_interval_any_rank_is_possible() -> None:
    made = {"a": entry("a", 0.1, 0.05), "b": entry("b", 0.9, None), "c": entry("c", 0.5, 0.05)}
    assert ranks(**made) == {"a": (1, 2), "c": (2, 3), "b": (1, 3)}


def test_the_range_holds_every_order_that_the_intervals_allow() -> None:
    """Against all orders of points drawn inside the intervals."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        ends = np.sort(rng.random((4, 2)), axis=1)
        indices = [Share(value=float(low), low=float(low), high=float(high)) for low, high in ends]
        corners = np.array(list(itertools.product(*ends)))
        # a strict order at the corners: what lies apart never changes places
        first = np.array([[1 + (other < point).sum() for point in other] for other in corners]).min(0)
        last = np.array([[4 - (other > point).sum() for point in other] for other in corners]).max(0)
        assert [rank_of(one, indices) for one in indices] == list(zip(first, last, strict=True))


def test_protocols_have_tables_of_their_own() -> None:
    other = entry("b", 0.5, protocol="leakbench-v2-fashion")
    made = board_of(a=entry("a", 0.9), b=other)
    assert [(board.protocol, len(board.ranked), board.ranked[0].rank) for board in made.boards] == [
        ("leakbench-v2-digits", 1, (1, 1)),
        ("leakbench-v2-fashion", 1, (1, 1)),
    ]


def test_nothing_is_no_board() -> None:
    assert board_of().boards == []


def test_what_may_not_be_compared_has_no_rank() -> None:
    pot = entry("pot", 0.0, comparable=False, why="decoys are suspected")
    (board,) = board_of(pot=pot, a=entry("a", 0.9)).boards
    assert [row.rank for row in board.ranked] == [(1, 1)]
    assert [(row.rank, row.why) for row in board.open] == [(None, "decoys are suspected")]


# --- one defence, many entries ---------------------------------------------------------------------------------------


def test_the_worst_of_its_entries_counts() -> None:
    row = only(low=entry(value=0.3), high=entry(value=0.45))
    assert row.worst and (row.worst.index.value, row.worst.path) == (0.45, "high.json")
    assert row.shown.path == "high.json" and [one.path for one in row.others] == ["low.json"]


def test_an_attack_that_breaks_it_counts() -> None:
    before = entry(value=0.2)
    row = only(mine=before, break_=attack_on(before, 0.9), other=attack_on(before, 0.6))
    assert row.worst and (row.worst.index.value, row.worst.attack, row.worst.path) == (0.9, "new", "break_.json")
    assert [one.path for one in row.attacks] == ["break_.json", "other.json"]
    assert ranks(mine=before, break_=attack_on(before, 0.9), a=entry("a", 0.5)) == {"a": (1, 1), "privatesnn": (2, 2)}


def test_a_later_entry_may_be_worse_than_the_attack() -> None:
    before = entry(value=0.2)
    row = only(mine=before, attack=attack_on(before, 0.4), again=entry(value=0.5))
    assert row.worst and row.worst.path == "again.json"


def test_an_attack_alone_has_no_row() -> None:
    made, left_out = leaderboard(filed(attack=attack_on(entry())))
    assert made.boards == []
    why = f"no file here is the entry that it breaks, of privatesnn, sha256 {key_of('file')[:12]}..."
    assert left_out == [f"attack.json: {why}"]


def test_an_attack_counts_only_where_the_entry_lies_that_it_breaks() -> None:
    """By its sha256 and its worst case: what is written by hand must not mark a defence as broken."""
    before, other = entry(value=0.5), entry("other", 0.1)
    digest = key_of("before")
    honest = breaking(attack_on(before, 0.9), digest)
    assert isinstance(honest, AttackEntry)
    lower = Share(value=0.0, low=0.0, high=0.1)
    no_file = "no file here is the entry that it breaks, of privatesnn, sha256 "
    another = "the entry that it breaks has another worst case than it says"
    for change, why in (
        ({}, ""),
        ({"entry": key_of("nothing")}, f"{no_file}{key_of('nothing')[:12]}..."),
        ({"entry": key_of("other")}, f"{no_file}{key_of('other')[:12]}..."),
        ({"index": lower}, another),
        ({"attack": "direct"}, another),
    ):
        attack = honest.model_copy(update={"breaks": honest.breaks.model_copy(update=change)})
        files = {"before": before, "other": other, "attack": attack}
        made, left_out = leaderboard([EntryFile(f"{name}.json", key_of(name), one) for name, one in files.items()])
        row = next(one for one in made.boards[0].ranked if one.shown.path == "before.json")
        assert left_out == ([f"attack.json: {why}"] if why else [])
        assert len(row.attacks) == (not why) and row.worst and row.worst.index.value == (0.5 if why else 0.9)


@pytest.mark.parametrize(
    ("other", "rows"),
    [
        (plugin(params={"epochs": 5}), 1),
        (plugin(params={"epochs": 6}), 2),
        (plugin(params={"epochs": 5}, version=2), 2),
        (plugin("other", params={"epochs": 5}), 2),
        (
            plugin(
                params={"epochs": 5}, label="privatesnn[epochs=5]", origin="elsewhere", cites="so", given=["epochs"]
            ),
            1,
        ),
    ],
)
def test_a_defence_is_its_source_and_parameters(other: dict[str, Any], rows: int) -> None:
    (board,) = board_of(a=entry(), b=entry(defense=other, links={"code": "https://example.org"})).boards
    assert len(board.ranked) == rows


def test_of_a_file_the_digest_says_which_version_it_is() -> None:
    of_file = plugin("mine")
    (board,) = board_of(a=entry(defense=of_file), b=entry(defense=of_file | {"version": 2})).boards
    assert len(board.ranked) == 1
    (board,) = board_of(a=entry(defense=of_file), b=entry(defense=of_file | {"source": key_of("other")})).boards
    assert len(board.ranked) == 2


def test_an_entry_that_may_not_be_compared_takes_the_rank() -> None:
    silent = {**tree()["verdict"], "outcome": "inconclusive", "named": [], "p": 0.5, "missing": ["masking"]}
    doubt = "open.json could not be compared: decoys are suspected"
    for verdict in (silent, {**silent, "outcome": "leaks", "p": 0.0001}):
        for value, path in ((0.45, "open.json"), (0.35, "good.json")):
            open_ = entry(value=value, comparable=False, why="decoys are suspected", verdict=verdict)
            row = only(open=open_, good=entry(value=0.4, spread=0.2))
            assert (row.rank, row.why, row.unreliable) == (None, doubt, [doubt])
            assert row.shown.path == "good.json" and row.worst and row.worst.path == path


def test_why_an_entry_could_not_be_compared_is_short() -> None:
    row = only(open=entry(value=0.4, comparable=False, why="so " * 600), good=entry(value=0.4))
    assert row.why.startswith("open.json could not be compared: so so") and len(row.why) < 250


# --- copies and names ------------------------------------------------------------------------------------------------


def test_copies_of_an_entry_count_once() -> None:
    """Whatever its JSON looks like; a break of either counts."""
    before = entry(value=0.2)
    again = read_entry(json.dumps(before.model_dump(mode="json"), indent=3, sort_keys=True).encode("utf-16"))
    files = filed(a=before, b=again, new=breaking(attack_on(before), key_of("b")), newer=entry(value=0.3))
    files[2] = dataclasses.replace(files[2], entry=breaking(attack_on(before), key_of("b")))
    made, left_out = leaderboard([*files, dataclasses.replace(files[2], path="c.json")])
    assert left_out == [
        "b.json: is a copy of a.json, which counts once: leave one of them out",
        "c.json: is a copy of new.json, which counts once: leave one of them out",
    ]
    (row,) = made.boards[0].ranked
    assert (row.shown.path, [one.path for one in row.others], [one.path for one in row.attacks]) == (
        "newer.json", ["a.json"], ["new.json"],
    )  # fmt: skip


def test_rows_of_other_sources_have_other_labels() -> None:
    def labels(*sources: str) -> list[str]:
        made = {f"n{n}": entry(defense=plugin("mine", source=source)) for n, source in enumerate(sources)}
        (board,) = board_of(**made, c=entry("li2021")).boards
        return sorted(row.label for row in board.ranked)

    assert labels("a" * 64) == ["li2021", "mine"]
    assert labels("a" * 64, "b" * 64) == ["li2021", "mine (aaaaaaaa)", "mine (bbbbbbbb)"]
    assert labels("a" * 64, "a" * 9 + "b" * 55) == ["li2021", "mine (aaaaaaaaaa)", "mine (aaaaaaaaab)"]


# --- doubts ----------------------------------------------------------------------------------------------------------


def test_nothing_is_doubted_without_a_reason() -> None:
    assert only(a=entry(drop=0.02), b=entry(value=0.55)).unreliable == []


def test_a_defence_that_lost_accuracy_has_no_rank() -> None:
    """Or whoever knows nothing would be the first."""
    lossy = entry(value=0.05, drop=0.031, verdict=tree()["verdict"] | {"outcome": "inconclusive", "named": []})
    (board,) = board_of(a=lossy, b=entry("han2020", value=0.9)).boards
    assert [row.shown.entry.defense.name for row in board.ranked] == ["han2020"]
    (row,) = board.open
    assert row.why == "its accuracy is 0.031 below that of its ANN, 0.02 is allowed: knowing less leaks less"
    assert row.rank is None and row.unreliable == []


def test_a_missing_interval_is_said() -> None:
    assert only(a=entry(spread=None)).unreliable == ["its leakage index has no interval"]


def test_an_entry_that_leaks_is_not_hidden_by_one_that_resists() -> None:
    leaks = tree()["verdict"] | {"outcome": "leaks", "p": 0.0001}
    row = only(resists=entry(value=0.2), leaks=entry(value=0.15, verdict=leaks))
    assert row.shown.path == "leaks.json" and row.worst and row.worst.path == "resists.json"


def test_a_worse_value_with_a_wide_interval_improves_no_rank() -> None:
    before, others = entry("a", 0.5, 0.05), {"b": entry("b", 0.3, 0.05), "c": entry("c", 0.8, 0.02)}
    assert ranks(a=before, **others) == {"b": (1, 1), "a": (2, 2), "c": (3, 3)}
    wide = {"value": 0.55, "low": 0.2, "high": 0.95, "n": 40}
    breaking = attack_on(before, attack=result("new", plugin=plugin("new"), leaks=True, index=wide))
    for worse in (breaking, entry("a", 0.55, index=wide, attacks=quoted(result(value=0.55, index=wide)))):
        made = ranks(a=before, again=worse, **others)
        assert made["a"] == (2, 3) and made["c"] == (2, 3)
    unknown = entry("a", 0.55, index=measured(0.55, None), attacks=quoted(result(value=0.55, spread=None)))
    assert ranks(a=before, again=unknown, **others)["a"] == (2, 3)


def run_with(version: str, made_by: str | None = None, created: str = "2026-01-02T03:04:05Z") -> dict[str, Any]:
    """What an entry says of a run with that LeakBench, on artifacts of the same or another."""
    facts = tree()["run"]
    environments = [one | {"leakbench": made_by or version} for one in facts["environments"]]
    return facts | {"leakbench": version, "environments": environments, "created": created}


def test_artifacts_of_another_leakbench_are_said() -> None:
    now = leakbench.__version__
    assert only(a=entry(run=run_with(now))).unreliable == []
    doubt = f"run with LeakBench {now} on artifacts of 0.0.1"
    assert only(a=entry(run=run_with(now, "0.0.1"))).unreliable == [doubt]
    before = entry()
    assert only(a=before, b=attack_on(before, run=run_with(now, "0.0.1"))).unreliable == [doubt]


def test_an_older_leakbench_is_said() -> None:
    old = run_with("0.1.9")
    (doubt,) = only(a=entry(run=old)).unreliable
    assert doubt.startswith("run with LeakBench 0.1.9, this is ")
    before = entry()
    assert len(only(a=before, b=attack_on(before, run=old)).unreliable) == 1


def test_a_new_version_forgives_no_entry_that_could_not_be_compared() -> None:
    old = run_with("0.1.9")
    doubted = {"comparable": False, "why": "decoys suspected"}
    assert only(a=entry(), b=entry(**doubted)).why.endswith("could not be compared: decoys suspected")
    assert only(a=entry(run=old), b=entry(run=old, **doubted)).why.endswith("could not be compared: decoys suspected")
    # one of this version takes its place
    assert only(a=entry(), b=entry(run=old, **doubted)).why == ""


@pytest.mark.parametrize("ran", ["isolated", "not isolated", "unknown"])
def test_a_plugin_that_was_not_isolated_is_doubted(ran: str) -> None:
    """It could have read the private images."""
    mine = plugin("mine", source="a" * 64, origin="mine.py:Mine", ran=ran)
    expected = [] if ran == "isolated" else ["mine was not isolated from private images and evaluation models"]
    assert only(a=entry("mine", defense=mine)).unreliable == expected
    before = entry()
    breaking = result("mine", 0.95, plugin=mine)
    assert only(a=before, b=attack_on(before, attack=breaking)).unreliable == expected


def test_every_plugin_that_was_not_isolated_is_doubted_whatever_its_label() -> None:
    own = plugin("mine", source="a" * 64, origin="mine.py:Mine", ran="not isolated")
    doubt = "mine was not isolated from private images and evaluation models"
    before = entry("mine", defense=own)
    isolated = result("mine", 0.95, plugin=own | {"ran": "isolated", "source": "b" * 64})
    assert only(a=before, b=attack_on(before, attack=isolated)).unreliable == [doubt]
    within = entry(attacks=quoted(result(), result("mine", 0.1, plugin=own)))
    higher = entry(value=0.55, attacks=quoted(result(value=0.55)))
    assert only(a=within).unreliable == only(a=within, b=higher).unreliable == [doubt]


def test_entries_that_contradict_each_other_are_said() -> None:
    row = only(a=entry(value=0.1), b=entry(value=0.9, attacks=quoted(result(value=0.9))))
    assert row.unreliable == ["a.json and b.json contradict each other in auto-v2"]
    before = entry(value=0.1)
    row = only(a=before, b=attack_on(before, attack=result(value=0.9)))
    assert row.unreliable == ["a.json and b.json contradict each other in auto-v2"]


OWN_SOURCE: dict[str, Any] = {"source": key_of("mine"), "origin": "mine.py:Mine", "ran": "isolated"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (plugin("mine", **OWN_SOURCE), plugin("mine", **(OWN_SOURCE | {"source": key_of("mine with a comment")}))),
        (plugin("mine", **OWN_SOURCE), plugin("mine", params={"a": 1e-9}, **OWN_SOURCE)),
        (plugin(params={"epochs": 5}), plugin(params={"epochs": 6})),
    ],
    ids=["source", "parameters", "built in"],
)
def test_a_break_is_said_of_variants_too(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Or a changed comment would shed it."""
    before = entry(value=0.15, defense=one)
    new = attack_on(before, 0.9)
    name = before.defense.name
    doubt = (
        f"another source (or other parameters) of {name} was broken by new (new.json), which was not run on this one"
    )

    def doubts(**variant: Entry) -> list[list[str]]:
        made = board_of(before=before, new=new, **variant).boards
        return [row.unreliable for board in made for row in board.ranked if row.shown.path == "variant.json"]

    assert doubts(variant=entry(value=0.15, defense=other)) == [[doubt]]
    tried = result("new", 0.1, plugin=new.attack.plugin.model_dump())
    assert doubts(variant=entry(value=0.15, defense=other, attacks=quoted(result(value=0.15), tried))) == [[]]
    variant = entry(value=0.15, defense=other)
    assert doubts(variant=variant, again=attack_on(variant, 0.8)) == [[]]
    assert doubts(variant=entry(value=0.15, defense=other, protocol="leakbench-v2-fashion")) == [[]]
    assert doubts(variant=entry("else", 0.15)) == [[]]
    assert only(before=before, new=new).unreliable == []


def networks(made: dict[str, Any], **given: list[str]) -> DefenseEntry:
    return DefenseEntry.model_validate(made | {"artifacts": made["artifacts"] | given})


def doubts_of(**entries: Entry) -> dict[str, list[str]]:
    made, left_out = leaderboard(filed(**entries))
    assert left_out == []
    return {row.shown.path: row.unreliable for board in made.boards for row in (*board.ranked, *board.open)}


def test_anns_are_those_of_the_protocol() -> None:
    strange = networks(tree("b"), anns=keys("others"))
    doubt = "b.json: its ANNs are not those of most entries of leakbench-v2-digits"
    assert doubts_of(b=strange) == {"b.json": []}
    assert doubts_of(a=entry("a"), b=strange, c=entry("c")) == {"a.json": [], "b.json": [doubt], "c.json": []}
    before = entry("a")
    new = attack_on(before)
    other = new.model_copy(update={"artifacts": new.artifacts.model_copy(update={"anns": keys("others")})})
    said = doubts_of(a=before, new=other)["a.json"]
    assert said == ["new.json: its ANNs are not those of most entries of leakbench-v2-digits"]


def test_anns_of_another_protocol_are_refused() -> None:
    fashion = networks(tree("b", protocol="leakbench-v2-fashion"), anns=keys("ann of leakbench-v2-digits"))
    made, left_out = leaderboard(filed(a=entry("a"), c=entry("c"), b=fashion))
    assert left_out == ["b.json: its ANNs are those of entries of leakbench-v2-digits: no other protocol has the same"]
    assert [board.protocol for board in made.boards] == ["leakbench-v2-digits"]


def test_networks_are_those_of_one_plugin() -> None:
    mine, other = entry("mine"), networks(tree("other"), victims=list(entry("mine").artifacts.victims))
    assert doubts_of(mine=mine, other=other) == {
        "mine.json": ["mine.json: its networks have the keys of those of other in other.json, of another source"],
        "other.json": ["other.json: its networks have the keys of those of mine in mine.json, of another source"],
    }
    assert doubts_of(mine=mine, again=entry("mine", 0.45)) == {"mine.json": []}


def test_a_break_is_of_as_many_networks_as_the_entry() -> None:
    before = entry(value=0.2)
    kept = {"anns": keys("ann of leakbench-v2-digits")[:1], "victims": keys("x")[:1], "images": {"new": keys("y")[:1]}}
    few = attack_on(before, attack=result("new", 0.9, plugin=plugin("new"), index=measured(0.9, n=10)), artifacts=kept)
    _, left_out = leaderboard(filed(a=before, new=few))
    assert left_out == ["new.json: it is of 1 networks, the entry that it breaks of 4"]


def test_another_number_of_time_steps_than_the_protocols_is_said() -> None:
    own = plugin("mine", source=64 * "a", ran="isolated")
    assert only(a=entry("mine", defense=own, timesteps=[32])).unreliable == []
    assert only(a=entry("mine", defense=own, timesteps=[])).unreliable == []
    doubt = "its networks have T = 4, those of the protocol T = 32"
    assert only(a=entry("mine", defense=own, timesteps=[4, 32])).unreliable == [doubt]
    both = only(a=entry("mine", defense=own, timesteps=[32]), b=entry("mine", 0.1, defense=own, timesteps=[4]))
    assert both.unreliable[:1] == [doubt]
    # as tdbn has
    assert only(a=entry(timesteps=[4])).unreliable == []


def test_another_attack_that_gets_more_is_no_contradiction() -> None:
    more = entry(value=0.9, attacks=quoted(result(value=0.1), result("direct", 0.9)), attack="direct")
    assert only(a=entry(value=0.1), b=more).unreliable == []
    one, other = (result("direct", value, plugin=plugin("direct", params={"steps": 9 * value})) for value in (0.1, 0.9))
    mine = entry(value=0.1, attacks=quoted(result(value=0.1), one))
    assert only(a=mine, b=entry(value=0.9, attacks=quoted(result(value=0.1), other), attack="direct")).unreliable == []
    unsure = result(value=0.9, spread=None)
    doubts = only(a=entry(value=0.1), b=entry(value=0.9, spread=None, attacks=quoted(unsure))).unreliable
    assert doubts == ["its leakage index has no interval"]
    void = result("direct", 0.9, validity="invalid", leaks=False)
    assert only(a=entry(value=0.1), b=entry(value=0.15, attacks=quoted(result(value=0.15), void))).unreliable == []
