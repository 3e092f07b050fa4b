from __future__ import annotations

import math
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from by_hand import declared
from report_samples import anchor, calibration, cell, index, judged, plain, record, row, scale, share, small

from leakbench.metrics.energy import LayerOperations
from leakbench.metrics.metric import Declaration
from leakbench.metrics.motion import LayerMotion
from leakbench.records import AttackRow, CellRecord, DatasetInfo, Value
from leakbench.reports.drawing import LINES
from leakbench.reports.grid import LEVELS, Table, defense_table, index_table, leak_tables, level_of, other_tables
from leakbench.reports.html import render
from leakbench.reports.layers import energy_tables, motion_tables
from leakbench.reports.paper import PRINTED, beside, unlike_paper
from leakbench.reports.summary import Group, groups


def group(cells: list[CellRecord], **given: Any) -> Group:
    (only,) = groups(record(cells, **given))
    return only


def shape(table: Table) -> list[tuple[str, list[str]]]:
    return [(row.label, [cell.text for cell in row.cells]) for row in table.rows]


def test_defences_by_attacks_with_controls_last_and_anchors_below() -> None:
    judge, distance = leak_tables(group(small().cells))
    assert judge.columns == ("inversion",)
    assert shape(judge) == [
        ("privatesnn", [".71 [.61, .79] n=100"]),
        ("ann", [".70 [.60, .78] n=100"]),
        ("random", [".10 [.06, .17] n=100"]),
    ]
    assert [row.control for row in judge.rows] == [False, True, True]
    assert [row.label for row in judge.anchors] == ["noise images", "real images"]
    assert distance.metric is not None and distance.metric.name == "fd_bnconv"


@pytest.mark.parametrize(("successes", "level"), [(0, 0), (9, 0), (10, 1), (71, 7), (99, 9), (100, LEVELS - 1)])
def test_judge_accuracy_is_coloured_from_0_to_1(successes: int, level: int) -> None:
    (table, _) = leak_tables(group([cell("d", "a", values=judged(successes, 50.0)), *calibration()]))
    assert table.rows[0].cells[0].level == level


@pytest.mark.parametrize(("distance", "level"), [(9.0, 9), (1.0, 9), (140.0, 0), (200.0, 0), (74.0, 5)])
def test_a_distance_is_coloured_between_its_anchors(distance: float, level: int) -> None:
    (_, table) = leak_tables(group([cell("d", "a", values=judged(50, distance)), *calibration()]))
    assert table.rows[0].cells[0].level == level


def test_a_metric_of_others_is_shown_as_it_declares_itself() -> None:
    theirs = Declaration("fd_theirs", "Theirs", "What it means.", unit="share", leaks="less", scale="anchors")
    unknown = Value(metric="unknown_one", value=0.123456)

    def values(x: float) -> list[Value]:
        return [*judged(50, 50.0), share("fd_theirs", round(100 * x)), unknown]

    cells = [cell("d", "a", values=values(0.2)), cell("d", "b", values=values(0.4))]
    cells += [anchor("noise", values=values(0.9)), anchor("real", values=values(0.1))]
    rows = [row("d", "a", index(0.9, metric="fd_theirs"))]
    found = group(cells, rows=rows, metrics=[*declared().values(), theirs])
    (table,) = [table for table in leak_tables(found) if table.metric is theirs]
    assert [c.text for c in table.rows[0].cells] == [".20 [.13, .29] n=100", ".40 [.31, .50] n=100"]
    assert [c.worst for c in table.rows[0].cells] == [True, False]  # less of it leaks more
    assert [c.level for c in table.rows[0].cells] == [8, 6]
    assert not table.first_look
    by_index = index_table(found, "fd_theirs")
    assert by_index is not None and by_index.metric is not None
    assert by_index.metric.title == "Leakage index, Theirs"
    (other,) = [table for table in other_tables(found) if table.metric and table.metric.name == "unknown_one"]
    assert other.metric is not None and other.metric.title == "unknown one"
    assert other.rows[0].cells[0].text == "0.1235"


def test_without_anchors_a_distance_has_no_colour() -> None:
    (_, table) = leak_tables(group([cell("d", "a", values=judged(50, 60.0))]))
    assert table.scale is None and table.rows[0].cells[0].level is None


def test_the_worst_is_the_highest_accuracy_and_the_lowest_distance() -> None:
    cells = [cell("d", "a", values=judged(20, 60.0)), cell("d", "b", values=judged(30, 90.0)), cell("d", "c")]
    judge, distance = leak_tables(group(cells))
    assert [c.worst for c in judge.rows[0].cells] == [False, True, False]
    assert [c.worst for c in distance.rows[0].cells] == [True, False, False]


def test_gaps_say_why_and_sort_last() -> None:
    cells = [
        cell("d", "a", status="failed"),
        cell("d", "b", status="not-applicable"),
        cell("e", "a", values=[Value(metric="judge_accuracy", value=math.nan, n=10)]),
        cell("e", "c", values=judged(5, 60.0)),
    ]
    (table, _) = leak_tables(group(cells))
    assert shape(table) == [
        ("d", ["failed", "n/a", "–"]),
        ("e", ["nan n=10", "–", ".05 [.02, .11] n=100"]),
    ]
    assert [c.sort for row in table.rows for c in row.cells] == ["", "", "", "", "", "0.05"]
    assert table.rows[1].cells[0].level is None


ZERO = "zero gradients: of all 40 images"


def test_no_signal_is_a_state_of_its_own_with_its_reason_and_no_value() -> None:
    cells = [
        cell("d", "a", status="no-signal", reason=ZERO),
        cell("d", "b", values=judged(0, 60.0)),
        cell("d", "c", values=judged(1, 60.0)),
    ]
    rows = [row("d", "b", index(0.0)), row("d", "c", index(0.01))]
    (only,) = groups(record(cells, rows=rows))
    found = index_table(only, "judge_accuracy")
    assert found is not None
    for table in (found, *leak_tables(only)):
        first = table.rows[0].cells[0]
        assert (first.text, first.full, first.level, first.sort, first.worst) == ("no signal", ZERO, None, "", False)


def test_a_seed_without_a_signal_is_told_beside_those_that_have_values() -> None:
    cells = [
        cell("d", "a", seed=0, values=judged(0, 60.0)),
        cell("d", "a", seed=1, status="no-signal", reason=ZERO),
        cell("d", "a", seed=2, status="failed", reason="boom"),
    ]
    (only,) = groups(record(cells, rows=[row("d", "a", index(0.0, null="noise"))]))
    first = leak_tables(only)[0].rows[0].cells[0]
    assert first.text == "seed 0: .00 [.00, .04] n=100; seed 1: no signal; seed 2: failed"
    assert (first.full, first.sort) == (f"seed 1, no signal: {ZERO}; seed 2, failed: boom", "0.0")
    found = index_table(only, "judge_accuracy")
    assert found is not None
    assert found.rows[0].cells[0].full == (
        f"0 is noise images; without seed 1, no signal: {ZERO}; without seed 2, failed: boom"
    )


def test_metrics_of_tomorrow_are_shown_as_they_are() -> None:
    cells = [
        cell("d", "a", values=[*judged(20, 60.0), plain("kes_transfer", 0.123456)]),
        cell("d", values=[plain("flops", 12)]),
    ]
    (other,) = other_tables(group(cells))
    assert other.metric is not None and other.metric.title == "kes transfer"
    assert shape(other) == [("d", ["0.1235"])] and other.rows[0].cells[0].level is None
    alone = defense_table(group(cells))
    assert alone is not None and alone.columns == ("flops",)


def test_defences_without_values_have_no_table() -> None:
    assert defense_table(group([cell("d", status="failed"), cell("d", "a", status="failed")])) is None


def test_several_seeds_stand_below_each_other() -> None:
    cells = [cell("d", "a", seed=seed, values=[share("judge_accuracy", 10 * seed)]) for seed in (1, 3)]
    (table,) = leak_tables(group(cells))
    assert [line.seed for line in table.rows[0].cells[0].lines] == ["seed 1", "seed 3"]
    assert float(table.rows[0].cells[0].sort) == pytest.approx(0.2)


def test_data_sets_and_models_are_kept_apart() -> None:
    cells = [
        cell("d", "a", dataset="x", model="m", values=judged(5, 60.0)),
        cell("d", "a", dataset="x", model="n", values=judged(6, 60.0)),
        cell("d", "a", dataset="y", model="m", values=judged(7, 60.0)),
        anchor("noise", dataset="x", model="", values=judged(10, 140.0)),
        anchor("real", dataset="x", model="n", values=judged(97, 9.0)),
    ]
    found = groups(record(cells))
    assert [(g.dataset, g.model, g.anchors) for g in found] == [
        ("x", "m", ("noise",)),
        ("x", "n", ("noise", "real")),
        ("y", "m", ()),
    ]


# --- the leakage index


def indexed(rows: list[AttackRow], metric: str = "judge_accuracy", **given: Any) -> Table:
    cells = [cell(found.defense, found.attack, control=found.control) for found in rows]
    found = index_table(group([*cells, *given.pop("cells", [])], rows=rows, **given), metric)
    assert found is not None
    return found


def test_the_index_is_a_table_of_its_own_over_all_seeds() -> None:
    rows = [row("d", "a", index(0.2)), row("d", "b", index(0.71)), row("ann", "a", index(0.9))]
    table = indexed(rows, scales=[scale()])
    assert table.metric is not None and table.metric.name == "index_judge_accuracy" and table.columns == ("a", "b")
    assert shape(table) == [
        ("d", [".20 [.10, .30] n=10", ".71 [.61, .81] n=10"]),
        ("ann", [".90 [.80, 1.00] n=10", "–"]),
    ]
    assert [c.level for c in table.rows[0].cells] == [2, 7]
    assert [c.worst for c in table.rows[0].cells] == [False, True]
    assert [(r.label, r.cells[0].text) for r in table.anchors] == [
        ("noise images, fresh draw", ".02 [.00, .07] n=10"),
        ("real images, fresh draw", ".99 [.94, 1.00] n=10"),
    ]


@pytest.mark.parametrize(
    ("validity", "word"),
    [
        ("valid", ""),
        ("invalid", "invalid"),
        ("optimisation failure", "not optimised"),
        ("gradient masking suspected", "masking suspected"),
    ],
)
def test_what_is_not_valid_is_marked_with_a_word_and_never_the_worst(validity: str, word: str) -> None:
    rows = [row("d", "a", index(0.9), validity=validity), row("d", "b", index(0.3)), row("d", "c", index(0.2))]
    cells = [cell("d", attack, values=judged(hits, 60.0)) for attack, hits in (("a", 90), ("b", 30), ("c", 20))]
    (only,) = groups(record(cells, rows=rows))
    found = index_table(only, "judge_accuracy")
    assert found is not None
    for table in (found, *leak_tables(only)[:1]):
        first, second, _ = table.rows[0].cells
        assert first.invalid == word and first.text.endswith(f" ({word})" if word else "n=10" * (table is found))
        assert (first.worst, second.worst) == ((False, True) if word else (True, False))


def test_gaps_of_the_index_say_why() -> None:
    gaps = [cell("d", "c", status="failed"), cell("d", "e", status="not-applicable"), cell("d", "f")]
    gaps.append(cell("d", "h", status="no-signal", reason=ZERO))
    rows = [row("d", "a", index(0.2)), row("d", "b", index(None, reason="noise .9, real .8")), row("d", "g")]
    table = indexed([*rows, row("d", "c", index(None))], cells=gaps)
    # the failed cell has a row too, as a run writes one
    texts = dict(zip(table.columns, table.rows[0].cells, strict=True))
    assert {name: c.missing for name, c in texts.items()} == {
        "a": "",
        "b": "no scale",
        "c": "failed",
        "e": "n/a",
        "f": "–",
        "g": "–",
        "h": "no signal",
    }
    assert texts["b"].full == "noise .9, real .8" and texts["b"].sort == ""


def test_a_metric_without_any_index_has_no_table() -> None:
    only = group([cell("d", "a")], rows=[row("d", "a", index(0.5), index(None, metric="recall"))])
    assert only.indexed() == ["judge_accuracy", "recall"]
    assert index_table(only, "recall") is None and index_table(only, "kes") is None
    assert index_table(group([cell("d", "a")]), "judge_accuracy") is None


def test_every_measure_of_leakage_is_coloured_between_its_anchors() -> None:
    def values(kes: float, density: float) -> list[Value]:
        return [Value(metric="kes", value=kes), Value(metric="density", value=density), plain("p_value", 0.5)]

    cells = [cell("d", "a", values=values(0.46, 2.0)), cell("d", "b", values=values(0.2, 0.1))]
    cells += [anchor("noise", values=values(0.1, 0.0)), anchor("real", values=values(0.8, 1.0))]
    kes, density = leak_tables(group(cells))
    assert [c.level for c in kes.rows[0].cells] == [5, 1] and [c.worst for c in kes.rows[0].cells] == [True, False]
    assert [c.level for c in density.rows[0].cells] == [9, 1]
    assert kes.scale == ("as noise images", "as real images") and kes.first_look and not density.first_look
    (other,) = other_tables(group(cells))
    assert other.metric is not None and other.metric.name == "p_value" and other.scale is None


def test_a_metric_whose_anchors_are_the_wrong_way_round_has_no_colour() -> None:
    cells = [cell("d", "a", values=[plain("recall", 0.5)])]
    cells += [anchor("noise", values=[plain("recall", 0.9)]), anchor("real", values=[plain("recall", 0.8)])]
    (table,) = leak_tables(group(cells))
    assert table.scale is None and table.rows[0].cells[0].level is None


def test_operations_add_up() -> None:
    conv = LayerOperations("conv", 1000, 100, 0.0, True, spikes_out=25.0, spiking_neurons=200)
    layers = [conv, LayerOperations("fc", 500, 50, 25.0, False)]
    (table,) = energy_tables(group([cell("d", energy=layers, timesteps=150)]))
    assert table.rows[0][3:] == ("constant current", "–", "0", "1,000", "0.125")
    assert table.rows[1][3:] == ("25.0", "0.500", "250", "0", "–")
    assert table.total == ("Total", "1,500", "", "", "", "250", "1,000", "")
    assert len(table.columns) == len(table.total) == len(table.rows[0])
    # 1500 * 3.2 pJ; 1000 * 3.2 + 250 * 0.1 pJ; the convolution's pixels as they are, 500 * (8 * 3.1 / 32 + 0.1) pJ
    assert table.note.startswith(
        "INT32: ANN 4.8 nJ, this network 3.2 nJ. ANN of 8-bit activations: 3.6 nJ. FP32: ANN 6.9 nJ"
    )


def test_counts_that_give_no_energy_are_still_shown() -> None:
    (table,) = energy_tables(group([cell("d", energy=[LayerOperations("fc", 5, 0, 0.0, False)])]))
    assert table.note == "" and table.rows[0][0] == "fc"


def test_weight_motion_has_a_row_a_layer() -> None:
    (table,) = motion_tables(group([cell("d", motion=[LayerMotion("fc", 0.99951, 0.0312)])]))
    assert table.rows == (("fc", "0.9995", "0.0312"),)


# --- the paper


def paper_cells(dataset: str, model: str) -> list[CellRecord]:
    given: dict[str, Any] = {"dataset": dataset, "model": model, "timesteps": 150}
    return [
        cell("privatesnn", values=[share("accuracy", 8900, 10_000)], **given),
        cell(
            "privatesnn[od=false]",
            defense_params={"od": False},
            values=[share("accuracy", 8600, 10_000)],
            **given,
        ),
        cell("privatesnn", "reconversion", values=[Value(metric="fid", value=400.0, n=100)], **given),
        cell("privatesnn", "inversion", values=[Value(metric="fid", value=300.0, n=100)], **given),
        cell("datafree", "reconversion", values=[Value(metric="fd_bnconv", value=40.0, n=100)], **given),
    ]


def test_the_papers_numbers_stand_beside_the_same_setting() -> None:
    found = [(b.row, b.metric, b.paper, b.source) for b in beside(group(paper_cells("cifar10", "vgg16")))]
    assert found == [
        ("privatesnn", "Accuracy", "89.2 %", "Table 2"),
        ("privatesnn[od=false]", "Accuracy", "86.9 %", "Table 3"),
        ("privatesnn", "Accuracy", "89.2 %", "Table 3"),
        ("reconversion on privatesnn", "FID", "448.2", "Table 4"),
        ("privatesnn", "Accuracy", "89.2 %", "Table 5"),
    ]


def test_without_encryption_training_it_is_the_conversion() -> None:
    bare = cell("privatesnn[cet=False]", defense_params={"cet": False, "od": True}, values=[share("accuracy", 80)])
    here = bare.model_copy(update={"dataset": "cifar10", "model": "vgg16"})
    assert [(b.paper, b.source) for b in beside(group([here]))] == [("82.8 %", "Table 3")]


def test_of_a_sweep_what_is_nearest_to_the_paper_stands_beside_it() -> None:
    here: dict[str, Any] = {"dataset": "cifar10", "model": "vgg16", "values": [share("accuracy", 80)]}
    over = [cell(f"datafree[T={t}]", timesteps=t, **here) for t in (50, 150)]
    swept = [cell(f"han2020[T={t}]", timesteps=t, **here) for t in (50, 100)]
    asked = [cell("han2020", timesteps=150, **here), cell("han2020", "a", timesteps=150, **here)]
    found = [(b.row, b.source) for b in beside(group([*over, *swept, *asked]))]
    # the paper's T where it names one and the run has it, else what was attacked
    assert found == [("han2020", "Table 2"), ("datafree[T=150]", "Table 3"), ("han2020", "Table 5")]


@pytest.mark.parametrize(("dataset", "model"), [("digits", "vgg16"), ("cifar10:half", "vgg16"), ("mnist", "vgg16")])
def test_the_papers_numbers_stand_beside_no_other_data(dataset: str, model: str) -> None:
    assert beside(group(paper_cells(dataset, model))) == []
    assert unlike_paper(group(paper_cells(dataset, model)), []) == []


def test_the_papers_numbers_stand_beside_another_network_s_which_is_said(tmp_path: Path) -> None:
    cells = paper_cells("cifar10", "vgg-small")
    assert beside(group(cells)) == beside(group(paper_cells("cifar10", "vgg16")))
    assert unlike_paper(group(cells), []) == ["the network is vgg-small (the paper: VGG16)"]
    assert "Not as in the paper: the network is vgg-small (the paper: VGG16)." in render(record(cells), tmp_path)


@pytest.mark.parametrize(("side", "lines"), [(64, []), (32, ["images are 32x32 (as published: 64x64)"])])
def test_the_papers_numbers_beside_images_of_another_size_say_so(side: int, lines: list[str]) -> None:
    info = DatasetInfo(
        name="tinyimagenet", classes=["a", "b"], train_images=2, test_images=2, channels=3, height=side, width=side,
        source="", fingerprint="",
    )  # fmt: skip
    assert unlike_paper(group(paper_cells("tinyimagenet", "vgg16")), [info]) == lines


def test_printed_numbers_name_their_table_and_no_other_data_set() -> None:
    assert {p.dataset for p in PRINTED} == {"cifar10", "cifar100", "tinyimagenet"}
    assert all(re.fullmatch(r"Table [2-5]", p.source) for p in PRINTED)


# --- colours


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def palettes() -> list[dict[str, str]]:
    css = resources.files("leakbench.reports").joinpath("templates", "report.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks]


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark"])
def test_every_text_can_be_read_on_every_ground(palette: dict[str, str]) -> None:
    heats = [palette[f"h{level}"] for level in range(LEVELS)]
    # 4.5 and 3: WCAG 2 level AA for text and for marks
    assert all(contrast(palette["ink"], heat) >= 4.5 for heat in heats)
    for text in ("ink", "muted", "accent", "leaks", "quiet", "silent"):
        for ground in ("paper", "panel"):
            assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
    for mark in ("fig-defense", "fig-control", *(f"fig-line-{number}" for number in range(1, len(LINES) + 1))):
        assert contrast(palette[mark], palette["panel"]) >= 3


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark"])
def test_more_leak_is_always_further_from_the_ground(palette: dict[str, str]) -> None:
    ground = luminance(palette["paper"])
    away = [abs(luminance(palette[f"h{level}"]) - ground) for level in range(LEVELS)]
    assert away == sorted(away) and len(set(away)) == LEVELS


def test_the_page_says_in_which_direction_a_metric_leaks_and_that_one_is_not_described(tmp_path: Path) -> None:
    metrics = [Declaration("mine", "Mine", "", leaks="less"), Declaration("yours", "Yours", "A shade.", leaks="more")]
    values = [plain("mine", 1.0), plain("yours", 2.0)]
    made = small()
    page = render(
        record([*made.cells, cell("privatesnn", "inversion", seed=1, values=values)], metrics=metrics), tmp_path
    )
    # by its table and by its name in the method
    assert page.count("Not described: a metric&#39;s docstring says what it means. Lower means that more leaks.") == 2
    assert page.count("A shade. Higher means that more leaks.") == 2


@pytest.mark.parametrize(("value", "level"), [(1e308, LEVELS - 1), (-1e308, 0), (math.inf, None), (0.5, LEVELS // 2)])
def test_every_number_has_a_colour(value: float, level: int | None) -> None:
    assert level_of(value, (0.0, 1.0)) == level
