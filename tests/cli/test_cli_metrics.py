"""``--metric``: a metric of a user's file, by name and by what it says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_said import Leakbench, record_in
from tiny_runs import OURS, Warm, artifacts, value_of

from leakbench import registry
from leakbench.cli.completion import metric_choices, setting
from leakbench.records import CellRecord

METRIC = '''
"""A metric for tests."""

from pydantic import Field

from leakbench.contracts import Params
from leakbench.metrics.reconstructions import ImageMetric


class BrightParams(Params):
    factor: float = Field(1.0, gt=0, description="brightness of white")


class Bright(ImageMetric[BrightParams]):
    """Mean brightness of an image. Higher means that more leaks."""

    name = "bright"
    title = "Brightness"
    unit, leaks = "share", "more"

    def scores(self, drawn):
        return drawn.images.float().mean((1, 2, 3)) / 255 * self.params.factor


class Raises(Bright):
    """Never measured."""

    name = "raises"

    def scores(self, drawn):
        raise ValueError("too dark\\nto see")


class Percent(Bright):
    name = "percent"
    unit = "percent"


class Unkind(Bright):
    name = "unkind"
    leakage = "theft"


class Judge(Bright):
    name = "judge_accuracy"


class Titled(Bright):
    name = "titled"
    title = "Judge accuracy"


class Attack(Bright):
    name = "reconversion"


class Index(Bright):
    name = "index_kes"


class Space(Bright):
    name = "bad name"


class Forgets(Bright):
    name = "forgets"

    def scores(self):
        return 0
'''


def drawn(cells: list[CellRecord]) -> list[CellRecord]:
    return [cell for cell in cells if cell.attack and not cell.of]


@pytest.mark.slow
def test_a_file_s_metric_runs_and_one_that_raises_leaves_its_cell_as_it_is(
    leakbench: Leakbench, warm: Warm, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(METRIC)
    arguments = warm.tiny.arguments(tmp_path / "run", metric=[f"{tmp_path}/mine.py:Bright,{tmp_path}/mine.py:Raises"])
    said = leakbench(*arguments, "--cache", warm.grown, "--quiet", "--set", "bright.factor=0.5")
    assert said.status == 0
    line = METRIC[: METRIC.index("raise ValueError")].count("\n") + 1
    reason = f"raises: not measured: ValueError: too dark (mine.py, line {line})"
    assert said.err.splitlines() == [f"leakbench: warning: {reason}"]  # once, whatever the number of cells
    record = record_in(tmp_path / "run")
    assert {cell.status for cell in record.cells} == {"ok"}
    for cell in drawn(record.cells):
        assert 0 < value_of(cell, "bright") < 0.5
        assert cell.warnings == [reason]
        assert not any(value.metric == "raises" for value in cell.values)
    indexed = {index.metric for row in record.rows for index in row.indices}
    assert "bright" in indexed and "raises" not in indexed
    assert [metric.title for metric in record.metrics if metric.name == "bright"] == ["Brightness"]
    assert "raises: not measured" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_an_edited_metric_is_measured_anew_and_nothing_else_is(
    leakbench: Leakbench, warm: Warm, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    values, kept = [], []
    for text in (METRIC, METRIC.replace("/ 255", "/ 510")):
        file.write_text(text)
        arguments = warm.tiny.arguments(tmp_path / f"run{len(kept)}", metric=[f"{file}:Bright"], controls=False)
        assert leakbench(*arguments, "--cache", warm.grown, "--quiet").status == 0
        values.append([value_of(cell, "bright") for cell in drawn(record_in(tmp_path / f"run{len(kept)}").cells)])
        kept.append(artifacts(warm.grown))
    assert values[1] == pytest.approx([value / 2 for value in values[0]])
    new = kept[1].keys() - kept[0].keys()
    manifests = [json.loads((warm.grown / "objects" / key[:2] / key / "manifest.json").read_bytes()) for key in new]
    assert manifests and {made["stage"] for made in manifests} == {"metric"}
    assert kept[1] == kept[1] | kept[0]  # what was there is as it was


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--metric", "kes"], ["--metric kes", "built-in metrics need no --metric"]),
        (["--metric", "kess"], ["unknown metric 'kess'", "did you mean 'kes'?"]),
        (["--metric", "mine.py:Percent"], ["'percent'", "unit", "share"]),
        (["--metric", "mine.py:Unkind"], ["--metric mine.py:Unkind", "leakage must be inversion or membership"]),
        (["--metric", "mine.py:Judge"], ["'judge_accuracy' is taken by the metric 'judge_accuracy' (built-in)"]),
        (["--metric", "mine.py:Attack"], ["'reconversion' is taken by the attack 'reconversion' (built-in)"]),
        (["--metric", "mine.py:Index"], ["'index_kes'", "invalid name", "leakage index"]),
        (["--metric", "mine.py:Space"], ["'bad name'", "invalid name"]),
        (["--metric", "mine.py:Forgets"], ["'forgets'", "scores must take one argument besides self"]),
        (["--metric", "mine.py"], ["unknown metric 'mine.py'", "path/to/file.py:Class"]),
        (["--metric", "mine:Bright"], ["unknown metric 'mine:Bright'", "path/to/file.py:Bright"]),
        (["--set", "bright.factor=2"], ["unknown plugin in --set 'bright'", "only what takes part"]),
        (["--metric", "mine.py:Bright", "-a", "none"], ["no attack in this grid uses it", "inversion"]),
        (["--metric", "mine.py:Bright", "-a", "loss_threshold"], ["no attack in this grid uses it", "inversion"]),
        (["--metric", "mine.py:Titled"], ["its title 'Judge accuracy' is that of judge_accuracy"]),
        (["--metric", "mine.py:Bright", "--set", "bright.factor=1,2"], ["bright", "one value"]),
        (["--metric", "mine.py:Bright", "--set", "bright.factor=0"], ["bright", "factor", "greater than 0"]),
        (["--metric", "missing.py:Bright"], ["no such plugin file 'missing.py'"]),
        (["--metric", f"{OURS}"], [f"unknown metric '{OURS}'"]),
    ],
    ids=lambda value: value[1] if value[0] == "--metric" else "",
)
def test_what_is_wrong_with_a_metric_is_one_line(
    leakbench: Leakbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(METRIC)
    attack = [] if "-a" in options else ["-a", "direct"]
    line = leakbench("run", "-d", OURS, *attack, *options).line
    assert all(word in line for word in words), line


def test_a_configuration_file_names_metrics(
    leakbench: Leakbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("grid.toml").write_text(f"defense = '{OURS}'\nattack = 'direct'\nmetric = ['kes']")
    assert "--metric kes: built-in metrics need no --metric" in leakbench("run", "--config", "grid.toml").line


def test_completion_offers_what_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    assert metric_choices() == []
    monkeypatch.setattr(registry, "_registered", {"metric": {"bright": "mine:Bright"}})
    assert metric_choices() == ["bright"]
    assert "bright." in setting("b") and "fid." not in setting("f")  # no built-in metric has a parameter


@pytest.mark.slow
def test_info_says_how_a_metric_is_read(leakbench: Leakbench, tmp_path: Path) -> None:
    said = leakbench("info", "fid")
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "fid  metric, version 1"
    for line in (
        "title: FID",
        "unit: distance",
        "direction: lower means that more leaks",
        "values: a single one",
        "compare at the same number of images only",
        "kind of leak: inversion",
    ):
        assert line in [one.strip() for one in lines]
    assert "--set" not in said.out
    assert "values: one for each class, and their mean" in leakbench("info", "kes").out
    assert "direction: none" in leakbench("info", "accuracy").out
    (tmp_path / "mine.py").write_text(METRIC)
    theirs = leakbench("info", f"{tmp_path}/mine.py:Bright").out
    assert "title: Brightness" in theirs and "brightness of white" in theirs
    assert "'percent'" in leakbench("info", f"{tmp_path}/mine.py:Percent").line


def test_info_of_a_metric_as_json(leakbench: Leakbench) -> None:
    facts = json.loads(leakbench("info", "knn_distance", "--json").out)
    declared = registry.load("metric", "knn_distance").declaration()
    assert facts["kind"] == "metric" and facts["parameters"] == []
    for name in ("title", "meaning", "unit", "leaks", "per", "counts", "needs_same_n", "scale", "leakage", "version"):
        assert facts[name] == getattr(declared, name)
