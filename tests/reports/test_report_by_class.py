from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_samples import DATASET, anchor, calibration, cell, judged, realistic, record, scores, share, small, wilson
from test_report_html import HOSTILE, Page, page

from leakbench.bench.records import CellRecord, ClassScore, DatasetInfo, RunRecord
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


def tables(cells: list[CellRecord], **given: Any) -> list[ClassTable]:
    made = record(cells, **given)
    (group,) = groups(made)
    return class_tables(made, group)


def scored(defense: str, attack: str, *hits: int, **given: Any) -> CellRecord:
    return cell(defense, attack, classes=scores(*hits), **given)


def labels(table: ClassTable) -> list[str]:
    return [row.label for row in table.table.rows]


def marked(table: ClassTable) -> dict[str, list[str]]:
    """The columns marked as worst, row by row."""
    rows = (*table.table.rows, *table.table.anchors)
    return {
        row.label: [name for name, c in zip(table.table.columns, row.cells, strict=True) if c.worst] for row in rows
    }


def test_an_attack_has_a_table_with_what_was_asked_for_first() -> None:
    cells = [
        scored("ann", "a", 9, 1, control=True),
        scored("d", "a", 2, 8),
        scored("d", "b", 5, 4),
        scored("e", "a", 0, 1),
        anchor("real", classes=scores(10, 9)),
        anchor("noise", classes=scores(1, 0)),
    ]
    first, second = tables(cells, datasets=[described("cat", "dog")])
    assert (first.attack, second.attack) == ("a", "b")
    assert first.table.columns == ("cat", "dog")
    assert labels(first) == ["d", "e", "ann"] and labels(second) == ["d"]
    assert [row.control for row in first.table.rows] == [False, False, True]
    for found in (first, second):
        assert [row.label for row in found.table.anchors] == ["noise images", "real images"]


@pytest.mark.parametrize(("hits", "n", "level"), [(0, 10, 0), (8, 10, 8), (10, 10, 9), (3, 7, 4), (0, 1, 0), (1, 1, 9)])
def test_a_cell_holds_the_share_wilsons_interval_and_n(hits: int, n: int, level: int) -> None:
    (found,) = tables([cell("d", "a", classes=scores(hits, n=n))])
    (only,) = found.table.rows[0].cells
    (low, high), value = wilson(hits, n), hits / n
    ends = [f"{end:.2f}".replace("0.", ".", 1) for end in (value, low, high)]
    assert only.text == f"{ends[0]} [{ends[1]}, {ends[2]}] n={n}"
    assert only.level == level and float(only.sort) == value and only.full == ""


def test_the_class_that_leaks_most_is_marked_for_each_defence_and_no_anchor() -> None:
    cells = [
        scored("d", "a", 2, 8, 3),
        scored("e", "a", 7, 7, 3),
        scored("ann", "a", 1, 2, 9, control=True),
        scored("even", "a", 0, 0, 0),
        anchor("noise", classes=scores(0, 10, 0)),
    ]
    (found,) = tables(cells)
    assert marked(found) == {
        "d": ["class 1"],
        "e": ["class 0", "class 1"],
        "ann": ["class 2"],
        "even": [],
        "noise images": [],
    }
    assert found.worst == "d, class 1, .80 [.49, .94] n=10"


def test_a_control_is_the_worst_only_where_nothing_else_was_scored() -> None:
    control = scored("ann", "a", 9, 9, 1, control=True)
    (found,) = tables([scored("d", "a", 1, 2, 1), control])
    assert found.worst.startswith("d, class 1, .20 ")
    (found,) = tables([cell("d", "a", status="failed"), control])
    assert found.worst.startswith("ann, class 0 and 1 more, .90 ")


@pytest.mark.parametrize("seeds", [(0, 1), (3, 1, 2)])
def test_several_seeds_are_averaged_and_each_is_told(seeds: tuple[int, ...]) -> None:
    cells = [scored("d", "a", 2 * seed, 5, seed=seed) for seed in seeds]
    (found,) = tables(cells)
    varied, same = found.table.rows[0].cells
    mean = sum(seeds) / len(seeds) / 5
    assert float(varied.sort) == pytest.approx(mean) and float(same.sort) == 0.5
    (line,) = varied.lines
    mean_text, low, high = (f"{share:.2f}"[1:] for share in (mean, min(seeds) / 5, max(seeds) / 5))
    assert (line.value, line.bounds) == (mean_text, f"{low}–{high}")
    assert line.n == f"n={len(seeds)}×10"
    for seed in seeds:
        ends = [f"{end:.2f}"[1:] for end in (seed / 5, *wilson(2 * seed, 10))]
        assert f"seed {seed}: {ends[0]} [{ends[1]}, {ends[2]}] n=10" in varied.full


def test_a_class_that_one_seed_lacks_says_whose_value_it_is() -> None:
    (found,) = tables([scored("d", "a", 2, 5, seed=4), scored("d", "a", 3, seed=5)])
    assert found.table.rows[0].cells[1].lines[0].seed == "seed 4"


def test_sizes_that_differ_between_seeds_are_both_named() -> None:
    cells = [cell("d", "a", seed=n, classes=scores(n, n=n)) for n in (7, 9)]
    (found,) = tables(cells)
    assert found.table.rows[0].cells[0].lines[0].n == "n=2×7–9"


def test_gaps_say_why() -> None:
    cells = [
        scored("d", "a", 2, 5),
        cell("e", "a", status="failed"),
        cell("f", "a", status="not-applicable"),
        cell("g", "a", values=judged(70, 60.0)),
        scored("h", "a", 4),
    ]
    (found,) = tables(cells)
    assert [[c.missing for c in row.cells] for row in found.table.rows] == [
        ["", ""],
        ["failed", "failed"],
        ["n/a", "n/a"],
        ["–", "–"],
        ["", "–"],
    ]


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (3, 2), (-1, 2), (1, -1)])
def test_counts_that_are_no_proportion_leave_a_gap(hits: int, n: int, tmp_path: Path) -> None:
    broken = [ClassScore(target=0, hits=hits, n=n), ClassScore(target=1, hits=1, n=2)]
    cells = [cell("d", "a", classes=broken), scored("e", "a", 1, 2)]
    (found,) = tables(cells)
    assert [c.missing for c in found.table.rows[0].cells] == ["–", ""]
    page(record(cells), tmp_path)
    assert tables([cell("d", "a", classes=broken[:1])]) == []


# --- many classes


def many(defenses: int, classes: int = 200, seed: int = 0) -> list[CellRecord]:
    generator = np.random.default_rng(seed)
    return [
        scored(f"d{number}", "a", *generator.integers(0, 11, classes).tolist(), control=number == 0)
        for number in range(defenses)
    ]


@pytest.mark.parametrize(("classes", "shown"), [(2, 2), (MAX_CLASSES, 20), (MAX_CLASSES + 1, 10), (200, 10)])
def test_too_many_classes_are_cut_to_the_worst(classes: int, shown: int) -> None:
    (found,) = tables(many(3, classes))
    assert (len(found.table.columns), found.of) == (shown, classes)
    assert all(len(row.cells) == shown for row in found.table.rows)


def test_one_defences_worst_classes_are_its_highest() -> None:
    hits = np.random.default_rng(3).permutation(200)
    (found,) = tables([cell("d", "a", classes=scores(*hits.tolist(), n=200))])
    expected = sorted(np.argsort(hits)[-WORST_CLASSES:].tolist())
    assert found.table.columns == tuple(f"class {target}" for target in expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_worst_class_of_every_defence_asked_for_is_shown(seed: int) -> None:
    quiet = [0] * 200
    quiet[150 + seed] = 1  # the loud rows alone would fill all columns
    (found,) = tables([*many(WORST_CLASSES, seed=seed), scored("quiet", "a", *quiet)])
    marks = marked(found)
    assert len(marks) == WORST_CLASSES + 1
    assert all(names for label, names in marks.items() if label != "d0")
    assert marks["quiet"] == [f"class {150 + seed}"]


def test_a_class_that_is_not_shown_keeps_the_mark_from_the_others() -> None:
    asked, control = [0] * 30, [0] * 30
    asked[:WORST_CLASSES] = [9] * WORST_CLASSES
    control[5], control[29] = 3, 8
    (found,) = tables([scored("d", "a", *asked), scored("ann", "a", *control, control=True)])
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


def test_the_section_stands_after_the_images(tmp_path: Path) -> None:
    found = page(realistic(tmp_path), tmp_path)
    order = [a["id"] for tag, a in found.tags if tag == "section"]
    assert order[order.index("wall") + 1] == "classes"
    assert "#classes" in {a.get("href") for _, a in found.tags}
    inside = section(found)
    headings = [a for tag, a in inside if tag == "table"]
    assert len(headings) == 3 and all("by-class" in a["class"].split() for a in headings)
    # 24 rows: folded, with the worst in the line that stays
    assert [a for tag, a in inside if tag == "details"] == [{}] * 3
    assert "inversion: most from" in found.text
    outlined = [a for tag, a in inside if tag == "td" and "worst" in a.get("class", "").split()]
    assert outlined and found.text.count("worst of the row") >= len(outlined)


def test_what_is_short_is_open(tmp_path: Path) -> None:
    short = [scored(f"d{number}", "a", 1, 2) for number in range(OPEN_ROWS)]
    for cells, attributes in ((short, {"open": ""}), ([*short, scored("e", "a", 1, 2)], {})):
        inside = section(page(record(cells), tmp_path))
        assert [a for tag, a in inside if tag == "details"] == [attributes]


def test_anchors_have_a_cell_a_class(tmp_path: Path) -> None:
    cells = [scored("d", "a", 1, 2, 3), anchor("real", classes=scores(9, 9, 9))]
    cells_of_it = [a for tag, a in section(page(record(cells), tmp_path)) if tag == "td"]
    assert len(cells_of_it) == 6 and not any("colspan" in a for a in cells_of_it)


def test_hostile_class_names_stay_text(tmp_path: Path) -> None:
    cells = [scored("d", "a", 1, 9, seed=seed) for seed in (0, 1)]
    text = render(record(cells, datasets=[described(HOSTILE, f"{HOSTILE}2")]), tmp_path)
    found = Page(text)
    assert found.open == []
    assert [tag for tag, _ in found.tags].count("script") == 2 and "img" not in {tag for tag, _ in found.tags}
    assert "onerror" not in {key for _, attributes in found.tags for key in attributes}
    # both headings, and the class in the summary
    inside = text.split('id="classes"')[1].split("</section>")[0]
    assert inside.count("&lt;script&gt;alert(") == 3 and "<script" not in inside


def test_two_hundred_classes_are_a_small_part_of_the_page(tmp_path: Path) -> None:
    names = [f"European fire salamander {number}" for number in range(200)]
    found = page(record([*many(8), *calibration()], datasets=[described(*names)]), tmp_path)
    assert "10 of 200 classes" in found.text
    assert sum(tag == "td" for tag, _ in section(found)) == 8 * WORST_CLASSES


def test_every_seed_is_in_the_tooltip_and_for_a_screen_reader(tmp_path: Path) -> None:
    found = page(record([scored("d", "a", 2 + seed, 5, seed=seed) for seed in (0, 1)]), tmp_path)
    titles = [a["title"] for tag, a in section(found) if tag == "td"]
    assert titles[0] == "seed 0: .20 [.06, .51] n=10; seed 1: .30 [.11, .60] n=10"
    assert f"({titles[0]})" in found.text


def test_the_figures_caption_says_that_the_untrained_network_is_left_out(tmp_path: Path) -> None:
    cells = [cell("d", values=[share("accuracy", 90)]), cell("d", "a", values=judged(70, 60.0))]
    words = "The untrained network is left out"
    assert words not in page(record(cells), tmp_path).text
    untrained = cell("random", values=[share("accuracy", 10)], control=True)
    assert words in page(record([*cells, untrained]), tmp_path).text
