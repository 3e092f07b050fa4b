"""What a reader sees first: a title that says the outcome, a sentence, cards with six pictures and a curve."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from compared_runs import attacked, own, run
from PIL import Image
from report_page import HOSTILE, Page
from report_samples import record as record_of
from report_samples import verdict

from leakbench.records import BudgetLeak, CellRecord, Picture, RunRecord, ThreatModel, Verdict
from leakbench.reports import strips
from leakbench.reports.headline import heading
from leakbench.reports.html import render
from leakbench.reports.summary import groups
from leakbench.reports.threats import WIDTH, curve

HIGH, LOW = [0.9] * 10, [0.1] * 10


def title(*verdicts: Verdict) -> str:
    cells = [own(one.defense) for one in verdicts]
    made = run(*cells).model_copy(update={"verdicts": list(verdicts)})
    return heading(made, groups(made))


def concluded(name: str, outcome: str, named: int = 0) -> Verdict:
    fields = {"outcome": outcome, "named": list(range(named)), "classes": list(range(10))}
    return verdict(name, dataset="digits").model_copy(update=fields)


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([("leaks", 10)], "d0 leaks all 10 classes of digits"),
        ([("leaks", 3)], "d0 leaks 3 of 10 classes of digits"),
        ([("leaks", 0)], "d0 leaks classes of digits"),
        ([("resists", 0)], "d0 resists these attacks on digits"),
        ([("inconclusive", 0)], "d0 on digits: no conclusion"),
        ([("leaks", 3), ("leaks", 1)], "All 2 defences leak classes of digits"),
        ([("leaks", 3), ("resists", 0), ("inconclusive", 0)], "1 of 3 defences leak classes of digits"),
        ([("resists", 0), ("inconclusive", 0)], "1 of 2 defences resist these attacks on digits"),
        ([("inconclusive", 0)] * 2, "2 defences on digits: no conclusion"),
    ],
)
def test_the_title_says_the_outcome(outcomes: list[tuple[str, int]], said: str) -> None:
    assert title(*(concluded(f"d{at}", *outcome) for at, outcome in enumerate(outcomes))) == said


def test_a_title_of_several_data_sets_counts_verdicts() -> None:
    verdicts = [concluded("d", "leaks", 3), concluded("d", "inconclusive").model_copy(update={"dataset": "mnist"})]
    made = run(own("d")).model_copy(update={"verdicts": verdicts})
    assert heading(made, groups(made)) == "1 of 2 verdicts on digits: classes leak"


def test_a_title_of_attacks_on_members_alone_is_of_members() -> None:
    verdicts = [concluded(f"d{at}", outcome) for at, outcome in enumerate(("leaks", "inconclusive"))]
    members = [one.model_copy(update={"leakage": "membership", "classes": []}) for one in verdicts]
    assert title(*members) == "1 of 2 defences leak members of digits"
    assert title(members[0]) == "d0 leaks members of digits"
    assert title(members[1]) == "d1 on digits: no conclusion"
    # with attacks on both it is of classes, by which defences are ranked
    assert title(*members, concluded("d2", "leaks", 3)) == "d2 leaks 3 of 10 classes of digits; 1 leaks members"


@pytest.mark.parametrize(
    ("outcome", "named", "said"),
    [
        ("leaks", 10, "d leaks all 10 classes of digits, and members"),
        ("leaks", 0, "d leaks classes of digits, and members"),
        ("resists", 0, "d leaks members of digits; its classes resist these attacks"),
        ("inconclusive", 0, "d leaks members of digits; classes: no conclusion"),
    ],
)
def test_a_title_never_leaves_out_that_members_leak(outcome: str, named: int, said: str) -> None:
    members = concluded("d", "leaks").model_copy(update={"leakage": "membership", "classes": []})
    assert title(concluded("d", outcome, named), members) == said
    several = [concluded(f"d{at}", outcome, named) for at in range(2)]
    assert title(*several, members).endswith("; 1 leaks members")


def picture(folder: Path, name: str, target: int, named: int, accepted: bool | None) -> Picture:
    (folder / "images").mkdir(exist_ok=True)
    Image.new("L", (8, 8), 10 * target).save(folder / "images" / name)
    return Picture(path=f"images/{name}", target=target, named=named, confidence=0.9, accepted=accepted)


def drawn(folder: Path, cell: CellRecord, accepted: bool | None = True) -> CellRecord:
    pictures = [picture(folder, f"{target}.png", target, target if target % 2 else 0, accepted) for target in range(8)]
    return cell.model_copy(update={"pictures": pictures})


def shown(folder: Path, made: RunRecord) -> tuple[str, Page]:
    text = render(made, folder)
    return text, Page(text)


def test_a_card_has_six_pictures_with_what_is_seen_in_them(tmp_path: Path) -> None:
    made = run(own("mine"), drawn(tmp_path, attacked("mine", HIGH)))
    text, page = shown(tmp_path, made)
    card = text.partition("<article")[2].partition("</article>")[0]
    strip = card.partition("drawn by direct")[2].partition("</div>")[0]
    assert strip.count("<img") == 6 and ">untrained<" not in card  # the control's pictures were not kept
    captions = [part.partition("</figcaption>")[0] for part in strip.split("<figcaption")[1:]]
    assert [caption.rpartition(">")[2] for caption in captions] == ["✓ 0", "✓ 1", "0", "✓ 3", "0", "✓ 5"]
    assert page.open == []


def test_a_rejected_picture_has_no_tick_where_it_may_be_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run(own("mine"), drawn(tmp_path, attacked("mine", HIGH), accepted=False))
    for headline, ticks, none in (("open_set_accuracy", 5, 0), ("judge_accuracy", 1, 6)):
        # the run's headline is judge accuracy, whose answer has to be a class; the legend has a tick of its own
        monkeypatch.setattr(strips, "OPEN_SET", headline)
        card = shown(tmp_path, made)[0].partition("<article")[2].partition("</article>")[0]
        assert (card.count("✓"), card.count(">none<")) == (ticks, none)


def test_a_picture_that_may_not_be_read_is_left_out(tmp_path: Path) -> None:
    outside = Picture(path="../secret.png", target=0, named=0, confidence=0.9)
    Image.new("L", (8, 8)).save(tmp_path.parent / "secret.png")
    text, _ = shown(tmp_path, run(own("mine"), attacked("mine", HIGH, pictures=[outside])))
    assert "<img" not in text.partition("<article")[2].partition("</article>")[0]


def test_ranked_defences_have_their_rank_and_a_sentence_on_top(tmp_path: Path) -> None:
    made = run(own("high"), attacked("high", HIGH), own("low"), attacked("low", [*LOW[:-1], 0.9]))
    text, page = shown(tmp_path, made)
    assert "low leaks least: significantly less than the other." in page.text.partition("Cells:")[0]
    assert '<span class="rank">' in text


def test_facts_of_the_defence_stand_on_its_card(tmp_path: Path) -> None:
    text, _ = shown(tmp_path, run(own("mine"), attacked("mine", HIGH)))
    card = text.partition("<article")[2].partition("</article>")[0]
    assert "accuracy .97" in card


def test_sections_that_explain_are_folded_and_printed(tmp_path: Path) -> None:
    _, page = shown(tmp_path, run(own("mine"), attacked("mine", HIGH)))
    inside = ""
    folded = {}
    for tag, attributes in page.tags:
        inside = attributes["id"] if tag == "section" else inside
        if tag == "details" and "folded" in attributes.get("class", ""):
            folded[inside] = attributes["class"]
    assert {"controls", "grid", "classes", "method", "provenance"} <= set(folded)
    assert {"verdicts", "flags", "wall", "tradeoff"} & set(folded) == set()
    assert set(folded.values()) == {"prints folded"}


def test_accuracy_and_cost_come_first_where_nothing_was_attacked(tmp_path: Path) -> None:
    text, page = shown(tmp_path, run(own("mine")))
    order = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert order[:2] == ["verdicts", "defences"]
    assert not {"tradeoff", "budget", "membership", "controls", "grid", "classes", "index"} & set(order)
    assert '<h2 id="defences-h">' in text.partition('id="defences"')[2][:120]
    assert "leakage index" not in page.text


def threatened(*points: tuple[str, float, float]) -> Verdict:
    threats = [
        ThreatModel(access=access, points=[BudgetLeak(cost=cost, attack="a", value=value, low=0.0, high=1.0, n=10)])  # type: ignore[arg-type]
        for access, cost, value in points
    ]
    return verdict("mine").model_copy(update={"threats": threats})


def test_a_curve_rises_at_its_cost_to_its_index_and_ends_where_the_attack_did() -> None:
    found = curve(threatened(("WEIGHTS", 100.0, 0.5)))
    assert found is not None
    (line,) = found.lines
    # half of four decades across, half of the scale up, and a stub
    assert line.path == "M18 84H135.0V47.0H143.0"
    assert found.levels == ((84.0, "0"), (47.0, ".5"), (10.0, "1")) and [text for _, text in found.ticks] == [
        "1",
        "100",
        "10,000",
    ]


def test_costs_beyond_the_ends_stay_within_the_curve() -> None:
    found = curve(threatened(("WEIGHTS", 0.0, 1.0), ("SCORES", 1e12, 0.2)))
    assert found is not None
    numbers = [float(part) for line in found.lines for part in re.findall(r"[0-9.]+", line.path)]
    assert all(0 <= number <= WIDTH for number in numbers)
    heights = sorted(line.y for line in found.lines)
    assert heights[1] - heights[0] >= 9  # names don't lie on each other


@pytest.mark.parametrize("index", [0.0, 0.03, 0.5, 1.0])
def test_names_of_lines_at_one_height_are_apart_and_above_the_axis(index: float) -> None:
    found = curve(threatened(*((access, 10.0, index) for access in ("WEIGHTS", "SCORES", "LABELS"))))
    assert found
    axis = found.levels[0][0]
    heights = [line.y for line in found.lines]
    assert all(below - above >= 9 for above, below in itertools.pairwise(heights))
    assert heights[0] > 0 and heights[-1] < axis


def test_nothing_attacked_has_no_curve() -> None:
    assert curve(verdict("mine")) is None


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    made = run(own(HOSTILE), drawn(tmp_path, attacked(HOSTILE, HIGH).model_copy(update={"defense": HOSTILE})))
    text, page = shown(tmp_path, made.model_copy(update={"protocol": HOSTILE}))
    assert page.open == [] and [tag for tag, _ in page.tags].count("script") == 2
    assert "onerror" not in {key for _, attributes in page.tags for key in attributes}
    assert text.count("&lt;script&gt;alert(") > 3


def test_an_empty_record_has_a_page(tmp_path: Path) -> None:
    text, _ = shown(tmp_path, record_of([]))
    assert "<h1>Leakage report</h1>" in text
