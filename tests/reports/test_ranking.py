from __future__ import annotations

import re
from pathlib import Path

import pytest
from by_hand import declared
from comparison_samples import attacked, comparison, defense, forced, measured, pair, three
from report_page import page
from report_samples import cell, index, judged, plain, record, row, small, verdict

from leakbench.bench.comparison import Pair, compare
from leakbench.cli.comparison_text import print_rankings
from leakbench.records import RunRecord, Value
from leakbench.reports.ranking import (
    apart_text,
    difference_text,
    flipped,
    rank_text,
    rankings,
    scopes,
    sentence,
    unit_of,
    value_text,
)
from leakbench.reports.vocabulary import Vocabulary

WORDS = Vocabulary(declared().values())


def test_the_least_leaks_come_first_and_ties_share_ranks() -> None:
    (found,) = rankings(three())
    assert [(one.rank, one.label, one.index) for one in found.ranked] == [
        ("1", "low", ".20 [.10, .30]"),
        ("2–3", "mid", ".60 [.50, .70]"),
        ("2–3", "high", ".70 [.60, .80]"),
    ]
    assert [(one.label, one.why, one.chip) for one in found.unranked] == [
        ("open", "no attack was valid on it", "inconclusive")
    ]
    assert found.answer == "low leaks least: significantly less than each of the others."


def test_each_line_says_how_it_stands_against_the_first() -> None:
    (found,) = rankings(three())
    assert [(one.against, one.than, one.difference) for one in found.ranked[1:]] == [
        ("leaks more", "than low", "+.40 [+.30, +.50]"),
        ("leaks more", "than low", "+.50 [+.40, +.60]"),
    ]
    assert found.ranked[0].against == found.ranked[0].difference == ""
    (tied,) = rankings(comparison([defense("a", (1, 2)), defense("b", (1, 2))], [pair("a", "b")]))
    assert (tied.ranked[1].against, tied.ranked[1].than) == ("not distinguishable", "from a")


def test_a_mark_lies_where_its_index_does() -> None:
    (found,) = rankings(three())
    marks = [one.mark for one in found.ranked]
    assert [mark and mark.centre for mark in marks] == ["20.60%", "59.80%", "69.60%"]
    assert marks[0] and (marks[0].low, marks[0].high) == ("10.80%", "30.40%")


@pytest.mark.parametrize(
    ("ranks", "relations", "answer"),
    [
        ({"a": (1, 1), "b": (2, 2)}, ["less"], "a leaks least: significantly less than the other."),
        ({"a": (1, 2), "b": (1, 2)}, [""], "By the leakage index none of the 2 leaks significantly less than another."),
        (
            {"a": (1, 2), "b": (1, 3), "c": (2, 3)},
            ["", "less", ""],
            "a and b leak least and are not distinguishable; c leaks significantly more than at least one of these.",
        ),
        (
            {"a": (1, 1), "b": (2, 3), "c": (2, 3)},
            ["less", "", ""],
            "a leaks least: significantly less than 1 of 2 others.",
        ),
        ({"a": (1, 1)}, [], "Only a has a rank."),
        ({"a": (1, 2), "b": (1, 2)}, ["not tested"], "No two of them could be tested: their ranks say nothing."),
        (
            {"a": (1, 3), "b": (1, 3), "c": (1, 3)},
            ["", "not tested", "not tested"],
            "By the leakage index none of the 3 leaks significantly less than another. Of 3 pairs 2 were not tested.",
        ),
        ({}, [], "No defence has a rank."),
    ],
)
def test_the_answer_says_which_leaks_least_and_whether_that_is_sure(
    ranks: dict[str, tuple[int, int]], relations: list[str], answer: str
) -> None:
    names = list(ranks)
    couples = [(a, b) for at, a in enumerate(names) for b in names[at + 1 :]]
    pairs = [pair(a, b, how or "not distinguishable") for (a, b), how in zip(couples, relations, strict=True)]
    # one that leaks and lost too much accuracy has no rank, and is compared
    pairs += [pair(name, "lost", "less") for name in names]
    defenses = [*(defense(name, rank) for name, rank in ranks.items()), defense("open", None), defense("lost", None)]
    assert rankings(comparison(defenses, pairs))[0].answer == answer


def test_of_many_the_answer_gives_the_number() -> None:
    names = "abcdefghij"
    defenses = [defense(name, (1, 10) if name < "f" else (2, 10)) for name in names]
    found = rankings(comparison(defenses, [pair("a", name, "less") for name in names[5:]]))[0].answer
    assert found.startswith("5 of the 10 leak least") and "the other 5 leak significantly more" in found


def test_ranks_that_no_pair_stands_for_are_called_so() -> None:
    made = comparison([defense("a", (1, 2)), defense("b", (1, 2))], [pair("a", "b", "less", marks=["other data"])])
    assert rankings(made)[0].answer == "No rank says anything: these runs should not be compared."


@pytest.mark.parametrize(
    ("relations", "text"),
    [
        ([""], "0 of 1 pair differs significantly"),
        (["less"], "1 of 1 pair differs significantly"),
        (["less", "", ""], "1 of 3 pairs differs significantly"),
        (["less", "more", ""], "2 of 3 pairs differ significantly"),
        (["", "", ""], "0 of 3 pairs differ significantly"),
    ],
)
def test_how_many_differ(relations: list[str], text: str) -> None:
    assert apart_text([pair("a", "b", how or "not distinguishable") for how in relations]) == text


def test_pairs_that_should_not_be_compared_are_not_counted_as_different() -> None:
    forced = [pair("a", "b", "less"), *(pair("a", name, "less", marks=["other models"]) for name in "cd")]
    said = "2 were not tested or should not be compared"
    assert apart_text(forced) == f"1 of 3 pairs differs significantly, {said}"
    (found,) = rankings(comparison([defense(name) for name in "abcd"], forced))
    assert f"Of 3 pairs {said}." in found.answer and said in found.note


def test_one_seed_is_said_to_be_one_network() -> None:
    one, several = (
        comparison([defense("a", (1, 2), seeds=seeds), defense("b", (1, 2), seeds=seeds)], [pair("a", "b")])
        for seeds in ([0], [0, 1, 2])
    )
    assert "One seed is one network" in rankings(one)[0].note
    assert "One seed" not in rankings(several)[0].note


def test_lines_bear_the_numbers_of_what_forbids_their_pairs() -> None:
    (found,) = rankings(forced())
    assert {one.label: one.obstacles for one in found.ranked} == {"a": (1, 2), "b": (1, 2), "c": (1, 2)}
    (found,) = rankings(three())
    assert not any(one.obstacles for one in (*found.ranked, *found.unranked))


def test_what_nothing_attacked_is_not_counted_among_the_attacked() -> None:
    spared = defense("spared", None, attacks=[], outcome=None, unranked="no attack on classes was run on it")
    (found,) = rankings(comparison([defense("a"), spared, defense("open", None)]))
    assert [one.label for one in found.unranked] == ["spared", "open"]
    assert [one.label for one in found.open] == ["open"] and found.attacked == 2


def test_a_terminal_says_a_reason_once(capsys: pytest.CaptureFixture[str]) -> None:
    def said(*numbers: int) -> list[str]:
        swept = [defense(f"T{n}", None, attacks=[], outcome=None, unranked="nothing attacked it") for n in numbers]
        print_rankings(comparison([defense("a"), defense("open", None), *swept]))
        return capsys.readouterr().out.partition("without a rank on digits:\n")[2].splitlines()

    assert said(1) == ["  open: no attack was valid on it", "  T1: nothing attacked it"]
    assert said(*range(5))[1:] == ["  T0, T1, T2, T3, T4, each: nothing attacked it"]
    assert said(*range(106))[1:] == ["  T0, T1, T2, T3 and 102 more, each: nothing attacked it"]


def test_data_sets_are_ranked_apart_but_where_pairs_cross() -> None:
    defenses = [defense("a"), defense("b", dataset="mnist")]
    assert [found.dataset for found in rankings(comparison(defenses))] == ["digits", "mnist"]
    crossed = comparison(defenses, [pair("a", "b", marks=["other data"])], obstacles=["other data"])
    (scope,) = scopes(crossed)
    assert scope.dataset == "digits, mnist" and len(scope.defenses) == 2


def test_a_pair_turned_twice_is_itself() -> None:
    made = pair("a", "b", "less", -0.3, low=-0.5, high=None)
    turned = flipped(made)
    assert (turned.first, turned.relation, turned.value, turned.low, turned.high) == ("b", "more", 0.3, None, 0.5)
    assert flipped(turned) == made


@pytest.mark.parametrize(
    ("made", "text", "difference"),
    [
        (pair("a", "b", "less", -0.3), "a leaks less than b", "−.30 [−.40, −.20]"),
        (pair("a", "b", value=0.0, low=None, high=None), "a and b are not distinguishable", ".00"),
        (pair("a", "b", "more", 0.04, quantity="accuracy"), "a is more accurate than b", "+.04 [−.06, +.14]"),
        # as many decimals as keep 0 outside of what does not hold it
        (
            pair("a", "b", "more", 0.0042, quantity="accuracy", low=0.0012, high=0.0072),
            "a is more accurate than b",
            "+.004 [+.001, +.007]",
        ),
        (
            pair("a", "b", "more", 0.0038, quantity="accuracy", low=0.0004, high=0.0072),
            "a is more accurate than b",
            "+.0038 [+.0004, +.0072]",
        ),
        (
            pair("a", "b", "not tested", 1.5, quantity="energy_ratio_int32", low=None, high=None),
            "a and b: not tested",
            "+1.50×",
        ),
    ],
)
def test_differences_in_words(made: Pair, text: str, difference: str) -> None:
    assert (sentence(made), difference_text(made, unit_of(made.quantity, WORDS))) == (text, difference)


def test_ranks_in_words() -> None:
    assert [rank_text(rank) for rank in ((1, 1), (1, 3), None)] == ["1", "1–3", "–"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Value(metric="accuracy", value=0.97, low=0.9, high=1.04, n=2), ".97 [.90, 1.00]"),
        (Value(metric="seconds", value=3.0, low=-1.0, high=7.0, n=2), "3.00 [0.00, 7.00]"),
        (Value(metric="accuracy_drop", value=-0.01, low=-0.03, high=0.01, n=200), "-.01 [-.03, .01]"),
        (None, "–"),
    ],
)
def test_a_value_keeps_within_what_it_can_be(value: Value | None, text: str) -> None:
    assert value_text(value, WORDS) == text


# --- in the report ---------------------------------------------------------------------------------------------------

HITS = {"worse": [9] * 9 + [8], "better": [2, 1, 1, 2, 1, 1, 2, 1, 1, 1], "bad": [9, 9, 8, 9, 9, 9, 9, 9, 9, 9]}


@pytest.mark.slow
def test_the_report_ranks_what_it_attacked(tmp_path: Path) -> None:
    found = page(measured(HITS), tmp_path)
    assert "better leaks least: significantly less than each of the others." in found.text
    assert found.text.index("better leaks least") < found.text.index("attack0 draws it")  # above the cards
    assert re.search(r"1 better leaks .* 2–3 (worse|bad) leaks .* 2–3 (worse|bad) leaks", found.text)


@pytest.mark.slow
def test_lines_of_the_ranking_lead_to_the_cards(tmp_path: Path) -> None:
    found = page(measured(HITS), tmp_path)
    links = [a["href"] for tag, a in found.tags if tag == "a" and a.get("href", "").startswith("#verdict-")]
    cards = {a["id"]: a["class"] for tag, a in found.tags if tag == "article"}
    assert set(links) == {f"#{name}" for name in cards} and len(links) == 3
    # the cards keep the run's order, the ranking has its own
    assert links[0] == "#verdict-1-2"


@pytest.mark.slow
def test_two_models_of_a_data_set_have_cards_of_their_own(tmp_path: Path) -> None:
    made = measured({"a": [9] * 10, "b": [2] * 10}, (0,))
    other = made.model_copy(
        update={
            name: [*getattr(made, name), *(one.model_copy(update={"model": "other"}) for one in getattr(made, name))]
            for name in ("cells", "rows", "verdicts")
        }
    )
    found = page(other, tmp_path)
    links = [a["href"] for tag, a in found.tags if tag == "a" and a.get("href", "").startswith("#verdict-")]
    assert sorted(links) == ["#verdict-1-1", "#verdict-1-2", "#verdict-2-1", "#verdict-2-2"]


@pytest.mark.parametrize(
    "made",
    [
        small(),
        measured({"a": [9] * 10}),
        record([cell("a", values=[plain("accuracy", 0.9)]), cell("b", "x", values=judged(70, 60.0))]),
    ],
    ids=["one and its controls", "one", "one attacked of two"],
)
def test_one_defence_is_not_ranked(tmp_path: Path, made: RunRecord) -> None:
    assert "ranks" not in {a.get("class") for _, a in page(made, tmp_path).tags}


def test_an_inconclusive_one_stands_apart_with_its_reason(tmp_path: Path) -> None:
    made = measured(HITS)
    why = "Every attack failed its gates."
    worse = [verdict("worse", "inconclusive", attack="", index=None, reason=why, comparable=False), *made.verdicts[1:]]
    rows = [row("worse", "attack0", index(0.8), validity="invalid"), *made.rows[1:]]
    found = page(made.model_copy(update={"verdicts": worse, "rows": rows}), tmp_path)
    assert re.search(rf"Without a rank – worse inconclusive {re.escape(why)}", found.text)
    assert "better leaks least: significantly less than the other." in found.text


def test_a_real_comparison_ranks_as_a_run_does() -> None:
    (found,) = rankings(compare({"one": measured(HITS)}))
    assert [one.rank for one in found.ranked] == ["1", "2–3", "2–3"] and found.ranked[0].label == "better"
    assert found.ranked[1].against == "leaks more"


def test_an_attack_names_the_worst_case() -> None:
    made = comparison([defense("a", attacks=[attacked("x"), attacked("y", 0.9)], attack="y"), defense("b", (1, 1))])
    assert [one.attack for one in rankings(made)[0].ranked] == ["y", "inversion"]
