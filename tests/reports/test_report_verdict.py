from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from realistic_samples import realistic
from report_page import page
from report_samples import cell, index, judged, record, row, scale, small, verdict

from leakbench.records import RunRecord
from leakbench.reports.summary import groups
from leakbench.reports.verdict import CHIPS, Card, cards


def drawn(made: RunRecord) -> Card:
    (group,) = groups(made)
    (only,) = cards(group, made)
    return only


def run(*, verdicts: list[Any], rows: list[Any], **given: Any) -> RunRecord:
    places = dict.fromkeys((found.defense, found.attack, found.control) for found in rows)
    cells = [
        cell(defense, attack, control=control, values=judged(50, 60.0))
        for defense, attack, control in places
        if (defense, attack) not in given.get("without", [])
    ]
    return record([*cells, *given.get("cells", [])], verdicts=verdicts, rows=rows, scales=given.get("scales", []))


@pytest.mark.parametrize(
    ("outcome", "words", "tone"),
    [("leaks", "leaks", "leaks"), ("resists", "resists these attacks", "quiet"), ("inconclusive",) * 2 + ("silent",)],
)
def test_a_card_says_what_the_run_concluded(outcome: str, words: str, tone: str) -> None:
    found = verdict("d", outcome, "a", index=index(0.831, 0.1), reason="by a, in words")
    card = drawn(run(verdicts=[found], rows=[row("d", "a", index(0.2))]))
    assert (card.defense, card.chip, card.tone) == ("d", words, tone)
    # the verdict's own index, not one that was worked out from the rows
    assert (card.index, card.attack, card.reason) == (".83 [.73, .93]", "a", "by a, in words")


def test_a_card_has_a_line_on_members_where_both_kinds_were_asked(tmp_path: Path) -> None:
    classes = verdict("d", "inconclusive", "a", index=index(0.2))
    on_members = verdict("d", "leaks", "lira", reason="lira finds members").model_copy(update={"leakage": "membership"})
    made = run(verdicts=[classes, on_members], rows=[row("d", "a", index(0.2))])
    assert "Members: leaks: lira finds members" in page(made, tmp_path).text
    alone = made.model_copy(update={"verdicts": [classes]})
    assert "Members:" not in page(alone, tmp_path).text


def test_a_card_says_what_is_missing_and_what_would_tell_more(tmp_path: Path) -> None:
    missing = ["a: decoys suspected (G7: because)", "2 networks: too few"]
    given = {
        "missing": missing,
        "settle": "--seeds 4",
        "networks": 2,
        "p": 0.25,
        "classes": [0, 1],
        "notes": ["so few"],
    }
    made = run(
        verdicts=[verdict("d", "inconclusive", "a", **given, comparable=False)], rows=[row("d", "a", index(0.2))]
    )
    card = drawn(made)
    command = f"{made.command} --seeds 4"
    assert (card.conclusion, card.missing) == ("No conclusion: decoys suspected (a).", ("2 networks: too few",))
    assert (card.settle, card.settles, card.p, card.networks) == (command, False, ".250", 2)
    text = page(made, tmp_path).text
    assert f"To know more: {command}" in text and "So few." in text and all(reason in text for reason in missing)
    assert "p = .250 that no class leaks, all attacks on 2 networks together." in text


def test_a_long_command_is_folded(tmp_path: Path) -> None:
    """It would push the pictures off the screen, once a card."""
    long = "leakbench run -d d " + " ".join(f"--set a.parameter{number}=1" for number in range(9))
    found = verdict("d", "inconclusive", "a", settle="--seeds 4")
    made = run(verdicts=[found], rows=[row("d", "a", index(0.2))])
    text = page(made.model_copy(update={"command": long}), tmp_path).text
    assert "To settle it: this run again with --seeds 4" in text and f"{long} --seeds 4" in text


@pytest.mark.parametrize(
    ("headlines", "said", "unsaid"),
    [
        (("judge_accuracy",), "classify as the target class.", "none of these"),
        (("open_set_accuracy",), "do not answer “none of these” to.", "the answer has to be a class"),
        (("open_set_accuracy", "judge_accuracy"), "On y · vgg-small the answer has to be a class.", "On x"),
    ],
)
def test_the_note_says_what_the_index_compares(
    headlines: tuple[str, ...], said: str, unsaid: str, tmp_path: Path
) -> None:
    places = dict(zip("xy", headlines, strict=False))
    cells = [cell("d", "a", dataset=name, values=judged(50, 60.0)) for name in places]
    rows = [row("d", "a", index(0.5, metric=metric), dataset=name) for name, metric in places.items()]
    text = page(record(cells, rows=rows), tmp_path).text
    note = text[text.index("All attacks together decide") : text.index("may not resist others")]
    assert said in note and unsaid not in note


def test_every_outcome_has_words_of_its_own() -> None:
    assert set(CHIPS) == {"leaks", "resists", "inconclusive"}
    assert len({words for words, _ in CHIPS.values()}) == 3


def test_without_a_worst_case_there_is_no_number() -> None:
    found = verdict("d", "inconclusive", "", index=None, reason="no attack is valid")
    card = drawn(run(verdicts=[found], rows=[row("d", "a", index(0.9), validity="invalid")]))
    assert (card.index, card.attack, card.levels) == ("", "", ())
    assert [attempt.worst for attempt in card.attempts] == [False]


def test_the_index_stands_between_the_fresh_draws_of_the_anchors() -> None:
    rows = [
        row(name, "a", index(value)) for name, value in (("d", 0.7), ("ann", 0.75), ("han2020", 0.72), ("random", 0.1))
    ]
    card = drawn(run(verdicts=[verdict("d", attack="a", index=index(0.7))], rows=rows, scales=[scale()]))
    assert [(level.label, level.role, level.text) for level in card.levels] == [
        ("real images", "anchor", ".99 [.94, 1.00]"),
        ("unprotected ANN", "control", ".75 [.65, .85]"),
        ("unprotected conversion", "control", ".72 [.62, .82]"),
        ("d", "defense", ".70 [.60, .80]"),
        ("untrained network", "control", ".10 [.00, .20]"),
        ("noise images", "anchor", ".02 [.00, .07]"),
    ]
    mark = card.levels[3].mark
    assert [float(text.rstrip("%")) for text in astuple(mark)] == pytest.approx(
        [1 + 98 * x for x in (0.7, 0.6, 0.8)], abs=0.01
    )


def test_the_levels_are_of_the_verdicts_attack() -> None:
    rows = [row(name, attack, index(value)) for name in ("d", "ann") for attack, value in (("a", 0.2), ("b", 0.6))]
    card = drawn(run(verdicts=[verdict("d", attack="b", index=index(0.6))], rows=rows))
    assert [level.text[:3] for level in card.levels] == [".60", ".60"]


def test_an_index_without_an_interval_is_a_dot() -> None:
    card = drawn(run(verdicts=[verdict("d", attack="a", index=index(1.0, low=None, high=None))], rows=[row("d", "a")]))
    (level,) = card.levels
    assert astuple(level.mark) == ("99.00%",) * 3 and level.text == "1.00"


def test_every_attack_has_a_line_with_its_validity_kes_and_cost() -> None:
    rows = [
        row("d", "a", index(0.7), index(0.3, metric="kes"), p=0.00004, gradient_steps=1200, queries=64, seconds=12.34),
        row("d", "b", index(0.9), validity="optimisation failure", leaks=False, p=0.25),
        row("d", "c", index(None), validity="invalid", leaks=False, p=None),
    ]
    gaps = [cell("d", "e", status="failed"), cell("d", "f", status="not-applicable"), cell("d", "g")]
    gaps.append(cell("d", "h", status="no-signal", reason="zero gradients: of all 40 images"))
    card = drawn(run(verdicts=[verdict("d", attack="a")], rows=rows, cells=gaps))
    assert [astuple(attempt) for attempt in card.attempts] == [
        ("a", True, "valid", True, "yes", ".70 [.60, .80]", "<.001", ".30 [.20, .40]", ("1,200", "64", "12.3")),
        ("b", False, "optimisation failure", False, "no", ".90 [.80, 1.00]", ".250", "–", ("300", "0", "2.50")),
        ("c", False, "invalid", False, "no", "–", "–", "–", ("300", "0", "2.50")),
        *(
            (attack, False, why, False, *["–"] * 4, ("–",) * 3)
            for attack, why in (("e", "failed"), ("f", "not applicable"), ("g", "not judged"), ("h", "no signal"))
        ),
    ]


def test_controls_have_no_card_and_a_missing_verdict_is_said() -> None:
    made = record([cell("d", "a"), cell("ann", "a", control=True)])
    card = drawn(made)
    assert (card.defense, card.chip, card.tone) == ("d", "no verdict", "silent")


def test_a_defence_that_could_not_be_built_says_why_in_a_line() -> None:
    gone = {"status": "not-applicable", "reason": "no batch norm"}
    made = record([cell("d", **gone), cell("d", "a", **gone)], verdicts=[verdict("d", "inconclusive", "", index=None)])
    card = drawn(made)
    assert (card.chip, card.reason, card.attempts) == (
        "inconclusive",
        "There was nothing to attack: not applicable: no batch norm.",
        (),
    )


def test_verdicts_stand_with_their_own_data_set() -> None:
    cells = [cell("d", "a", dataset=name) for name in ("x", "y")]
    verdicts = [
        verdict("d", outcome, "a", dataset=name, index=None) for name, outcome in (("x", "leaks"), ("y", "resists"))
    ]
    made = record(cells, verdicts=verdicts)
    found = [[card.chip for card in cards(group, made)] for group in groups(made)]
    assert found == [["leaks"], ["resists these attacks"]]


@pytest.mark.parametrize("outcome", ["leaks", "resists", "inconclusive"])
def test_no_verdict_gives_a_clean_bill(outcome: str, tmp_path: Path) -> None:
    made = small().model_copy(update={"verdicts": [verdict("privatesnn", outcome)]})
    words = page(made, tmp_path).text.lower()
    assert not {"robust", "secure", "safe"} & set(words.replace(",", " ").replace(".", " ").split())


def test_the_page_leads_with_the_verdicts(tmp_path: Path) -> None:
    found = page(realistic(tmp_path), tmp_path)
    order = [a["id"] for tag, a in found.tags if tag == "section"]
    assert order[:4] == ["verdicts", "flags", "wall", "tradeoff"]
    articles = [a["class"] for tag, a in found.tags if tag == "article"]
    assert articles == ["card leaks"] * 3 + ["card quiet"]
    for part in (
        "Leakage index .70 [.59, .81] by inversion.",
        "resists these attacks",
        "inversion worst case valid",
    ):
        assert part in found.text
