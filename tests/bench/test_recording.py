"""What a record holds of a run: every cell with its values, verdicts, plugins, data, environment."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from by_hand import declared
from planned_cells import planned
from tiny_runs import (
    ATTACKS,
    CELLS,
    CLASSES,
    DEFENSES,
    DIRECT_LABEL,
    LABELS,
    OURS_LABEL,
    Warm,
    value_of,
)

from leakbench import registry
from leakbench.bench.recording import Participants
from leakbench.leakage.inversion.verdict import conclude
from leakbench.leakage.kind import Evidence
from leakbench.records import RunRecord
from leakbench.runtime.workspace import Settings, Workspace

ON_A_DEFENSE = {
    "accuracy",
    "ann_accuracy",
    "reconverted_accuracy",
    "training_images_read",
    "seconds",
    "timesteps",
    "weight_cosine",
}


ON_A_SPIKING_ONE = ON_A_DEFENSE | {f"energy_ratio_{name}" for name in ("int32", "fp32", "paper", "memory", "quantized")}


SAID_BY_JUDGES = {"judge_accuracy", "open_set_accuracy", "daa"}
OF_IMAGES = {"kes", "knn_distance", "train_ssim", "verification_eer", "pixel_neighbour_accuracy"}
"""by class, and no check's"""

ON_IMAGES = SAID_BY_JUDGES | {
    *OF_IMAGES,
    *("fd_bnconv", "kd_bnconv", "precision", "recall", "density", "coverage"),
    *("training_nearest", "training_nearest_ssim"),
}

OF_COST = {"victim_accuracy", "victim_confidence", "seconds", "queries", "gradient_steps"}

ON_A_CHECK = SAID_BY_JUDGES | OF_COST | {"p_value"}

ON_AN_ATTACK = ON_IMAGES | ON_A_CHECK | {"uap_fooling", "uap_fooling_random", "uap_fooling_noise", "uap_fooling_real"}


def test_every_cell_is_recorded_ok_and_in_order(warm: Warm) -> None:
    cells = warm.record.cells
    assert [(cell.defense, cell.attack, cell.of) for cell in cells] == [
        ("", "noise", ""),
        ("", "noise (fresh draw)", "noise"),
        ("", "real", ""),
        ("", "real (fresh draw)", "real"),
        *((LABELS[defense], "", "") for defense in DEFENSES),
        *((LABELS[d], LABELS[a], "") for d in DEFENSES for a in ATTACKS),
        (OURS_LABEL, f"{DIRECT_LABEL} (iterations=1)", DIRECT_LABEL),
    ]
    assert len(cells) == CELLS
    assert [cell.defense for cell in cells if not cell.control] == [OURS_LABEL] * 4
    assert {cell.status for cell in cells} == {"ok"}
    assert warm.record.complete
    assert warm.record.schema_version == 6
    assert {(cell.dataset, cell.model, cell.seed) for cell in warm.record.cells} == {(warm.tiny.dataset, "vgg4", 0)}
    assert {(cell.reason, cell.traceback, tuple(cell.warnings)) for cell in warm.record.cells} == {("", "", ())}
    assert (warm.out / "results.json").read_text() == warm.record.model_dump_json(indent=1)
    assert RunRecord.model_validate_json((warm.out / "results.json").read_bytes()) == warm.record


def test_the_values_have_their_names(warm: Warm) -> None:
    for cell in warm.record.cells:
        names = [value.metric for value in cell.values]
        assert len(set(names)) == len(names)
        if not cell.defense:
            wanted = ON_IMAGES
        elif cell.attack:
            wanted = ON_A_CHECK if cell.of else ON_AN_ATTACK
        else:
            wanted = ON_A_DEFENSE if cell.defense == "ann" else ON_A_SPIKING_ONE
        assert set(names) == wanted
        for value in cell.values:
            assert np.isfinite(value.value)
            assert (value.low is None) == (value.high is None)
            if value.low is not None and value.high is not None:
                assert value.low <= value.value <= value.high


def test_what_is_measured_is_declared(warm: Warm) -> None:
    """And what the report derives itself, and nothing else."""
    measured = {value.metric for cell in warm.record.cells for value in cell.values} | {"accuracy_drop"}
    assert {metric.name for metric in warm.record.metrics} == measured
    assert warm.record.metrics == [declared()[metric.name] for metric in warm.record.metrics]


def test_every_cell_says_what_kind_of_leak_it_is_about(warm: Warm) -> None:
    assert {cell.leakage for cell in warm.record.cells if cell.attack} == {"inversion"}
    assert {cell.leakage for cell in warm.record.cells if not cell.attack} == {""}
    assert {one.leakage for one in (*warm.record.rows, *warm.record.verdicts)} == {"inversion"}


def test_metrics_are_taken_apart_by_class(warm: Warm) -> None:
    for cell in warm.record.cells:
        names = list(dict.fromkeys(score.metric for score in cell.classes))
        by_class = SAID_BY_JUDGES | (set() if cell.defense and cell.of else OF_IMAGES)
        assert set(names) == (set() if cell.defense and not cell.attack else by_class)
        for name in names:
            scores = [score for score in cell.classes if score.metric == name]
            assert [score.target for score in scores] == [0, 1, 2]
            # as many images of each class, so that the whole is the mean of its parts
            assert value_of(cell, name) == pytest.approx(sum(score.value for score in scores) / 3, abs=1e-12)


def test_scales_rows_and_verdicts_are_of_these_cells(warm: Warm) -> None:
    record = warm.record
    needs = {plugin.name: plugin.needs for plugin in record.plugins if plugin.kind == "attack"}
    declared = {metric.name: metric for metric in record.metrics}
    assert conclude(record.cells, needs, declared) == Evidence(record.scales, record.rows, record.verdicts)
    assert [scale.metric for scale in record.scales][:2] == ["judge_accuracy", "open_set_accuracy"]
    assert [(row.defense, row.attack) for row in record.rows] == [
        (LABELS[d], LABELS[a]) for d in DEFENSES for a in ATTACKS
    ]
    assert [verdict.defense for verdict in record.verdicts] == [OURS_LABEL]
    # three classes can be dealt in six ways, so that no p below 1/6 is to be had: nothing can be told
    assert all(row.p is not None and row.p >= 1 / 6 for row in record.rows)
    assert {row.validity for row in record.rows} == {"invalid"}
    assert record.verdicts[0].outcome == "inconclusive"
    (row,) = [row for row in record.rows if (row.defense, row.attack) == (OURS_LABEL, DIRECT_LABEL)]
    assert [gate.name for gate in row.gates] == ["G1", "G2", "G3", "G4", "G5", "G7"]
    assert f"({DIRECT_LABEL} (iterations=1))" in row.gates[3].reason


FUNCTIONS = '''
def build(image_shape, classes, generator):
    """A model that is never built. More on it."""


def draw(folder):
    """Data that are never drawn."""
'''
METRIC = '''
from leakbench.contracts import Params
from leakbench.metrics.reconstructions import ImageMetric


class BrightParams(Params):
    factor: float = 1.0


class Bright(ImageMetric[BrightParams]):
    """Brightness of
    the images. And more."""

    name = "bright"

    def scores(self, drawn):
        return drawn.images.float().mean((1, 2, 3))
'''


def workspace(folder: Path) -> Workspace:
    return Workspace(Settings(cache=str(folder / "cache")), lambda *_: None)


@pytest.mark.slow
def test_what_is_of_others_is_named_with_its_source(tmp_path: Path) -> None:
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    (tmp_path / "metric.py").write_text(METRIC)
    sources = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    data, model, metric = (
        f"{tmp_path}/{name}" for name in ("functions.py:draw", "functions.py:build", "metric.py:Bright")
    )
    cells = planned(dataset=[f"{data}:half"], model=[model], metric=[metric], set={"bright.factor": ["0.5"]})
    named = {(one.kind, one.name): one for one in Participants.from_cells(cells, workspace(tmp_path)).plugins}
    brightness = named["metric", "bright"]
    assert (brightness.source, brightness.params) == (sources["metric"], {"factor": 0.5})
    assert brightness.summary == "Brightness of the images."
    for kind, name, target, summary in (
        ("model", "functions.py:build", model, "A model that is never built."),
        ("dataset", "functions.py:draw", data, "Data that are never drawn."),
    ):
        info = named[kind, name]
        assert (info.source, info.origin, info.summary, info.version) == (sources["functions"], target, summary, None)
    assert named["attack", "direct"].source == ""


@pytest.mark.slow
def test_built_in_data_and_models_are_no_plugins(tmp_path: Path) -> None:
    cells = planned(dataset=["digits:half", "folder:mine.py:x"], model=["vgg4"])
    assert {one.kind for one in Participants.from_cells(cells, workspace(tmp_path)).plugins} == {"attack", "defense"}


def test_plugins_data_and_environment_are_named(warm: Warm) -> None:
    found = {(plugin.kind, plugin.name): plugin for plugin in warm.record.plugins}
    assert found.keys() == {
        *(("defense", name) for name in DEFENSES),
        *(("attack", name) for name in ATTACKS),
    }
    assert found["attack", "direct"].origin == "built-in"
    assert found["attack", "direct"].needs == "WEIGHTS"
    assert found["attack", "gated"].origin == f"{warm.tiny.gated}:Gated"
    assert found["attack", "gated"].summary == "Random images, after waiting at the gate."
    (data,) = warm.record.datasets
    assert (data.classes, data.train_images, data.test_images) == (list(CLASSES), 48, 12)
    assert (data.channels, data.height, data.width) == (1, 8, 8)
    assert warm.record.environment["torch"] == torch.__version__
    assert warm.record.environment["device"] == "cpu"


def test_a_cell_records_with_what_it_was_made(warm: Warm) -> None:
    code = hashlib.sha256(warm.tiny.gated.read_bytes()).hexdigest()
    for cell in warm.record.cells:
        assert cell.preset == "quick"
        assert cell.defense_version == (registry.load("defense", cell.defense_name).version if cell.defense else None)
        assert (cell.attack_version is not None) == bool(cell.attack_name)
        assert (cell.defense_source, cell.attack_source) == ("", code if cell.attack_name == "gated" else "")
    for row in warm.record.rows:
        found = warm.record.cell(row.dataset, row.model, row.defense, row.attack)
        assert found is not None and (found.defense, found.attack, found.of) == (row.defense, row.attack, "")
