"""Results of runs and comparisons: frames, figures, images, and how they show themselves."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from api_samples import HIGH, SIDE, one, two, write
from compared_runs import another_set, attacked, own, run
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

import leakbench
from leakbench.api import RunResult
from leakbench.bench.run_folder import save_record
from leakbench.errors import DataError, LeakBenchError, UnknownName, UsageError
from leakbench.records import PARTIAL
from leakbench.reports import drawing
from leakbench.reports.frames import defenses_frame, long_frame, pairs_frame, wide_frame

NASTY = '<script>alert("&")</script>\x1b[31m\u202e'


@pytest.fixture
def result(tmp_path: Path) -> RunResult:
    return leakbench.load(write(tmp_path / "run", two()))


def test_a_loaded_run_has_the_tables_of_its_record(result: RunResult) -> None:
    record = two()
    pd.testing.assert_frame_equal(result.values, long_frame(record))
    pd.testing.assert_frame_equal(result.to_frame("wide"), wide_frame(record))
    assert result.record == record
    assert result.report == result.folder / "report.html"


def test_verdicts_have_outcome_classes_and_index(tmp_path: Path) -> None:
    record = run(*one("mine"))
    (verdict,) = [one.model_copy(update={"named": [2, 7], "missing": ["more seeds"]}) for one in record.verdicts]
    named = [info.model_copy(update={"classes": [f"<{c}>" for c in info.classes]}) for info in record.datasets]
    record = record.model_copy(update={"verdicts": [verdict], "datasets": named})
    (row,) = leakbench.load(write(tmp_path / "run", record)).verdicts.itertuples()
    assert (row.defense, row.outcome, row.classes, row.attack) == ("mine", "leaks", ("<2>", "<7>"), "direct")
    assert verdict.index is not None
    assert (row.index, row.index_low, row.index_high) == (verdict.index.value, verdict.index.low, verdict.index.high)
    assert (row.p, row.networks) == (verdict.p, 1)
    assert (row.reason, row.missing) == (verdict.reason, ("more seeds",))


def test_attacks_are_a_row_each_with_controls(result: RunResult) -> None:
    frame = result.attacks
    assert list(zip(frame["defense"], frame["attack"], frame["control"], strict=True)) == [
        ("han2020", "direct", True),
        ("random", "direct", True),
        ("privatesnn", "direct", False),
        ("datafree", "direct", False),
    ]
    of = frame.set_index("defense")
    assert of.loc["random", "index"] == 0 < of.loc["privatesnn", "index"] < of.loc["datafree", "index"]
    assert (of["gradient_steps"] == 40).all()


def test_images_come_with_what_is_seen_in_them(result: RunResult) -> None:
    first, second = result.images("privatesnn", "direct")
    assert (first.seed, first.target, first.predicted, first.confidence) == (0, "3", "5", 0.75)
    assert (second.target, second.predicted) == ("7", "7")
    assert (first.accepted, second.accepted) == (False, None)
    assert first.image.size == (SIDE, SIDE) and np.unique(np.asarray(first.image)).tolist() == [3]
    assert result.images("datafree", "direct") == []  # the run kept none


def test_an_image_that_is_missing_or_elsewhere_is_not_opened(result: RunResult) -> None:
    (result.folder / "images/digits-s0/003-00.png").unlink()
    with pytest.raises(DataError, match=r"003-00\.png' is missing"):
        result.images("privatesnn", "direct")


def test_images_are_of_one_data_set_and_model(result: RunResult) -> None:
    cells = result.record.cells
    others = [cell.model_copy(update={name: "another"}) for name in ("dataset", "model") for cell in cells]
    several = RunResult(result.folder, result.files, result.record.model_copy(update={"cells": cells + others}))
    with pytest.raises(UsageError, match=r"^name one of several: dataset='digits' model='vgg4', dataset='another'"):
        several.images("privatesnn", "direct")
    with pytest.raises(UsageError, match="name one of several"):
        several.images("privatesnn", "direct", dataset="digits")
    assert len(several.images("privatesnn", "direct", "digits", "vgg4")) == 2
    assert len(several.images("privatesnn", "direct", dataset="another")) == 2
    assert len(several.images("privatesnn", "direct", model="another")) == 2


def test_private_images_are_of_a_data_set_whatever_the_model(result: RunResult) -> None:
    (attack,) = (c for c in result.record.cells if (c.defense, c.attack) == ("privatesnn", "direct"))
    private = attack.model_copy(update={"defense": "", "attack": "real", "model": ""})
    cells = [*(c for c in result.record.cells if c.defense or c.attack != "real"), private]
    run_result = RunResult(result.folder, result.files, result.record.model_copy(update={"cells": cells}))
    assert len(run_result.images("", "real")) == len(run_result.images("", "real", model="vgg4")) == 2


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda one: one.images("privatesn", "direct"), "unknown attacked defense 'privatesn': did you mean 'privates"),
        (lambda one: one.images("privatesnn", "dirct"), "unknown attack on 'privatesnn' 'dirct': did you mean 'direct"),
        (lambda one: one.to_frame("broad"), "unknown shape 'broad': available: long, wide"),
        (lambda one: one.plot_budget("weight"), "unknown access 'weight': did you mean 'weights'"),
        (
            lambda one: one.plot_leakage("mnist"),
            "no such data set and model, there are: dataset='digits' model='vgg4'",
        ),
        (
            lambda one: one.images("privatesnn", "direct", model="vgg5"),
            "no such data set and model, there are: dataset='digits' model='vgg4'",
        ),
        (lambda _: leakbench.load("nowhere"), "nowhere/results.json can't be read (No such file or directory): give"),
        (lambda _: leakbench.load("a" * 300), "folder: the name 'aaa"),
        (lambda _: leakbench.compare(), "compare needs a run"),
        (lambda one: leakbench.compare(one, one), "is given twice"),
        (lambda one: leakbench.compare(one, out=one.folder), "holds no comparison"),
    ],
)
def test_errors_are_one_line(result: RunResult, call: Callable[[RunResult], object], line: str) -> None:
    with pytest.raises(LeakBenchError) as raised:
        call(result)
    assert line in str(raised.value) and "\n" not in str(raised.value)


def test_names_in_errors_are_printable(tmp_path: Path) -> None:
    result = leakbench.load(write(tmp_path / "run", run(own("a\nb"), attacked("a\nb", HIGH))))
    for defense, attack in (("ab", "direct"), ("a\nb", "none")):
        with pytest.raises(UnknownName) as raised:
            result.images(defense, attack)
        assert str(raised.value).isprintable()


def colours(figure: Figure) -> set[str]:
    return {
        to_hex(colour)
        for artist in figure.findobj()
        for name in ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")
        if hasattr(artist, f"get_{name}")
        for colour in np.atleast_2d(drawing.to_rgba_array(getattr(artist, f"get_{name}")()))
    }


def texts(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text"))}


@pytest.mark.parametrize("plot", ["plot_leakage", "plot_tradeoff", "plot_budget"])
def test_figures_are_the_reports_in_its_light_colours(result: RunResult, plot: str) -> None:
    figure = getattr(result, plot)()
    assert isinstance(figure, Figure)
    assert any(text.startswith("privatesnn") for text in texts(figure))
    placeholders = {drawing.INK, drawing.MUTED, drawing.GRID, drawing.DEFENSE, drawing.CONTROL, *drawing.LINES}
    shown = colours(figure)
    assert not shown & placeholders
    assert {"#1a1d21", "#0b62a8"} <= shown  # --ink, --fig-defense and --fig-line-1 of report.css
    pixels = np.asarray(Image.open(io.BytesIO(figure._repr_png_())).convert("RGB")).reshape(-1, 3)
    assert (pixels == (0x0B, 0x62, 0xA8)).all(1).any()


def test_leakage_is_drawn_where_the_index_is(result: RunResult) -> None:
    (axes,) = result.plot_leakage().axes
    drawn = [tuple(point) for mark in axes.collections for point in mark.get_offsets()]
    of = result.attacks.set_index("defense")["index"]
    assert drawn == [(of[name], row) for row, name in enumerate(("privatesnn", "datafree", "han2020"))]


@pytest.mark.slow
def test_a_run_of_several_data_sets_has_a_figure_for_each(tmp_path: Path) -> None:
    first, other = two(), another_set(two())
    both = {name: getattr(first, name) + getattr(other, name) for name in ("cells", "rows", "verdicts")}
    result = leakbench.load(write(tmp_path / "run", first.model_copy(update=both)))
    with pytest.raises(UsageError, match="name one of several: dataset='digits' model='vgg4', dataset='mnist'"):
        result.plot_leakage()
    assert isinstance(result.plot_leakage("mnist"), Figure)
    assert "mnist vgg4 privatesnn, classes: leaks." in repr(result)


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    result = leakbench.load(write(tmp_path / "run", run(own("mine"))))
    for plot in (result.plot_leakage, result.plot_tradeoff, result.plot_budget):
        with pytest.raises(UsageError, match="there is nothing to draw: no "):
            plot()
    assert result.verdicts.empty and result.attacks.empty
    assert list(result.verdicts.columns)[:3] == ["dataset", "model", "defense"]


# --- how they show themselves ----------------------------------------------------------------------------------------


def test_a_result_is_a_few_plain_lines(result: RunResult) -> None:
    verdict, other, heading, first, second, report = repr(result).splitlines()
    assert verdict.startswith("privatesnn, classes: leaks. Classes leak; which ones, one network can't tell.")
    assert other.startswith("datafree, classes: leaks.")
    assert heading == "ranking on digits by the worst case (1 leaks least):"
    assert (first.split()[:2], second.split()[:2]) == (["1", "privatesnn,"], ["2", "datafree,"])
    assert report == f"report: {result.report}"


def test_what_is_missing_of_a_run_is_said(tmp_path: Path) -> None:
    broken = attacked("mine", HIGH).model_copy(update={"status": "failed", "reason": "broke"})
    result = leakbench.load(write(tmp_path / "run", run(own("mine"), broken, complete=False)))
    assert result.failed == 1
    lines = [
        "interrupted: some cells are missing",
        f"1 of {len(result.record.cells)} cells failed: the report says why",
    ]
    assert repr(result).splitlines()[:2] == lines
    assert all(f"<p><b>{line}</b></p>" in result._repr_html_() for line in lines)


class Seen(HTMLParser):
    """The elements and the text of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags += [tag, *(f"{tag} {name}" for name, _ in attrs)]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    cells = [own(NASTY), attacked(NASTY, HIGH), *one("mine")]
    result = leakbench.load(write(tmp_path / "<i>run", run(*cells)))
    for shown in (result, leakbench.compare(result, out=tmp_path / "<i>both")):
        seen = Seen(shown._repr_html_())
        assert set(seen.tags) <= {"div", "p", "b", "table", "caption", "thead", "tbody", "tr", "th", "td", "td colspan",
                                  "code"}  # fmt: skip
        assert '<script>alert("&")</script>\\x1b[31m\\u202e' in seen.text and "<i>" in seen.text
        assert all(line.isprintable() for line in repr(shown).splitlines())
        assert NASTY[:-6] in repr(shown)


# --- comparisons -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_results_and_folders_are_compared(tmp_path: Path) -> None:
    mine = leakbench.load(write(tmp_path / "monday", run(*one("mine"))))
    theirs = write(tmp_path / "tuesday", run(*one("theirs", HIGH)))
    compared = leakbench.compare(mine, str(theirs), out=tmp_path / "both")
    assert [one.name for one in compared.comparison.runs] == ["monday", "tuesday"]
    pd.testing.assert_frame_equal(compared.values, pairs_frame(compared.comparison))
    pd.testing.assert_frame_equal(compared.verdicts, defenses_frame(compared.comparison))
    assert compared.verdicts["label"].tolist() == ["mine", "theirs"]
    assert compared.report == tmp_path / "both" / "comparison.html" and compared.report.is_file()
    assert repr(compared).splitlines()[1].startswith("  1 mine, index .")
    assert {"mine", "theirs"} <= texts(compared.plot_leakage())


@pytest.mark.slow
def test_a_result_is_compared_as_it_is_and_not_as_an_older_record_in_its_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", run(*one("mine"), *one("theirs")))
    poorer = run(*one("mine", HIGH)).model_copy(update={"complete": False})
    assert save_record(poorer, folder) == PARTIAL
    compared = leakbench.compare(RunResult(folder, PARTIAL, poorer), out=tmp_path / "compared")
    assert compared.verdicts["label"].tolist() == ["mine"]
    assert leakbench.compare(folder, out=tmp_path / "whole").verdicts["label"].tolist() == ["mine", "theirs"]


@pytest.mark.slow
def test_a_folder_whose_name_is_no_utf_8_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compared = leakbench.compare(write(Path("w\udcff"), run(*one("mine"))))
    assert [one.name for one in compared.comparison.runs] == ["w\\udcff"]
    assert compared.report.is_file()


@pytest.mark.slow
def test_runs_that_cannot_be_compared_are_refused_unless_anyway(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", run(*one("mine"))), tmp_path / "b"
    write(b, another_set(run(*one("theirs"))).model_copy(update={"datasets": []}))
    record = leakbench.load(b).record
    other = run(*one("theirs")).datasets[0].model_copy(update={"fingerprint": "f" * 16})
    write(b, record.model_copy(update={"datasets": [other]}))
    with pytest.raises(UsageError, match="can't be compared"):
        leakbench.compare(a, b, out=tmp_path / "both")
    compared = leakbench.compare(a, b, anyway=True, out=tmp_path / "both")
    assert repr(compared).startswith("not comparable: ")


def test_a_folder_elsewhere_is_the_same_result(result: RunResult, tmp_path: Path) -> None:
    elsewhere = leakbench.load(shutil.copytree(result.folder, tmp_path / "elsewhere"))
    assert elsewhere == result
    assert elsewhere.report != result.report
    assert result != leakbench.load(write(tmp_path / "other", run(*one("mine"))))
