"""Entries as anybody may have written them: what is read back, and what is refused in half a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from board_entries import (
    DIGITS,
    artifacts,
    attack_on,
    broken,
    by_access,
    entry,
    key_of,
    keys,
    measured,
    plugin,
    quoted,
    result,
    tree,
)

from leakbench.bench.leaderboard.entries import CLASSES, NEARLY, checked_links, read_entry
from leakbench.bench.protocols import PROTOCOLS
from leakbench.data import load_dataset
from leakbench.errors import UsageError
from leakbench.leakage.inversion import gates


def refused(content: bytes | str) -> str:
    with pytest.raises(UsageError) as error:
        read_entry(content.encode() if isinstance(content, str) else content)
    text = str(error.value)
    assert text.isprintable() and len(text) < 500
    return text


def resist(made: dict[str, Any], leaks: bool = False) -> None:
    """As what resists would be, but for what its attacks say of themselves."""
    made["verdict"].update(outcome="resists", named=[], p=0.6)
    made["access"] = by_access(made)
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
        (lambda t: t["attacks"][1].update(validity=None), "repaired did not work as leakbench-v2"),
        (lambda t: t["attacks"][0]["index"].update(value=0.95, high=0.99), "worst case must be 0.950 by auto-v2"),
        (lambda t: t["verdict"].update(outcome="resists"), "it resists and names classes that leak"),
        (
            lambda t: (resist(t), t.update(comparable=False, why="so")),
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
        (lambda t: t["access"][2]["cost_to_half"].update(value=-1.0, low=None), "cost_to_half.value"),
        (lambda t: t.update(attacks=[result()] * 101), "attacks"),
        (lambda t: t["attacks"][0].update(access="ROOT"), "access"),
        (lambda t: t["defense"].update(source="../mine.py"), "defense.source"),
        (lambda t: t["defense"].update(source="a" * 63), "defense.source"),
        (lambda t: t["defense"].update(source="a" * 64 + "\n"), "defense.source"),
        (lambda t: t["defense"].update(name=""), "defense.name"),
        (lambda t: t["defense"].update(name="n" * 201), "defense.name"),
        (lambda t: t["defense"].update(name="privatesnn "), "must be of ASCII letters, digits, _ and -, a letter"),
        (lambda t: t["defense"].update(name="priv\u0430tesnn"), "a letter first, got 'priv\\u0430tesnn'"),
        (lambda t: t["defense"].update(name="a\nb"), "must be of ASCII letters"),
        (lambda t: t["defense"].update(name="privatesnn[od=True]"), "must be of ASCII letters"),
        (lambda t: t["attacks"][1]["plugin"].update(name="repaired "), "attacks.1.plugin.name"),
        (lambda t: t["defense"].update(label="privatesnn[\u202ea]"), "the label must be printable"),
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
        (lambda t: t.update(attack="nobody"), "must be 0.500 by auto-v2, the highest index of an attack that is not"),
        (lambda t: t["index"].update(value=0.55), "must be 0.500 by auto-v2"),
        (lambda t: t["index"].update(low=0.5), "no narrower than its attacks'; got 0.5 to 0.6"),
        (lambda t: t["index"].update(high=0.5), "no narrower than its attacks'; got 0.4 to 0.5"),
        (
            lambda t: (resist(t), t["attacks"][1].update(validity="gradient masking suspected")),
            "nothing leaks significantly by repaired: gradient masking suspected",
        ),
        (lambda t: (resist(t), t["verdict"].update(networks=0)), "attacks 0 of 0 networks, got 10"),
    ],
    ids=range(72),
)  # fmt: skip
def test_every_field_is_checked(change: Callable[[dict[str, Any]], object], wanted: str) -> None:
    assert wanted in refused(changed(change))


def resisting(value: float = 0.05) -> dict[str, Any]:
    made = tree(value=value)
    resist(made)
    return made


def in_verdict(**given: Any) -> Callable[[dict[str, Any]], None]:
    return lambda t: t["verdict"].update(given)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (in_verdict(p=0.01), "it resists at p = 0.01: above 0.01 no leak is significant"),
        (in_verdict(p=None), "it resists at p = None"),
        (in_verdict(named=["3"]), "it resists and names classes that leak"),
        (in_verdict(reason="8 of 10 classes leak significantly"), "it resists and names classes that leak"),
        (in_verdict(missing=["more networks"]), "missing must be empty"),
        (in_verdict(networks=3), "n = 40, the verdict is of 3 networks and 10 classes"),
        (in_verdict(classes=1), "attacks 10 of 4 networks, got 1"),
        (lambda t: t["access"][2].update(classes=8), "access WEIGHTS: 8 classes leak, the verdict: resists"),
        (lambda t: t["access"][1].update(classes=1), "access SCORES: 1 classes leak, the verdict: resists"),
        (lambda t: t.update(access=tree()["access"]), "access SCORES must be 0.050 by distilled"),
        (lambda t: t["artifacts"]["images"].pop("pruned"), "n = 40, keys of images are of 0 networks"),
        (
            lambda t: (t["attacks"][0]["index"].update(n=30), t["artifacts"]["images"]["auto-v2"].pop()),
            "auto-v2 was not judged on all 4 networks",
        ),
    ],
    ids=range(12),
)
def test_what_resists_shows_no_leak_anywhere(change: Callable[[dict[str, Any]], object], wanted: str) -> None:
    made = resisting()
    assert read_entry(json.dumps(made).encode())
    change(made)
    assert wanted in refused(json.dumps(made))


def test_what_resists_has_no_high_index() -> None:
    """One whose lower limit is half of the scale draws classes; a wide interval alone is no contradiction."""
    assert read_entry(json.dumps(resisting(0.55)).encode())
    assert "its index is 0.5 or more for certain: from 0.850" in refused(json.dumps(resisting(0.95)))


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (in_verdict(p=0.02), "it leaks at p = 0.02: at most 0.01 is significant"),
        (in_verdict(named=["1", "1"]), "verdict.named: at most 10 different classes"),
        (in_verdict(named=["1"]), "access WEIGHTS: 5 classes leak, the verdict names 1"),
        (lambda t: t["access"].pop(), "one row each of LABELS, SCORES, WEIGHTS"),
        (lambda t: t["access"].reverse(), "one row each of LABELS, SCORES, WEIGHTS"),
        (lambda t: t["access"][2].update(index=measured(0.6)), "access WEIGHTS must be 0.500 by auto-v2"),
        (lambda t: t["access"][2].update(attack="pruned"), None),
        (lambda t: t["access"][1].update(attack="auto-v2"), "access SCORES must be 0.500 by distilled"),
        (lambda t: t["access"][1].update(index=None), "access SCORES must have an index"),
        (lambda t: t["access"][0].update(index=measured(0.1)), "access LABELS must have an index where an attack has"),
        (lambda t: t["access"][2].update(index=measured(0.5) | {"low": 0.3}), "must be that of the worst case"),
        (lambda t: t["index"].update(low=None), "the worst case must have an interval from at most 0.400 to 0.600"),
        (lambda t: t["attacks"][1]["index"].update(low=None), "must have no interval, as not all attacks have one"),
        (lambda t: t["attacks"].append(t["attacks"][0]), "two attacks have the label auto-v2"),
        # what protocols fix
        (lambda t: t["artifacts"]["anns"].append(key_of("x")), "artifacts, anns: leakbench-v2-digits has 4 networks"),
        (lambda t: t["artifacts"].update(victims=keys("x")[:1] * 4), "1 to 4 different keys are needed, got 4"),
        (lambda t: t["artifacts"].update(victims=keys("x")[:3]), "there must be as many anns as victims"),
        (lambda t: t["artifacts"]["images"].update(direct=keys("x")), "images of direct, which is no attack"),
        (in_verdict(networks=5), "verdict.networks: 5, artifacts have the keys of 4 victims"),
        (lambda t: t["attacks"][0]["index"].update(n=400), "auto-v2: its index has n = 400, keys of images are of 4"),
        (lambda t: t["run"].update(created="yesterday"), "must be a date and time with its zone"),
        (lambda t: t["run"].update(created="2026-01-02T03:04:05"), "must be a date and time with its zone"),
        (lambda t: t["run"].update(created="2999-01-02T03:04:05+00:00"), "lies in the future"),
    ],
    ids=range(23),
)
def test_an_entry_says_one_thing(change: Callable[[dict[str, Any]], object], wanted: str | None) -> None:
    made = tree()
    change(made)
    if wanted is None:  # of two attacks that get the same either may be the worst
        read_entry(json.dumps(made).encode())
    else:
        assert wanted in refused(json.dumps(made))


def test_what_is_invalid_is_no_worst_case() -> None:
    made = tree(attacks=quoted(result(), result("direct", 0.9, validity="invalid", leaks=False)))
    assert read_entry(json.dumps(made).encode())
    made.update(attack="direct", index=measured(0.9))
    assert "the worst case must be 0.500 by auto-v2" in refused(json.dumps(made))


@pytest.mark.parametrize("validity", ["gradient masking suspected", "optimisation failure", "invalid"])
def test_what_may_have_been_misled_is_not_compared(validity: str) -> None:
    """Where nothing leaks; a leak is one, unless it is of an attack that is not valid alone."""
    silent = {"outcome": "inconclusive", "named": [], "p": 0.5, "missing": ["more networks"]}
    doubted = quoted(result(value=0.1), result("direct", 0.1, validity="optimisation failure"))
    assert entry(value=0.1, attacks=doubted, verdict=tree()["verdict"] | silent)
    doubted[1] = result("repaired", 0.1, validity=validity)
    made = tree(value=0.1, attacks=doubted, verdict=tree()["verdict"] | silent)
    assert f"nothing leaks significantly by repaired: {validity}" in refused(json.dumps(made))
    assert read_entry(json.dumps(made | {"comparable": False, "why": "masking"}).encode())


def test_a_valid_attack_must_show_nearly_as_much_as_the_worst_case() -> None:
    worst = result(value=0.5, validity="gradient masking suspected")
    assert entry(attacks=[worst, *quoted(result(), value=0.46)[1:]])
    less = tree(attacks=[worst, *quoted(result(), value=0.44)[1:]])
    wanted = "comparable, and auto-v2, which gets most, is not valid: gradient masking suspected"
    assert wanted in refused(json.dumps(less))
    assert read_entry(json.dumps(less | {"comparable": False, "why": "masking"}).encode())


def test_numbers_are_those_of_verdicts_and_data() -> None:
    assert NEARLY == gates.NEARLY
    assert {one.dataset for one in PROTOCOLS.values()} <= CLASSES.keys()
    assert CLASSES["digits"] == len(load_dataset("digits").classes)


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
        ({"attack": result("new", 0.9, validity="invalid")}, "be valid, leak and have an index"),
        ({"attack": result("new", 0.9, leaks=False)}, "be valid, leak and have an index"),
        ({"attack": result("new", 0.9, index=None)}, "be valid, leak and have an index"),
        ({"attack": result("new", 0.9, status="failed")}, "must have worked (ok)"),
        ({"attack": result("new", 0.9, None)}, "must have an interval"),
        ({"attack": result("new", 0.9, index=measured(0.9, n=0))}, "10 classes of 4 networks: n must be 40, got 0"),
        ({"attack": result("new", 0.9, seconds=None)}, "must say what it cost"),
        ({"attack": result("new", 0.9, queries=None)}, "must say what it cost"),
        ({"attack": result("new", 0.9, gradient_steps=0.0, queries=0.0, seconds=0.0)}, "must say what it cost"),
        ({"artifacts": artifacts([])}, "new: its index has n = 40, keys of images are of 0 networks"),
        ({"artifacts": artifacts([result("new"), result("old")])}, "images of old, which is no attack of the entry"),
        ({"breaks": {"entry": "x", "attack": "a", "index": measured(0.1)}}, "breaks.entry"),
    ],
)
def test_an_attack_that_breaks_nothing_is_no_entry(given: dict[str, Any], wanted: str) -> None:
    assert wanted in refused(json.dumps(broken(entry()) | given))


def test_the_commands_are_made_of_checked_words() -> None:
    assert entry().command == f"leakbench run --protocol {DIGITS} --defense privatesnn"
    mine = plugin("x", origin="mine file.py:Mine", source=key_of("mine"), params={"a; rm": "$(id)"}, given=["a; rm"])
    assert entry(defense=mine).command == (
        f"leakbench run --protocol {DIGITS} --defense 'mine file.py:Mine' --set 'x.a; rm=$(id)'"
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
