"""What verdicts on classes say in words, and the command that would tell more."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from report_samples import index, record, verdict

from leakbench.bench.grid import GridConfig
from leakbench.reports.command_line import settling_command
from leakbench.reports.conclusion import brief, conclusion, detectable_text, missing_lines, notes_of, settling, summary

NAMES = dict(enumerate(["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]))


def about(outcome: str, **given: Any) -> Any:
    return verdict("d", outcome, **({"classes": list(range(10)), "networks": 4, "p": 0.0004} | given))


@pytest.mark.parametrize(
    ("outcome", "given", "said"),
    [
        ("leaks", {"named": [8, 9, 6]}, "3 of 10 classes leak: ship, truck, frog."),
        (
            "leaks",
            {"named": [8], "comparable": False},
            "1 of 10 classes leaks: ship. More may leak: attacks may have been misled.",
        ),
        ("leaks", {"named": [8]}, "1 of 10 classes leaks: ship."),
        ("leaks", {"named": list(range(10))}, "All 10 classes leak."),
        ("leaks", {"networks": 1}, "Classes leak; which ones, one network can't tell."),
        ("leaks", {"networks": 2}, "Classes leak; which ones, 2 networks can't tell."),
        ("leaks", {}, "Classes leak; which ones, this evidence can't tell."),
        (
            "leaks",
            {"networks": 1, "among": 100},
            "Some of 10 attacked classes (of 100) leak; which ones, one network can't tell.",
        ),
        ("resists", {"detectable": 1}, "By these attacks none of 10 classes is drawn from 80 % of networks."),
        ("resists", {"detectable": 3}, "By these attacks at most 2 of 10 classes are drawn from 80 % of networks."),
        ("leaks", {"named": [8], "among": 100}, "1 of 10 attacked classes (of 100) leaks: ship."),
        ("leaks", {"named": list(range(10)), "among": 100}, "All 10 attacked classes (of 100) leak."),
        ("inconclusive", {"missing": ["one network: no class can be named"]}, None),
    ],
)
def test_the_outcome_in_a_sentence(outcome: str, given: dict[str, Any], said: str | None) -> None:
    expected = said or "No conclusion: one network: no class can be named."
    assert conclusion(about(outcome, **given), NAMES) == expected


def test_of_many_classes_the_first_are_named_and_the_rest_counted() -> None:
    found = about("leaks", classes=list(range(100)), named=list(range(50)))
    said = conclusion(found, NAMES)
    assert said == f"50 of 100 classes leak: {', '.join(NAMES.values())} and 40 more."
    assert conclusion(about("leaks", named=[3, 40]), NAMES) == "2 of 10 classes leak: cat, 40."


def test_named_classes_that_null_networks_show_as_well_are_told_by_name() -> None:
    found = about("leaks", named=[8, 9], doubtful=[9], notes=["few networks"])
    said = "networks that know nothing may show truck as often"
    assert notes_of(found, NAMES) == [said, "few networks"]
    assert notes_of(about("leaks", named=[8]), NAMES) == []


def test_the_line_for_a_terminal() -> None:
    found = about("leaks", named=[8], attack="a", index=index(0.5))
    assert summary(found, NAMES) == (
        "1 of 10 classes leaks: ship. p < .001, 4 networks. Worst case a: index .50 [.40, .60]."
    )
    of_members = verdict("d", "leaks", "a", leakage="membership", reason="in words")
    assert summary(of_members, NAMES) == "in words"


def test_what_is_missing_is_said_once_for_all_attacks_and_without_its_numbers() -> None:
    why = "decoys suspected (G7: the victim's mean (of all (four)) is 1.00)"
    missing = [f"a: {why}", f"b[x=1]: {why}", f"no valid attack: a: {why}; b[x=1]: {why}", "4 networks: too few"]
    found = about("inconclusive", missing=missing)
    assert missing_lines(found) == ["decoys suspected (a, b[x=1])", "no valid attack", "4 networks: too few"]
    failed = "a, b failed: RuntimeError: Input type (float) and weight type (half) differ"
    assert missing_lines(about("inconclusive", missing=[failed])) == [failed]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a", "a"),
        ("a (b)", "a"),
        ("a (b (c) d); e", "a; e"),
        ("a (b): c", "a: c"),
        ("a) b", "a) b"),
        ("a (b", "a"),
        ("a (b), c failed: of shape (1, 2), got (2", "a, c failed: of shape (1, 2), got (2"),
        ("a (b) found no signal: NaN (all)", "a found no signal: NaN (all)"),
        ("", ""),
    ],
)
def test_parentheses_are_left_out(text: str, shown: str) -> None:
    assert brief(text) == shown


def test_the_smallest_leak_that_shows() -> None:
    assert detectable_text(about("resists", detectable=1)) == (
        "4 networks show a leak of 1 class or more, each drawn from 80 % of networks"
    )
    assert "3 classes or more" in detectable_text(about("inconclusive", detectable=3))
    assert detectable_text(about("inconclusive", networks=1)) == (
        "one network may show no leak, however many classes are drawn"
    )
    assert detectable_text(about("leaks", detectable=1)) == ""


GRID = {"attack": ["inversion", "direct"]}


@pytest.mark.parametrize(
    ("command", "options", "wanted"),
    [
        ("leakbench run -d x", "--seeds 4", "leakbench run -d x --seeds 4"),
        ("leakbench --debug run -d x --seeds 1 -q", "--seeds 4", "leakbench --debug run -d x -q --seeds 4"),
        ("leakbench run --seeds=1 -d x", "--seeds 4", "leakbench run -d x --seeds 4"),
        ("leakbench run -d x --out 'my run'", "--seeds 4", "leakbench run -d x --seeds 4"),
        ("leakbench run -d 'my file.py:X'", "--seeds 4", "leakbench run -d 'my file.py:X' --seeds 4"),
        (
            "leakbench run -a inversion -d x --attack=direct -ainversion",
            "--attack auto --seeds 4",
            "leakbench run -d x --attack inversion,direct,auto --seeds 4",
        ),
        ("leakbench run -d x --no-controls -a direct", "--seeds 4", "leakbench run -d x -a direct --seeds 4"),
        ("leakbench run --resume --out x", "--seeds 4", ""),
        ("python mine.py", "--seeds 4", ""),
        ("leakbench run -d 'x", "--seeds 4", ""),
        ("rm run -rf x", "--seeds 4", ""),
        ("leakbench run -d x", "--seeds", ""),
        ("leakbench run -d x", "", ""),
    ],
)
def test_the_command_with_other_options(command: str, options: str, wanted: str) -> None:
    assert settling_command(command, GRID, options) == wanted


def test_an_attack_that_is_named_is_added_to_those_that_ran_by_default() -> None:
    grid = GridConfig(defense=("d",)).model_dump(mode="json")
    command = settling_command("leakbench run -d d", grid, "--attack inversion")
    assert shlex.split(command)[-2:] == ["--attack", "auto,inversion"]


def test_without_a_command_there_are_the_options() -> None:
    found = about("inconclusive", settle="--seeds 4")
    assert settling(record([], command="a script of somebody's"), found) == "--seeds 4"
    assert settling(record([], command="leakbench run -d x"), found) == "leakbench run -d x --seeds 4"
    assert settling(record([]), about("leaks")) == ""
