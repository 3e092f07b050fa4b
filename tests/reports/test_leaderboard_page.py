"""The page of a leaderboard: what it says, and that it is one harmless file."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from board_entries import DIGITS, attack_on, entry, key_of, plugin, quoted, result, tree
from report_page import Page

from leakbench.bench.leaderboard.board import leaderboard
from leakbench.bench.leaderboard.entries import AttackEntry, Entry
from leakbench.bench.leaderboard.files import EntryFile
from leakbench.reports.leaderboard_page import render

HOSTILE = (
    '<script>alert("x")</script>\'"><img src=x onerror=alert(1)>&amp; {{ 7*7 }} \u202egnorw\x1b[31m\x00\r\n' + "n" * 90
)


def filed(**entries: Entry) -> list[EntryFile]:
    """Each in a file; attacks say that they break the first."""
    first = key_of(next(iter(entries), ""))
    bound = {
        name: one.model_copy(update={"breaks": one.breaks.model_copy(update={"entry": first})})
        if isinstance(one, AttackEntry)
        else one
        for name, one in entries.items()
    }
    return [EntryFile(f"{name}.json", key_of(name), one) for name, one in bound.items()]


def rendered(**entries: Entry) -> str:
    made, left_out = leaderboard(filed(**entries))
    assert left_out == []
    return render(made)


def page(**entries: Entry) -> Page:
    found = Page(rendered(**entries))
    assert found.open == []
    return found


def rows(text: str) -> list[str]:
    """The text of each defence's line."""
    found = re.findall(r'<tr class="entry.*?</tr>', text, re.DOTALL)
    return [" ".join(html.unescape(re.sub(r"<[^>]*>", " ", row)).split()) for row in found]


def hostile() -> dict[str, Entry]:
    """Every text that an entry may have is an attack on the page."""
    h = HOSTILE
    label = f"h[{''.join(filter(str.isprintable, h))}]"
    evil = plugin(
        "h", label=label, origin=h, source=key_of("h"), params={h: h, "list": [h, None, True]}, given=[h], cites=h
    )
    made_by = dict.fromkeys(tree()["run"]["environments"][0], h) | {"artifacts": 1}
    facts = tree()["verdict"] | {"reason": h, "named": [h], "missing": [h]}
    fields: dict[str, Any] = {
        "defense": evil,
        "run": {"leakbench": "0.1.0+a.b", "created": tree()["run"]["created"], "environments": [made_by]},
        "verdict": facts,
        "attack": label,
        "attacks": quoted(result(), result("h", plugin=evil, reason=h)),
        "links": {"code": "https://example.org/?a=&b=%22#x"},
    }
    before = entry(h, **fields)
    return {
        h: before,
        "attack": attack_on(before, attack=result(h, 0.9, plugin=evil)),
        "open": entry(
            "open",
            **(fields | {"defense": evil | {"name": "o", "label": f"o{label[1:]}"}, "comparable": False, "why": h}),
        ),
        "huge": entry(
            "huge",
            energy_ratio={"value": 1e15},
            accuracy_drop={"value": -1.0},
            attacks=quoted(result(queries=1e15, seconds=1e-300)),
            training_images_read={"value": 5e-324},
        ),
    }


def test_a_row_says_what_counts() -> None:
    (line,) = rows(rendered(a=entry(value=0.42, drop=0.013)))
    assert line == "1 privatesnn leaks .42 [.32, .52] auto-v2 (weights) 4 of 10 .95 lost .01 21.0× 0 never"


def test_a_broken_row_says_by_what() -> None:
    before = entry(value=0.1)
    text = rendered(mine=before, new=attack_on(before, 0.9))
    (line,) = rows(text)
    assert line == "1 privatesnn leaks broken .90 [.85, .95] new (weights) – .95 lost .01 21.0× 0 –"
    words = Page(text).text
    assert "breaks it" in words and "new.json" in words and "Doe 2026" in words
    assert f"leakbench run --protocol {DIGITS} --defense privatesnn --attack auto-v2 --attack new.py:New" in words
    assert f"new.py is the file with sha256 {key_of('new')}" in words


def test_rows_of_other_sources_read_differently() -> None:
    text = rendered(**{digit: entry(defense=plugin("mine", source=digit * 64)) for digit in "ab"})
    assert [line.split(" leaks")[0] for line in rows(text)] == ["1–2 mine (aaaaaaaa)", "1–2 mine (bbbbbbbb)"]
    assert "Attackers by their access, mine (bbbbbbbb)" in text


def test_an_open_row_says_why_and_stands_apart() -> None:
    text = rendered(pot=entry("pot", 0.05, comparable=False, why="decoys are suspected (so)"), a=entry("a", 0.9))
    assert [line.split()[:2] for line in rows(text)] == [["1", "a"], ["–", "pot"]]
    assert "decoys are suspected (so) Known so far: index .05 [.00, .15] by auto-v2." in rows(text)[1]
    assert text.index("No rank, for the reason") > text.index(">a <span")


def test_doubts_are_said_with_their_reason() -> None:
    text = rendered(a=entry(spread=None))
    assert "unreliable" in rows(text)[0]
    assert "Unreliable: its leakage index has no interval" in Page(text).text


def test_the_title_says_how_many_resist() -> None:
    leaks, resists = entry("a", 0.9), entry("b", 0.1)
    titles = [Page(rendered(**one)).text for one in ({"a": leaks}, {"a": leaks, "b": resists}, {"b": resists})]
    for title, text in zip(("none of 1 defence", "1 of 2 defences", "1 of 1 defence"), titles, strict=True):
        assert f"Leaderboard: {title} resists" in text
    assert "Leaderboard: none of 1 defence resists" in Page(rendered(b=resists, c=attack_on(resists, 0.9))).text


def test_what_leaks_by_another_entry_does_not_resist() -> None:
    resists, leaks = entry(value=0.1), tree()["verdict"] | {"outcome": "leaks", "p": 0.0001}
    open_ = entry(value=0.9, comparable=False, why="decoys are suspected", verdict=leaks)
    text = rendered(a=resists, b=open_)
    (line,) = rows(text)
    assert line.startswith("– privatesnn leaks by another entry unreliable b.json could not be compared: decoys are")
    assert "Known so far: index .90 [.80, 1.00] by auto-v2." in line
    assert "Leaderboard: none of 1 defence resists" in Page(text).text
    # an attack that gets less than the worst case breaks what resists all the same
    before = entry(value=0.08)
    slight = attack_on(before, attack=result("new", 0.09, plugin=plugin("new"), leaks=True))
    worse = rendered(a=before, b=slight, c=entry(value=0.12))
    assert "privatesnn leaks by another entry" in rows(worse)[0]


def test_what_another_entry_could_not_compare_does_not_resist() -> None:
    open_ = entry(value=0.1, comparable=False, why="decoys are suspected")
    text = rendered(a=entry(value=0.15), b=open_)
    (line,) = rows(text)
    assert line.startswith("– privatesnn inconclusive unreliable b.json could not be compared: decoys are suspected")
    assert "Leaderboard: none of 1 defence resists" in Page(text).text


def test_the_time_steps_of_the_networks_are_said() -> None:
    assert "Time steps 4, 32" in page(a=entry(timesteps=[4, 32])).text
    assert "Time steps" not in page(a=entry()).text


def test_everything_of_an_entry_is_on_the_page() -> None:
    made = entry(
        defense=plugin(params={"epochs": 5, "layers": [1, 2]}, given=["epochs"], cites="Kim, 2022"),
        attacks=quoted(result(), result("label_only", 0.1, validity="optimisation failure", reason="they disagree")),
        links={"paper": "https://arxiv.org/abs/2104.03414"},
    )
    words = page(a=made).text
    for wanted in (
        "Kim, 2022", "epochs 5, layers [1, 2]", "optimisation failure they disagree", "AMD EPYC", "LeakBench",
        "https://arxiv.org/abs/2104.03414", *made.artifacts.anns, *made.artifacts.victims,
        *made.artifacts.images["distilled"], key_of("a"), "a.json",
        "p < .001", "4 networks", "1,500", "12.5", "--set privatesnn.epochs=5",
    ):  # fmt: skip
        assert wanted in words, wanted


def test_rows_can_be_filtered_by_what_they_say_of_themselves() -> None:
    text = rendered(
        a=entry("a", attacks=quoted(result(), result("label_only", 0.1))),
        b=entry("b", training_images_read={"value": 1437.0, "n": 4}),
        c=entry("c", training_images_read=None),
    )
    found = [dict(attributes) for tag, attributes in Page(text).tags if tag == "tr" and "data-free" in attributes]
    assert [(one["data-access"], one["data-free"]) for one in found] == [
        ("WEIGHTS SCORES LABELS", "yes"),
        ("WEIGHTS SCORES", "no"),
        ("WEIGHTS SCORES", "no"),
    ]


def test_a_columns_keys_are_numbers() -> None:
    """But for the rank's, which is sorted as a text with numbers in it."""
    text = rendered(a=entry("a"), b=entry("b", spread=None, value=0.9), c=entry("c", energy_ratio=None))
    for row in re.findall(r'<tr class="entry.*?</tr>', text, re.DOTALL):
        first, *others = re.findall(r'data-sort="([^"]*)"', row)
        assert re.fullmatch(r"\d+ \d+", first)
        assert len(others) == 9 and [float(key) for key in others if key]


@pytest.mark.parametrize("made", [hostile, dict], ids=["hostile", "empty"])
def test_nothing_of_an_entry_is_obeyed(made: Any) -> None:
    found = page(**made())
    text = rendered(**made())
    assert not {"img", "iframe", "object", "form"} & {tag for tag, _ in found.tags}
    assert sum(tag == "script" for tag, _ in found.tags) == 2 and sum(tag == "style" for tag, _ in found.tags) == 1
    assert not any(name.startswith("on") or name == "style" for _, attributes in found.tags for name in attributes)
    links = {attributes.get("href", "") for tag, attributes in found.tags if tag == "a"}
    assert all(link.startswith(("#", "https://example.org/")) for link in links)
    assert not set("\x1b\x00\u202e") & set(text)
    (policy,) = [one["content"] for tag, one in found.tags if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy and "http" not in policy


def test_every_known_interval_has_its_mark() -> None:
    text = rendered(a=entry("a", 0.0, 0.0), b=entry("b", 1.0, None), c=entry("c", 0.5, 0.25))
    assert re.findall(r'<circle cx="([\d.]+%)"', text) == ["1.00%", "50.00%", "99.00%"]
