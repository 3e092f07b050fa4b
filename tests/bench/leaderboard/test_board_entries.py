"""Entries as anybody may have written them: what is read back, and what is refused in half a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from board_entries import DIGITS, attack_on, broken, entry, key_of, measured, plugin, result, tree

from leakbench.bench.leaderboard.entries import checked_links, read_entry
from leakbench.errors import UsageError


def refused(content: bytes | str) -> str:
    with pytest.raises(UsageError) as error:
        read_entry(content.encode() if isinstance(content, str) else content)
    text = str(error.value)
    assert text.isprintable() and len(text) < 500
    return text


def resist(made: dict[str, Any], leaks: bool = False) -> None:
    """As what resists would be, but for what its attacks say of themselves."""
    made["verdict"].update(outcome="resists", named=[], p=0.6)
    for attack in made["attacks"]:
        attack.update(leaks=leaks)


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    """An entry's JSON after the change."""
    made = tree()
    change(made)
    return json.dumps(made)


def test_an_entry_is_read_back() -> None:
    before = entry(links={"code": "https://example.org/a?b=c#d"})
    assert read_entry(before.model_dump_json(indent=1).encode()) == before
    attack = attack_on(before)
    assert read_entry(attack.model_dump_json().encode()) == attack


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "is no JSON"),
        (b"\xff\xfe\xff", "is no JSON"),
        ("{", "is no JSON"),
        ("[]", "must be a JSON object"),
        ('"<script>"', "must be a JSON object"),
        ("{}", "has schema version None, this LeakBench reads 1"),
        ('{"schema_version": 2}', "has schema version 2"),
        ('{"schema_version": true}', "has schema version True"),
        ('{"schema_version": 1}', "is no entry"),
        ("[" * 200_000, "is nested too deeply"),
        ('{"a":' * 100_000, "is nested too deeply"),
        ('{"schema_version": ' + "9" * 5000 + "}", "is no JSON"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ('{"schema_version": 1, "schema_version": 1}', "'schema_version' stands there twice"),
        ('{"a": {"b\\u001b[2J": 1, "b\\u001b[2J": 2}}', "stands there twice"),
    ],
    ids=range(16),
)  # fmt: skip
def test_what_is_no_entry_at_all(content: bytes | str, wanted: str) -> None:
    assert wanted in refused(content)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda t: t.update(more=1), "more: Extra inputs"),
        (lambda t: t.pop("verdict"), "verdict: Field required"),
        (lambda t: t.update(kind="other"), "kind"),
        (lambda t: t.update({"\x1b[2J": 1}), "Extra inputs"),
        (lambda t: t.update(protocol="leakbench-v9"), "unknown protocol 'leakbench-v9': available: leakbench-v2"),
        (lambda t: t.update(protocol="../../etc/passwd"), "unknown protocol"),
        (lambda t: t.update(accuracy=measured(1e300)), "accuracy"),
        (lambda t: t["index"].update(value=1.5), "index.value"),
        (lambda t: t["index"].update(value="0.5"), "index.value"),
        (lambda t: t["index"].update(low=0.9), "the interval must hold the value"),
        (lambda t: t["index"].update(n=10**30), "index.n"),
        (lambda t: t["index"].update(n=-1), "index.n"),
        (lambda t: t.update(index=None), "comparable without an index"),
        (lambda t: t.update(comparable=False), "why must say why"),
        (lambda t: t.update(why="because"), "why must say why"),
        (lambda t: t.update(attacks=[]), "attacks"),
        (lambda t: t.update(attacks=[result("direct")]), "-digits requires the attack auto-v2 in version 5"),
        (lambda t: t["attacks"][0]["plugin"].update(version=1), "requires the attack auto-v2 in version 5"),
        (lambda t: t["attacks"][0]["plugin"].update(source="a" * 64), "requires the attack auto-v2 in version 5"),
        (lambda t: t["attacks"][0].update(status="failed"), "auto-v2 did not work as leakbench-v2-digits requires it"),
        (lambda t: t["attacks"][0].update(validity=None), "auto-v2 did not work as leakbench-v2-digits requires it"),
        (lambda t: t["attacks"][0]["index"].update(value=0.95, high=0.99), "below that of its valid attack auto-v2"),
        (lambda t: t["verdict"].update(outcome="resists"), "it resists and names classes that leak"),
        (
            lambda t: (t["verdict"].update(outcome="resists", named=[]), t.update(comparable=False, why="so")),
            "what resists can be compared",
        ),
        (lambda t: resist(t, leaks=True), "it resists and leaks by auto-v2"),
        (lambda t: (resist(t), t["accuracy_drop"].update(value=0.03)), "it resists and lost 0.03 of accuracy"),
        (lambda t: t["attacks"][1].update(validity="decoys suspected"), "decoys are suspected by repaired"),
        (lambda t: t["attacks"][0]["plugin"].update(params={"steps": 9}), "requires the attack auto-v2 in version 5"),
        (lambda t: t["accuracy_drop"].update(value=-1.5, low=None), "accuracy_drop.value"),
        (lambda t: t["energy_ratio"].update(value=-1.0, low=None), "energy_ratio.value"),
        (lambda t: t["training_images_read"].update(value=-1.0), "training_images_read.value"),
        (lambda t: t.update(timesteps=[-1]), "timesteps.0"),
        (lambda t: t["access"][0]["cost_to_half"].update(value=-1.0, low=None), "cost_to_half.value"),
        (lambda t: t.update(attacks=[result()] * 101), "attacks"),
        (lambda t: t["attacks"][0].update(access="ROOT"), "access"),
        (lambda t: t["defense"].update(source="../mine.py"), "defense.source"),
        (lambda t: t["defense"].update(source="a" * 63), "defense.source"),
        (lambda t: t["defense"].update(source="a" * 64 + "\n"), "defense.source"),
        (lambda t: t["defense"].update(name=""), "defense.name"),
        (lambda t: t["defense"].update(name="n" * 201), "defense.name"),
        (lambda t: t["defense"].update(name="\ud800"), "defense.name"),
        (lambda t: t["defense"].update(params={"a": {"b": 1}}), "defense.params"),
        (lambda t: t["defense"].update(params={"a": 10**400}), "defense.params"),
        (lambda t: t["artifacts"].update(anns=["../../x"]), "artifacts.anns"),
        (lambda t: t["run"].update(leakbench="<b>"), "run.leakbench"),
        (lambda t: t.update(links={"code": "http://example.org"}), "must be an https:// address"),
        (lambda t: t.update(links={"code": "javascript:alert(1)"}), "must be an https:// address"),
        (lambda t: t.update(links={"code": 'https://a.org/"onclick="x'}), "must be an https:// address"),
        (lambda t: t.update(links={"code": "https://me:secret@a.org/"}), "must be an https:// address"),
        (lambda t: t.update(links={"code": "https://[a.org/"}), "must be an https:// address"),
        (lambda t: t.update(links={"code": "https:///path"}), "must be an https:// address"),
        (lambda t: t.update(links={"other": "https://a.org"}), "links.other"),
        (lambda t: t["defense"].update(name="superb", label="superb"), "'superb' is no built-in defence"),
        (lambda t: t["defense"].update(source="a" * 64), "'privatesnn' is the name of a built-in defence"),
        (lambda t: t["attacks"].append(result("x", plugin=plugin("direct", source="a" * 64))), "of a built-in attack"),
        (lambda t: t["defense"].update(label="li2021"), "the label must be 'privatesnn'"),
        (lambda t: t["defense"].update(label="privatesnn2[od=True]"), "the label must be 'privatesnn'"),
        (lambda t: t["run"].update(leakbench="99.0.0"), "run with LeakBench 99.0.0, this is"),
        (lambda t: t["run"].update(environments=[]), "run.environments"),
        (lambda t: t["artifacts"].update(victims=[]), "artifacts.victims"),
        (lambda t: t.update(attack="nobody"), "must be the index of one of the attacks"),
        (lambda t: t["index"].update(value=0.55), "must be the index of one of the attacks"),
        (lambda t: t["index"].update(low=0.5), "no narrower than that of its attack"),
        (lambda t: t["index"].update(high=0.5), "no narrower than that of its attack"),
        (
            lambda t: (resist(t), t["attacks"][1].update(validity="gradient masking suspected")),
            "it resists, and repaired is not valid: gradient masking suspected",
        ),
        (lambda t: (resist(t), t["verdict"].update(networks=0)), "no network or class was attacked"),
    ],
    ids=range(66),
)  # fmt: skip
def test_every_field_is_checked(change: Callable[[dict[str, Any]], object], wanted: str) -> None:
    assert wanted in refused(changed(change))


def test_any_damage_is_one_line() -> None:
    """Every byte of an entry, turned over or left out: read, or refused in half a line."""
    whole = json.dumps(tree()).encode()
    for place in range(len(whole)):
        for middle in (b"", bytes([whole[place] ^ 1])):
            try:
                read_entry(whole[:place] + middle + whole[place + 1 :])
            except UsageError as error:
                assert str(error).isprintable()


@pytest.mark.parametrize("where", ["accuracy_drop", "energy_ratio", "params"])
def test_a_number_that_overflows_is_refused(where: str) -> None:
    made = tree()
    if where == "params":
        made["defense"]["params"] = {"a": "HERE"}
    else:
        made[where]["value"] = "HERE"
    assert where in refused(json.dumps(made).replace('"HERE"', "1e999"))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"attack": result("new", 0.5)}, "the index must be above that of the entry, 0.5"),
        ({"attack": result("new", 0.9, validity="invalid")}, "must be valid, leak and have an index"),
        ({"attack": result("new", 0.9, leaks=False)}, "must be valid, leak and have an index"),
        ({"attack": result("new", 0.9, index=None)}, "must be valid, leak and have an index"),
        ({"breaks": {"entry": "x", "attack": "a", "index": measured(0.1)}}, "breaks.entry"),
    ],
)
def test_an_attack_that_breaks_nothing_is_no_entry(given: dict[str, Any], wanted: str) -> None:
    assert wanted in refused(json.dumps(broken(entry()) | given))


def test_the_commands_are_made_of_checked_words() -> None:
    assert entry().command == f"leakbench run --protocol {DIGITS} --defense privatesnn"
    mine = plugin("x; rm -rf /", origin="mine file.py:Mine", source=key_of("mine"), params={"a": "$(id)"}, given=["a"])
    assert entry(defense=mine).command == (
        f"leakbench run --protocol {DIGITS} --defense 'mine file.py:Mine' --set 'x; rm -rf /.a=$(id)'"
    )
    attack = attack_on(entry(defense=plugin(params={"a": [1, True, 0.5], "b": None}, given=["a", "b"])))
    assert attack.command == (
        f"leakbench run --protocol {DIGITS} --defense privatesnn --set privatesnn.a=1,true,0.5 "
        "--set privatesnn.b=none --attack auto-v2 --attack new.py:New"
    )


def test_links_are_given_by_what_they_lead_to() -> None:
    assert checked_links(["code=https://a.org/x=y", "paper=https://b.org"]) == {
        "code": "https://a.org/x=y",
        "paper": "https://b.org",
    }
    for wrong in ("https://a.org", "blog=https://a.org", "code=http://a.org", "code=", "code"):
        with pytest.raises(UsageError, match="--link"):
            checked_links([wrong])
