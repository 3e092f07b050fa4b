from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from realistic_samples import realistic
from report_page import HOSTILE, Page, page
from report_samples import (
    DATASET,
    anchor,
    by_class,
    calibration,
    cell,
    index,
    judged,
    record,
    row,
    scores,
    share,
    small,
    verdict,
)

from leakbench.records import AttackRow, CellRecord, ClassScore, DatasetInfo, RunRecord
from leakbench.reports.by_class import MAX_CLASSES, OPEN_ROWS, WORST_CLASSES, ClassTable, class_tables
from leakbench.reports.html import render
from leakbench.reports.summary import groups


def described(*names: str) -> DatasetInfo:
    return DatasetInfo(
        name=DATASET,
        classes=list(names),
        train_images=1,
        test_images=1,
        channels=1,
        height=8,
        width=8,
        source="x",
        fingerprint="x",
    )


Scored = tuple[CellRecord, AttackRow]


def run(found: list[Scored | CellRecord], **given: Any) -> RunRecord:
    cells = [one if isinstance(one, CellRecord) else one[0] for one in found]
    rows = [one[1] for one in found if not isinstance(one, CellRecord)]
    return record(cells, rows=rows, **given)


def tables(found: list[Scored | CellRecord], **given: Any) -> list[ClassTable]:
    made = run(found, **given)
    (group,) = groups(made)
    return class_tables(made, group)


def scored(defense: str, attack: str, *values: float | None, validity: str = "valid") -> Scored:
    """A cell and its row with the index of the classes 0, 1, ...; 4 of 10 images are recognised everywhere."""
    control = defense in ("ann", "random")
    apart = by_class(*values, null="noise")
    return (
        cell(defense, attack, classes=scores(*[4] * len(values)), control=control),
        row(defense, attack, apart, validity=validity),
    )


def labels(table: ClassTable) -> list[str]:
    return [row.label for row in table.table.rows]


def marked(table: ClassTable) -> dict[str, list[str]]:
    """The columns marked as worst, row by row."""
    rows = (*table.table.rows, *table.table.anchors)
    return {
        row.label: [name for name, c in zip(table.table.columns, row.cells, strict=True) if c.worst] for row in rows
    }


def test_an_attack_has_a_table_with_what_was_asked_for_first() -> None:
    found = tables(
        [
            scored("ann", "a", 0.9, 0.1),
            scored("d", "a", 0.2, 0.8),
            scored("d", "b", 0.5, 0.4),
            scored("e", "a", 0, 0.1),
            anchor("real", classes=scores(10, 9)),
            anchor("noise", classes=scores(1, 0)),
        ],
        datasets=[described("cat", "dog")],
    )
    first, second = found
    assert (first.attack, second.attack) == ("a", "b")
    assert first.table.columns == ("cat", "dog")
    assert labels(first) == ["d", "e", "ann"] and labels(second) == ["d"]
    assert [row.control for row in first.table.rows] == [False, False, True]
    for made in found:
        assert [row.label for row in made.table.anchors] == ["noise images", "real images"]
        # an anchor has no index: it is what 0 and 1 are made of
        assert [c.text for c in made.table.anchors[1].cells] == ["accuracy: 1.00 n=10", "accuracy: .90 n=10"]


@pytest.mark.parametrize(("value", "level"), [(0.0, 0), (0.84, 8), (1.0, 9)])
def test_a_cell_holds_the_index_its_interval_and_what_the_judges_named(value: float, level: int) -> None:
    (found,) = tables([scored("d", "a", value)])
    (only,) = found.table.rows[0].cells
    ends = [f"{end:.2f}".replace("0.", ".", 1) for end in (value, max(0, value - 0.2), min(1, value + 0.2))]
    assert only.text == f"{ends[0]} [{ends[1]}, {ends[2]}]; accuracy: .40 n=10"
    assert only.level == level and float(only.sort) == value and only.full == "0 is noise images"


def test_a_class_without_a_scale_has_a_dash_and_its_share() -> None:
    (found,) = tables([scored("d", "a", None, 0.5)])
    gap, told = found.table.rows[0].cells
    assert gap.text == "–; accuracy: .40 n=10" and (gap.level, gap.sort, gap.worst) == (None, "", False)
    assert gap.full.startswith("no scale") and told.text.startswith(".50 ")
    assert found.worst == "d, class 1, .50 [.30, .70]"


def test_without_any_index_the_shares_are_still_there() -> None:
    (found,) = tables([cell("d", "a", classes=scores(7, 2))])
    assert [c.text for c in found.table.rows[0].cells] == ["accuracy: .70 n=10", "accuracy: .20 n=10"]
    assert found.worst == "" and all(c.level is None for c in found.table.rows[0].cells)
    many = cell("d", "a", classes=scores(*[1] * 200))
    (found,) = tables([many])
    assert len(found.table.columns) == WORST_CLASSES and found.total == 200


def test_the_class_that_leaks_most_is_marked_for_each_defence_and_no_anchor() -> None:
    (found,) = tables(
        [
            scored("d", "a", 0.2, 0.8, 0.3),
            scored("e", "a", 0.7, 0.7, 0.3),
            scored("ann", "a", 0.1, 0.2, 0.9),
            scored("even", "a", 0, 0, 0),
            scored("void", "a", 0, 1, 0, validity="invalid"),
            anchor("noise", classes=scores(0, 10, 0)),
        ]
    )
    assert marked(found) == {
        "d": ["class 1"],
        "e": ["class 0", "class 1"],
        "ann": ["class 2"],
        "even": [],
        "void": [],
        "noise images": [],
    }
    assert found.worst == "d, class 1, .80 [.60, 1.00]"


def test_a_row_that_is_not_valid_says_so_and_has_no_colour() -> None:
    (found,) = tables([scored("d", "a", 0.9, 0.1, validity="gradient masking suspected")])
    (only,) = found.table.rows
    assert only.invalid == "masking suspected" and [c.level for c in only.cells] == [None, None]
    assert found.worst == ""


def test_a_control_is_the_worst_only_where_nothing_else_was_scored() -> None:
    control = scored("ann", "a", 0.9, 0.9, 0.1)
    (found,) = tables([scored("d", "a", 0.1, 0.2, 0.1), control])
    assert found.worst.startswith("d, class 1, .20 ")
    (found,) = tables([cell("d", "a", status="failed"), control])
    assert found.worst.startswith("ann, class 0 and 1 more, .90 ")


@pytest.mark.parametrize("seeds", [(0, 1), (3, 1, 2)])
def test_the_shares_of_several_seeds_are_averaged_and_each_is_told(seeds: tuple[int, ...]) -> None:
    cells = [cell("d", "a", seed=seed, classes=scores(2 * seed, 5)) for seed in seeds]
    made = record(cells, rows=[row("d", "a", by_class(0.3, 0.6))])
    (group,) = groups(made)
    (found,) = class_tables(made, group)
    varied, _ = found.table.rows[0].cells
    mean = f"{sum(seeds) / len(seeds) / 5:.2f}"[1:]
    index_line, judges = varied.lines
    assert (index_line.value, index_line.bounds) == (".30", "[.10, .50]")
    assert (judges.value, judges.bounds, judges.n) == (mean, "", f"n={len(seeds)}×10")
    for seed in seeds:
        assert f"seed {seed}: accuracy {seed / 5:.2f}".replace("0.", ".") + " n=10" in varied.full


def test_sizes_that_differ_between_seeds_are_both_named() -> None:
    cells = [cell("d", "a", seed=n, classes=scores(n, n=n)) for n in (7, 9)]
    (found,) = tables([*cells])
    assert found.table.rows[0].cells[0].lines[0].n == "n=2×7–9"


def test_gaps_say_why() -> None:
    (found,) = tables(
        [
            scored("d", "a", 0.2, 0.5),
            cell("e", "a", status="failed"),
            cell("f", "a", status="not-applicable"),
            cell("g", "a", values=judged(70, 60.0)),
            scored("h", "a", 0.4),
        ]
    )
    assert [[c.missing for c in row.cells] for row in found.table.rows] == [
        ["", ""],
        ["failed", "failed"],
        ["n/a", "n/a"],
        ["–", "–"],
        ["", "–"],
    ]


@pytest.mark.parametrize(("value", "n"), [(0.0, 0), (1.5, 2), (-0.1, 2), (0.5, -1), (float("nan"), 2)])
def test_what_is_no_share_is_left_out(value: float, n: int, tmp_path: Path) -> None:
    broken = [
        ClassScore(metric="judge_accuracy", target=0, value=value, n=n),
        ClassScore(metric="judge_accuracy", target=1, value=0.5, n=2),
    ]
    cells = [cell("d", "a", classes=broken), cell("e", "a", classes=scores(1, 2))]
    (found,) = tables([*cells])
    assert [c.missing for c in found.table.rows[0].cells] == ["–", ""]
    page(record(cells), tmp_path)
    assert tables([cell("d", "a", classes=broken[:1])]) == []


def test_other_metrics_by_class_are_not_mixed_in() -> None:
    classes = [ClassScore(metric="knn_distance", target=0, value=0.5, n=2), *scores(3)]
    (found,) = tables([cell("d", "a", classes=classes)])
    assert [c.text for c in found.table.rows[0].cells] == ["accuracy: .30 n=10"]


# --- many classes


def many(defenses: int, classes: int = 200, seed: int = 0) -> list[Scored]:
    generator = np.random.default_rng(seed)
    names = ("ann", *(f"d{number}" for number in range(1, defenses)))
    return [scored(name, "a", *(generator.integers(0, 11, classes) / 10).tolist()) for name in names]


@pytest.mark.parametrize(("classes", "shown"), [(2, 2), (MAX_CLASSES, 20), (MAX_CLASSES + 1, 10), (200, 10)])
def test_too_many_classes_are_cut_to_the_worst(classes: int, shown: int) -> None:
    (found,) = tables([*many(3, classes)])
    assert (len(found.table.columns), found.total) == (shown, classes)
    assert all(len(row.cells) == shown for row in found.table.rows)


def test_one_defences_worst_classes_are_its_highest() -> None:
    values = np.random.default_rng(3).permutation(200) / 200
    (found,) = tables([scored("d", "a", *values.tolist())])
    expected = sorted(np.argsort(values)[-WORST_CLASSES:].tolist())
    assert found.table.columns == tuple(f"class {target}" for target in expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_worst_class_of_every_defence_asked_for_is_shown(seed: int) -> None:
    quiet = [0.0] * 200
    quiet[150 + seed] = 0.1  # the loud rows alone would fill all columns
    (found,) = tables([*many(WORST_CLASSES, seed=seed), scored("quiet", "a", *quiet)])
    marks = marked(found)
    assert len(marks) == WORST_CLASSES + 1
    assert all(names for label, names in marks.items() if label != "ann")
    assert marks["quiet"] == [f"class {150 + seed}"]


def test_a_class_that_is_not_shown_keeps_the_mark_from_the_others() -> None:
    asked, control = [0.0] * 30, [0.0] * 30
    asked[:WORST_CLASSES] = [0.9] * WORST_CLASSES
    control[5], control[29] = 0.3, 0.8
    (found,) = tables([scored("d", "a", *asked), scored("ann", "a", *control)])
    assert "class 29" not in found.table.columns and "class 5" in found.table.columns
    assert marked(found)["ann"] == []


# --- the page


def section(found: Page) -> list[tuple[str, dict[str, str]]]:
    """The tags of the part on classes."""
    start = next(i for i, (tag, a) in enumerate(found.tags) if tag == "section" and a.get("id") == "classes")
    end = next(i for i, (tag, _) in enumerate(found.tags) if tag == "section" and i > start)
    return found.tags[start:end]


@pytest.mark.parametrize(
    "made",
    [small(), record([]), record([anchor("noise", classes=scores(1, 2)), cell("d", "a")])],
    ids=["older", "empty", "anchors alone"],
)
def test_without_scores_of_an_attack_there_is_no_section(made: RunRecord, tmp_path: Path) -> None:
    found = page(made, tmp_path)
    assert "classes" not in {a.get("id") for _, a in found.tags}
    assert "#classes" not in {a.get("href") for _, a in found.tags}
    assert "By class" not in found.text


@pytest.mark.slow
def test_the_section_stands_after_every_metric(tmp_path: Path) -> None:
    found = page(realistic(tmp_path), tmp_path)
    order = [a["id"] for tag, a in found.tags if tag == "section"]
    assert order[order.index("grid") + 1] == "classes"
    assert "#classes" in {a.get("href") for _, a in found.tags}
    inside = section(found)
    headings = [a for tag, a in inside if tag == "table"]
    assert len(headings) == 3 and all("by-class" in a["class"].split() for a in headings)
    # 27 rows: folded, with the worst in the line that stays
    assert [a for tag, a in inside if tag == "details"] == [{"class": "prints folded"}, {}, {}, {}]
    assert "inversion: most from" in found.text and "direct: most from" not in found.text
    outlined = [a for tag, a in inside if tag == "td" and "worst" in a.get("class", "").split()]
    assert outlined and found.text.count("worst of the row") >= len(outlined)


def test_what_is_short_is_open(tmp_path: Path) -> None:
    short: list[Scored | CellRecord] = [scored(f"d{number}", "a", 0.1, 0.2) for number in range(OPEN_ROWS)]
    for found, attributes in ((short, {"open": ""}), ([*short, scored("e", "a", 0.1, 0.2)], {})):
        inside = section(page(run(found), tmp_path))
        assert [a for tag, a in inside if tag == "details"] == [{"class": "prints folded"}, attributes]


def test_anchors_have_a_cell_a_class(tmp_path: Path) -> None:
    made = run([scored("d", "a", 0.1, 0.2, 0.3), anchor("real", classes=scores(9, 9, 9))])
    cells_of_it = [a for tag, a in section(page(made, tmp_path)) if tag == "td"]
    assert len(cells_of_it) == 6 and not any("colspan" in a for a in cells_of_it)


def test_hostile_class_names_stay_text(tmp_path: Path) -> None:
    made = run([scored("d", "a", 0.1, 0.9)], datasets=[described(HOSTILE, f"{HOSTILE}2")])
    text = render(made, tmp_path)
    found = Page(text)
    assert found.open == []
    assert [tag for tag, _ in found.tags].count("script") == 2 and "img" not in {tag for tag, _ in found.tags}
    assert "onerror" not in {key for _, attributes in found.tags for key in attributes}
    # both headings, and the class in the summary
    inside = text.split('id="classes"')[1].split("</section>")[0]
    assert inside.count("&lt;script&gt;alert(") == 3 and "<script" not in inside


def test_two_hundred_classes_are_a_small_part_of_the_page(tmp_path: Path) -> None:
    names = [f"European fire salamander {number}" for number in range(200)]
    found = page(run([*many(8), *calibration()], datasets=[described(*names)]), tmp_path)
    assert "10 of 200 classes" in found.text
    assert sum(tag == "td" for tag, _ in section(found)) == 8 * WORST_CLASSES


def test_every_seed_is_in_the_tooltip_and_for_a_screen_reader(tmp_path: Path) -> None:
    cells = [cell("d", "a", seed=seed, classes=scores(2 + seed, 5)) for seed in (0, 1)]
    found = page(record(cells, rows=[row("d", "a", by_class(0.1, 0.4, null="random"))]), tmp_path)
    titles = [a["title"] for tag, a in section(found) if tag == "td"]
    assert (
        titles[0]
        == "0 is the same attack on an untrained network; seed 0: accuracy .20 n=10; seed 1: accuracy .30 n=10"
    )
    assert f"({titles[0]})" in found.text


@pytest.mark.slow
def test_the_figures_caption_says_that_the_untrained_network_is_left_out(tmp_path: Path) -> None:
    cells = [cell("d", values=[share("accuracy", 90)]), cell("d", "a", values=judged(70, 60.0))]
    verdicts = [verdict("d", index=index(0.5))]
    words = "The untrained network is left out"
    assert words not in page(record(cells, verdicts=verdicts), tmp_path).text
    untrained = cell("random", values=[share("accuracy", 10)], control=True)
    assert words in page(record([*cells, untrained], verdicts=verdicts), tmp_path).text
