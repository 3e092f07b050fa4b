"""What a run records: statuses, values against closed forms, anchors, pictures, keys; and what a plugin can break."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_runs import (
    ALONE,
    ATTACKS,
    CELLS,
    CLASSES,
    DEFENSES,
    DIRECT_LABEL,
    LABELS,
    OURS,
    OURS_LABEL,
    Quiet,
    Warm,
    artifacts,
    cell_of,
    copied,
    forget,
    held_out,
    numbers,
    run_here,
    user_network,
    value_of,
    write_images,
)
from torch.nn.functional import avg_pool2d, conv2d, linear, relu

from leakbench import registry
from leakbench.attacks.direct import Direct
from leakbench.bench import executors
from leakbench.bench.grid import make_config
from leakbench.bench.run_folder import open_run, read_grid, write_pictures
from leakbench.errors import LeakBenchError, StoreError, UsageError
from leakbench.leakage.inversion.verdict import Evidence, conclude
from leakbench.records import RunRecord
from leakbench.runtime.store import Store

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
SAID_BY_JUDGES = {"judge_accuracy", "daa"}
ON_IMAGES = SAID_BY_JUDGES | {
    *("kes", "knn_distance", "fd_bnconv", "kd_bnconv"),
    *("precision", "recall", "density", "coverage"),
}
MEASURED_ON_ITS_IMAGES = {"judge_accuracy", "daa", "fd_bnconv", "kd_bnconv", "precision", "density"}
OF_COST = {"victim_accuracy", "victim_confidence", "seconds", "queries", "gradient_steps"}
ON_A_CHECK = SAID_BY_JUDGES | OF_COST | {"p_value"}
ON_AN_ATTACK = ON_IMAGES | ON_A_CHECK | {"uap_fooling", "uap_fooling_random", "uap_fooling_noise", "uap_fooling_real"}


# --- the record of a run -----------------------------------------------------------------------------------------


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
    assert warm.record.schema_version == 4
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


def test_metrics_are_taken_apart_by_class(warm: Warm) -> None:
    for cell in warm.record.cells:
        names = list(dict.fromkeys(score.metric for score in cell.classes))
        by_class = SAID_BY_JUDGES | (set() if cell.defense and cell.of else {"kes", "knn_distance"})
        assert set(names) == (set() if cell.defense and not cell.attack else by_class)
        for name in names:
            scores = [score for score in cell.classes if score.metric == name]
            assert [score.target for score in scores] == [0, 1, 2]
            # as many images of each class, so that the whole is the mean of its parts
            assert value_of(cell, name) == pytest.approx(sum(score.value for score in scores) / 3, abs=1e-12)


def test_the_ann_s_accuracy_is_the_checkpoint_s_own(warm: Warm) -> None:
    """Against a forward pass written out from the weights file and the test images."""
    weights = load_file(warm.tiny.checkpoint)
    images, labels = held_out(warm.tiny)
    x = avg_pool2d(relu(conv2d(images.float() / 255, weights["0.weight"], padding=1)), 2)
    x = avg_pool2d(relu(conv2d(x, weights["3.weight"], padding=1)), 2)
    logits = linear(relu(linear(x.flatten(1), weights["7.weight"])), weights["10.weight"])
    share = float((logits.argmax(1) == labels).double().mean())
    assert share > 0.6  # trained: else the other tests would look at a network without anything to find
    for defense in DEFENSES:
        assert value_of(cell_of(warm.record, defense), "ann_accuracy") == pytest.approx(share, abs=1e-12)
    (accuracy,) = [v for v in cell_of(warm.record, "ann").values if v.metric == "accuracy"]
    assert (accuracy.value, accuracy.n) == (pytest.approx(share, abs=1e-12), len(labels))


def test_a_defence_s_reads_steps_and_weight_motion(warm: Warm) -> None:
    ann, han, random, ours = rows = [cell_of(warm.record, name) for name in DEFENSES]
    # images = 16 of 48 and han2020's 512, i.e. all, no image twice; the other controls read none
    assert [value_of(cell, "training_images_read") for cell in rows] == [0, 48, 0, 16]
    assert [value_of(cell, "timesteps") for cell in rows] == [1, 4, 4, 4]
    assert [cell.timesteps for cell in rows] == [None, 4, 4, 4]
    # a conversion by thresholds leaves the weights; float64 sums round at 1e-12
    for cell in (ann, han, ours):
        assert value_of(cell, "weight_cosine") == pytest.approx(1, abs=1e-9)
    assert abs(value_of(random, "weight_cosine")) < 0.1  # 50 000 random weights: standard deviation 1/sqrt(50000)
    assert {motion.relative_norm for motion in (*han.motion, *ours.motion)} == {0.0}
    assert all(motion.relative_norm > 0.5 for motion in random.motion)
    spike_norm = {"encoder": "poisson", "leak": 1.0, "calibration_steps": None}
    assert han.defense_params == {"images": 512, "beta": 1.0, **spike_norm}
    assert ours.defense_params == {"images": 16, **spike_norm}


def test_energy_ratios_follow_from_the_recorded_operations(warm: Warm) -> None:
    """E_ANN = sum F_l E_MAC, E_SNN = sum F_l R_l E_AC with R_l spikes in per input neuron (docs/method.md, Energy)."""
    macs = [8 * 8 * 1 * 9 * 32, 4 * 4 * 32 * 9 * 64, 256 * 128, 128 * 3]
    for defense in DEFENSES[1:]:
        cell = cell_of(warm.record, defense)
        assert [layer.macs for layer in cell.energy] == macs
        assert [layer.input_neurons for layer in cell.energy] == [64, 32 * 4 * 4, 64 * 2 * 2, 128]
        accumulates = sum(layer.macs * layer.spikes_in / layer.input_neurons for layer in cell.energy)
        for name, mac, ac in (("int32", 3.2, 0.1), ("fp32", 4.6, 0.9)):
            expected = sum(macs) * mac / (accumulates * ac)
            assert value_of(cell, f"energy_ratio_{name}") == pytest.approx(expected, rel=1e-9)
    assert not cell_of(warm.record, "ann").energy


def test_the_poisson_code_sets_the_spikes_of_the_first_layer(warm: Warm) -> None:
    """T times the mean brightness of the test images, up to the code's noise."""
    images, _ = held_out(warm.tiny)
    x = images.double() / 255
    expected = 4 * float(x.sum()) / len(x)
    deviation = float((4 * x * (1 - x)).sum() ** 0.5) / len(x)
    for defense in DEFENSES[1:]:
        spikes = cell_of(warm.record, defense).energy[0].spikes_in
        assert abs(spikes - expected) < 5 * deviation  # five standard deviations of the mean over 12 images


def test_attacks_are_counted(warm: Warm) -> None:
    assert value_of(cell_of(warm.record, OURS, "direct (iterations=1)"), "gradient_steps") == 1
    for defense in DEFENSES:
        direct, gated = cell_of(warm.record, defense, "direct"), cell_of(warm.record, defense, "gated")
        assert value_of(direct, "gradient_steps") == 2  # direct.iterations
        assert value_of(gated, "gradient_steps") == 0
        assert value_of(gated, "queries") == 0
        for cell in (direct, gated):
            assert {v.n for v in cell.values if v.metric in MEASURED_ON_ITS_IMAGES} == {2 * len(CLASSES)}
            hits = value_of(cell, "judge_accuracy") * 6
            assert hits == pytest.approx(round(hits), abs=1e-9)
            assert 0 <= value_of(cell, "victim_confidence") <= 1


def test_anchors_calibrate(warm: Warm) -> None:
    noise, real = cell_of(warm.record, "", "noise"), cell_of(warm.record, "", "real")
    assert value_of(real, "judge_accuracy") == 1  # the judges were trained on these three easy classes
    for metric in ("fd_bnconv", "kd_bnconv", "knn_distance"):
        assert value_of(real, metric) < value_of(noise, metric)
    assert value_of(real, "kes") > value_of(noise, "kes") + 0.3  # of chance 1/3
    # three draws of two images of each class are counted together; a distance stays one at six images
    for cell, draws in ((noise, 3), (cell_of(warm.record, "", "noise (fresh draw)"), 1)):
        n = {v.metric: v.n for v in cell.values}
        assert (n["judge_accuracy"], n["fd_bnconv"]) == (draws * 6, 6)
        assert {score.n for score in cell.classes if score.metric == "judge_accuracy"} == {draws * 2}


def test_a_fresh_draw_is_another_one(warm: Warm) -> None:
    for anchor in ("noise", "real"):
        drawn, fresh = cell_of(warm.record, "", anchor), cell_of(warm.record, "", f"{anchor} (fresh draw)")
        assert drawn.artifacts["images"] != fresh.artifacts["images"]
        assert drawn.pictures and not fresh.pictures


def test_two_judges_and_their_ensemble_are_tested_on_images_that_no_anchor_draws_from(warm: Warm) -> None:
    found = {judge.name: judge for judge in warm.record.judges}
    assert found.keys() == {"bnconv", "mixer", "ensemble"}
    for judge in found.values():
        assert judge.dataset == warm.tiny.dataset
        assert judge.accuracy.n == judge.corrupted.n == len(held_out(warm.tiny)[1]) // 2
        assert judge.accuracy.value > 0.8
        assert judge.summary
    assert {f"judge {name}" for name in ("bnconv", "mixer")} < cell_of(warm.record, "", "noise").artifacts.keys()


def test_scales_rows_and_verdicts_are_of_these_cells(warm: Warm) -> None:
    record = warm.record
    needs = {plugin.name: plugin.needs for plugin in record.plugins if plugin.kind == "attack"}
    assert conclude(record.cells, needs) == Evidence(record.scales, record.rows, record.verdicts)
    assert [scale.metric for scale in record.scales][:2] == ["judge_accuracy", "daa"]
    assert [(row.defense, row.attack) for row in record.rows] == [
        (LABELS[d], LABELS[a]) for d in DEFENSES for a in ATTACKS
    ]
    assert [verdict.defense for verdict in record.verdicts] == [OURS_LABEL]
    # three classes can be dealt in six ways, so that no p below 1/6 is to be had: nothing can be told
    assert all(row.p is not None and row.p >= 1 / 6 for row in record.rows)
    assert {row.validity for row in record.rows} == {"invalid"}
    assert record.verdicts[0].outcome == "inconclusive"
    (row,) = [row for row in record.rows if (row.defense, row.attack) == (OURS_LABEL, DIRECT_LABEL)]
    assert [gate.name for gate in row.gates] == ["G1", "G2", "G3", "G4", "G5"]
    assert f"({DIRECT_LABEL} (iterations=1))" in row.gates[3].reason


def test_pictures_are_there_inside_and_of_their_class(warm: Warm) -> None:
    images, labels = held_out(warm.tiny)
    tests = {(image.numpy().tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}
    paths = []
    for cell in warm.record.cells:
        wanted = 0 if cell.of or (cell.defense and not cell.attack) else 2 * len(CLASSES)
        assert len(cell.pictures) == wanted
        assert sorted(picture.target for picture in cell.pictures) == [0, 0, 1, 1, 2, 2][:wanted]
        for picture in cell.pictures:
            path = (warm.out / picture.path).resolve()
            assert path.is_relative_to((warm.out / "images").resolve())
            with Image.open(path) as image:
                assert (image.format, image.size, image.mode) == ("PNG", (8, 8), "L")
                pixels = np.asarray(image)
            if cell.attack == "real":
                assert (pixels.tobytes(), picture.target) in tests
            paths.append(path)
    assert len(set(paths)) == len(paths) == (2 + len(DEFENSES) * len(ATTACKS)) * 6
    assert set(warm.out.rglob("*.png")) == set(paths)


@pytest.mark.slow
def test_long_names_do_not_mix_pictures_up(warm: Warm, tmp_path: Path) -> None:
    """Folders are named by data set, seed and label, and names have to end somewhere: no two cells may meet there."""
    deep, attack = tmp_path / ("a" * 60) / ("b" * 60) / "shapes", tmp_path / "long.py"
    deep.parent.mkdir(parents=True)
    attack.write_text(
        "import torch\n"
        "from pydantic import Field\n"
        "from leakbench.contracts import Access, Attack, Params\n"
        "class LongParams(Params):\n"
        '    number: int = Field(1, ge=1, description="number")\n'
        "class Long(Attack[LongParams]):\n"
        '    """Random images."""\n'
        f'    name = "{"long" * 25}"\n'
        "    needs = Access.LABELS\n"
        "    def run(self, victim, targets, context):\n"
        "        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)\n",
        encoding="utf-8",
    )
    options = warm.tiny.options(
        dataset=[f"folder:{copied(warm.tiny.images, deep)}"],
        attack=[f"{attack}:Long"],
        controls=False,
        seeds=2,
        set={f"{OURS}.images": ["16"], f"{'long' * 25}.number": ["1", "2"]},
    )
    record = run_here(options, warm.grown, tmp_path / "run")
    paths = [picture.path for cell in record.cells for picture in cell.pictures]
    assert len(paths) == 2 * (2 + 2) * 6  # seeds x (anchors, variants) x images
    assert len(set(paths)) == len(paths)


def test_no_more_than_ten_pictures_of_a_class_are_written(tmp_path: Path) -> None:
    images = torch.arange(36, dtype=torch.uint8).view(36, 1, 1, 1).expand(36, 3, 4, 5)
    targets = torch.arange(36) % 3
    opinions = torch.full((36, 3), 0.2)
    opinions[:, 1] = 0.6
    pictures = write_pictures(images, targets, tmp_path, Path("images") / "here", opinions)
    assert [picture.target for picture in pictures] == targets.tolist()[:30]  # the first ten of each, in their order
    assert {(picture.named, round(picture.confidence or 0, 6)) for picture in pictures} == {(1, 0.6)}
    assert len({picture.path for picture in pictures}) == len(list(tmp_path.rglob("*.png"))) == 30
    for number, picture in enumerate(pictures):
        with Image.open(tmp_path / picture.path) as image:
            assert (image.size, image.mode, image.getpixel((0, 0))) == ((5, 4), "RGB", (number,) * 3)


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


@pytest.mark.slow
def test_the_reporter_hears_of_every_cell_once(warm: Warm, tmp_path: Path) -> None:
    reporter = Quiet()
    run_here(warm.tiny.options(), warm.cache, tmp_path / "run", reporter=reporter)
    ended = [job.title for job, _ in reporter.ended_jobs if job.is_cell]
    assert sum(job.is_cell for job in reporter.jobs) == CELLS
    assert len(ended) == len(set(ended)) == CELLS
    assert {result.seconds for _, result in reporter.ended_jobs} == {0}  # all of it was in the store


# --- the same again ----------------------------------------------------------------------------------------------


def test_a_second_run_computes_nothing_and_records_the_same(warm: Warm, tmp_path: Path) -> None:
    before = artifacts(warm.cache)
    record = run_here(warm.tiny.options(), warm.cache, tmp_path / "run")
    assert artifacts(warm.cache) == before
    without = {"created", "seconds", "command"}
    assert record.model_dump(exclude=without) == warm.record.model_dump(exclude=without)
    pictures = {path.relative_to(warm.out): path.read_bytes() for path in warm.out.rglob("*.png")}
    assert {p.relative_to(tmp_path / "run"): p.read_bytes() for p in (tmp_path / "run").rglob("*.png")} == pictures


@pytest.mark.slow
def test_a_precision_makes_networks_of_its_own_and_is_recorded(warm: Warm, tmp_path: Path) -> None:
    cache = copied(warm.cache, tmp_path / "cache")
    record = run_here(warm.tiny.options(precision="bfloat16"), cache, tmp_path / "run")
    assert (warm.record.environment["precision"], record.environment["precision"]) == ("float32", "bfloat16")
    for before, after in zip(warm.record.cells, record.cells, strict=True):
        if before.defense:
            spikes = before.timesteps is not None
            assert (before.artifacts["victim"] == after.artifacts["victim"]) != spikes


@pytest.mark.slow
def test_one_network_and_one_simulation_serve_all_timesteps(warm: Warm, tmp_path: Path) -> None:
    settings = {f"{OURS}.calibration_steps": ["4"]}
    options = warm.tiny.options(timesteps=["8", "16"], set=settings, attack=["direct"], controls=False)
    record = run_here(options, copied(warm.cache, tmp_path / "cache"), tmp_path / "run")
    alone = {c.timesteps: c for c in record.cells if c.defense_name == OURS and not c.attack}
    attacked = {c.timesteps: c for c in record.cells if c.defense_name == OURS and c.attack and not c.of}
    assert sorted(alone) == sorted(attacked) == [8, 16]
    assert {c.defense for c in record.cells if c.defense} == {
        f"{OURS}[calibration_steps=4,T={steps}]" for steps in (8, 16)
    }
    for role in ("victim", "utility"):
        assert alone[8].artifacts[role] == alone[16].artifacts[role]
    assert attacked[8].artifacts["images"] != attacked[16].artifacts["images"]
    # half the steps, about half the spikes into the last layer
    early, late = (alone[steps].energy[-1].spikes_in for steps in (8, 16))
    assert 0 < early < 0.8 * late


@pytest.mark.slow
def test_two_jobs_give_the_same_numbers_as_one(warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to the last bit, from the networks on, whatever number of threads the environment asks for."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    cache = copied(warm.cache, tmp_path / "cache")
    forget(cache, "victim")
    record = run_here(warm.tiny.options(controls=False), cache, tmp_path / "run", jobs=2)
    assert {cell.status for cell in record.cells} == {"ok"}
    assert len(record.cells) == ALONE
    assert numbers(record) == numbers(warm.record, OURS)
    assert artifacts(tmp_path / "cache").keys() < artifacts(warm.cache).keys()


@pytest.mark.slow
def test_a_damaged_artifact_is_mended_and_the_cell_says_so(warm: Warm, tmp_path: Path) -> None:
    cache = copied(warm.cache, tmp_path / "cache")
    key = cell_of(warm.record, OURS).artifacts["victim"]
    tensors = cache / "objects" / key[:2] / key / "tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-5] ^= 4
    tensors.write_bytes(data)
    record = run_here(warm.tiny.options(), cache, tmp_path / "run")
    assert numbers(record) == numbers(warm.record)
    warned = [(cell.defense, cell.attack, line) for cell in record.cells for line in cell.warnings]
    assert [(defense, attack) for defense, attack, _ in warned] == [(OURS_LABEL, "")]
    assert key[:12] in warned[0][2]
    assert tensors.read_bytes() == (warm.cache / tensors.relative_to(cache)).read_bytes()


# --- keys --------------------------------------------------------------------------------------------------------


BOTH_JUDGES = ("judge bnconv", "judge mixer")


def keys_of(record: RunRecord, seed: int = 0) -> dict[str, str]:
    """role -> key of the cell direct on what was asked for, and of what it stands on."""
    found = {**cell_of(record, OURS, seed=seed).artifacts, **cell_of(record, OURS, "direct", seed).artifacts}
    return {role: found[role] for role in ("ann", *BOTH_JUDGES, "victim", "images")}


@pytest.fixture
def alone(warm: Warm) -> dict[str, Any]:
    """The options of the tiny grid with one defence and one attack."""
    return warm.tiny.options(attack=["direct"], controls=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "options"),
    [
        ({"victim", "images"}, {"timesteps": ["3"]}),
        ({"victim", "images"}, {"set": {"direct.iterations": ["2"], f"{OURS}.images": ["15"]}}),
        ({"images"}, {"set": {"direct.iterations": ["3"], f"{OURS}.images": ["16"]}}),
        ({"images"}, {"images_per_class": 4}),
        (set(), {"preset": "standard"}),  # whatever it sets is set by options here
        (set(), {"attack": ["direct", "reconversion"]}),
    ],
    ids=["timesteps", "defence-params", "attack-params", "images-per-class", "preset", "another-attack"],
)
def test_an_option_changes_the_keys_of_what_it_enters_and_no_other(
    warm: Warm, alone: dict[str, Any], tmp_path: Path, changed: set[str], options: dict[str, Any]
) -> None:
    before = keys_of(warm.record)
    after = keys_of(run_here({**alone, **options}, warm.grown, tmp_path / "run"))
    assert {role for role in before if before[role] != after[role]} == changed


@pytest.mark.slow
def test_the_seed_the_weights_and_the_version_are_in_the_keys(
    warm: Warm, alone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, cache = keys_of(warm.record), warm.grown

    def changed(after: dict[str, str]) -> set[str]:
        return {role for role in before if before[role] != after[role]}

    seeds = run_here({**alone, "seeds": 2}, cache, tmp_path / "seeds")
    assert changed(keys_of(seeds, seed=0)) == set()
    assert changed(keys_of(seeds, seed=1)) == {"victim", "images"}  # the ANN is given; judges have seeds of their own
    weights = load_file(warm.tiny.checkpoint)
    weights["10.weight"][0, 0] += 1e-4
    save_file(weights, tmp_path / "other.safetensors")
    other = run_here({**alone, "ann": str(tmp_path / "other.safetensors")}, cache, tmp_path / "weights")
    assert changed(keys_of(other)) == {"ann", "victim", "images"}
    monkeypatch.setattr(Direct, "version", Direct.version + 1)
    assert changed(keys_of(run_here(alone, cache, tmp_path / "version"))) == {"images"}


@pytest.mark.slow
def test_one_changed_pixel_changes_every_key(warm: Warm, alone: dict[str, Any], tmp_path: Path) -> None:
    images = copied(warm.tiny.images, tmp_path / "shapes")
    path = images / "bars" / "00.png"
    with Image.open(path) as image:
        pixels = np.asarray(image).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    after = keys_of(run_here({**alone, "dataset": [f"folder:{images}"]}, tmp_path / "cache", tmp_path / "run"))
    before = keys_of(warm.record)
    assert {role for role in before if before[role] != after[role]} == {"ann", *BOTH_JUDGES, "victim", "images"}


def test_places_and_devices_are_in_no_key(warm: Warm, alone: dict[str, Any], tmp_path: Path) -> None:
    """Data set, weights and store elsewhere, the device by another name: nothing is computed again."""
    moved = replace(
        warm.tiny,
        images=copied(warm.tiny.images, tmp_path / "elsewhere"),
        checkpoint=Path(tmp_path / "w.safetensors"),
    )
    moved.checkpoint.write_bytes(warm.tiny.checkpoint.read_bytes())
    cache = copied(warm.cache, tmp_path / "cache")
    record = run_here(
        {**alone, "dataset": [moved.dataset], "ann": str(moved.checkpoint)}, cache, tmp_path / "run", device="cpu:0"
    )
    assert keys_of(record) == keys_of(warm.record)
    assert artifacts(cache) == artifacts(warm.cache)


@pytest.mark.slow
def test_the_code_of_a_plugin_file_is_in_the_key(warm: Warm, tmp_path: Path) -> None:
    """An author who edits a file and runs it again must not be shown what the old code made."""
    cache, plugin = warm.grown, tmp_path / "grey.py"
    seen = []
    for brightness in (0.2, 0.8):
        plugin.write_text(
            "import torch\n"
            "from leakbench.contracts import Access, Attack, Params\n"
            "class Grey(Attack[Params]):\n"
            '    """Grey images."""\n'
            '    name = "grey"\n'
            "    needs = Access.LABELS\n"
            "    def run(self, victim, targets, context):\n"
            f"        return torch.full((len(targets), *victim.image_shape), {brightness})\n",
            encoding="utf-8",
        )
        out = tmp_path / f"run-{brightness}"
        options = warm.tiny.options(attack=[f"{plugin}:Grey"], controls=False, set={f"{OURS}.images": ["16"]})
        record = run_here(options, cache, out)
        with Image.open(out / cell_of(record, OURS, "grey").pictures[0].path) as image:
            seen.append(image.getpixel((0, 0)))
    assert seen == [51, 204]


GREYS = '''
import torch
from leakbench.contracts import Access, Attack, Params


class Dark(Attack[Params]):
    """Grey images."""

    name = "grey"
    needs = Access.LABELS
    brightness = 0.2

    def run(self, victim, targets, context):
        return torch.full((len(targets), *victim.image_shape), self.brightness)


class Light(Dark):
    brightness = 0.8


class Edited(Dark):
    name = "edited"

    def run(self, victim, targets, context):
        with open(__file__, "a") as file:
            file.write("\\n")
        return super().run(victim, targets, context)


class Shares(Dark):
    name = "shares"
    uses_public = True

    def run(self, victim, targets, context):
        shared = context.shared("draw", 1, {}, lambda own: {"draw": torch.rand(1)})["draw"]
        context.finding("shared", float(shared))
        context.finding("own", float(torch.rand(1)))
        return super().run(victim, targets, context)


class Surrogate(Dark):
    name = "surrogate"

    def run(self, victim, targets, context):
        raise OSError("no file \\udcff")
'''


@pytest.mark.slow
def test_two_classes_of_one_file_and_name_are_two_attacks(warm: Warm, tmp_path: Path) -> None:
    """A variant that inherits its name, too, must not be shown what the other class made."""
    plugin = tmp_path / "greys.py"
    plugin.write_text(GREYS, encoding="utf-8")
    seen = []
    for name in ("Dark", "Light"):
        options = warm.tiny.options(attack=[f"{plugin}:{name}"], controls=False, set={f"{OURS}.images": ["16"]})
        record = run_here(options, warm.grown, tmp_path / name)
        with Image.open(tmp_path / name / cell_of(record, OURS, "grey").pictures[0].path) as image:
            seen.append(image.getpixel((0, 0)))
    assert seen == [51, 204]


@pytest.mark.slow
def test_a_plugin_that_is_edited_under_way_is_not_kept_as_what_it_was(warm: Warm, tmp_path: Path) -> None:
    plugin = tmp_path / "greys.py"
    plugin.write_text(GREYS, encoding="utf-8")
    options = warm.tiny.options(defense=["ann", "han2020"], attack=[f"{plugin}:Edited"], controls=False, set={})
    record = run_here(options, warm.grown, tmp_path / "run")
    assert cell_of(record, "ann", "edited").status == "ok"
    late = cell_of(record, "han2020", "edited")
    assert late.status == "failed"
    assert "was edited while the run was under way" in late.reason


@pytest.mark.slow
def test_what_is_shared_does_not_depend_on_who_asks_first(warm: Warm, tmp_path: Path) -> None:
    """Layers of torch draw their weights from the global generator."""
    plugin = tmp_path / "greys.py"
    plugin.write_text(GREYS, encoding="utf-8")
    found = []
    for order in (["ann", "random"], ["random", "ann"]):
        cache = copied(warm.cache, tmp_path / f"cache-{order[0]}")
        options = warm.tiny.options(defense=order, attack=[f"{plugin}:Shares"], controls=False, set={})
        record = run_here(options, cache, tmp_path / order[0])
        cells = {name: cell_of(record, name, "shares").findings for name in order}
        assert all(len(findings) == 2 for findings in cells.values())
        found.append(cells)
    assert found[0] == found[1]


def test_words_that_utf8_cannot_hold_are_recorded_as_escapes(warm: Warm, tmp_path: Path) -> None:
    plugin = tmp_path / "greys.py"
    plugin.write_text(GREYS, encoding="utf-8")
    options = warm.tiny.options(defense=["ann"], attack=[f"{plugin}:Surrogate"], controls=False, set={})
    run_here(options, warm.grown, tmp_path / "run")
    record = RunRecord.model_validate_json((tmp_path / "run" / "results.json").read_bytes())
    assert cell_of(record, "ann", "surrogate").reason == "OSError: no file \\udcff"


# --- what plugins do wrong ---------------------------------------------------------------------------------------

WRONG = '''
"""Defences and attacks that go wrong."""

import os

import torch

from leakbench.contracts import Access, Attack, Defense, Params
from leakbench.errors import NotApplicable
from leakbench.snn import SpikingConfig, SpikingNetwork, balance_thresholds


def convert(ann, context):
    network = SpikingNetwork.from_ann(ann, SpikingConfig(context.timesteps))
    images = torch.rand(8, *ann.image_shape, generator=context.generator)
    balance_thresholds(network, images, context.seed())
    return network


class Raises(Defense[Params]):
    """Raises."""

    name = "raises"

    def protect(self, ann, data, context):
        with open(os.environ["LEAKBENCH_TEST_CALLS"], "a") as file:
            file.write("called\\n")
        raise ZeroDivisionError("my mistake\\nwith a second line")


class Elsewhere(Defense[Params]):
    """Does not apply."""

    name = "elsewhere"

    def protect(self, ann, data, context):
        raise NotApplicable("elsewhere needs batch norm: the network has none")


class Nan(Defense[Params]):
    """A weight becomes NaN."""

    name = "nan"

    def protect(self, ann, data, context):
        network = convert(ann, context)
        with torch.no_grad():
            next(network.parameters()).view(-1)[0] = float("nan")
        return network


class Overflow(Defense[Params]):
    """Weights are finite, what comes out is not."""

    name = "overflow"
    spiking = False

    def protect(self, ann, data, context):
        import copy

        network = copy.deepcopy(ann)
        with torch.no_grad():
            for weight in network.parameters():
                weight.fill_(3e38)
        return network


class Bare(Defense[Params]):
    """Returns a module that is no network of the contract."""

    name = "bare"

    def protect(self, ann, data, context):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))


class InPlace(Defense[Params]):
    """Writes to the ANN."""

    name = "in-place"

    def protect(self, ann, data, context):
        with torch.no_grad():
            next(ann.parameters()).mul_(0.5)
        return convert(ann, context)


class Zero(Defense[Params]):
    """All weights of the last layer zero: useless, but allowed."""

    name = "zero"
    spiking = False

    def protect(self, ann, data, context):
        import copy

        network = copy.deepcopy(ann)
        with torch.no_grad():
            for weight in network.parameters():
                weight.zero_()
        return network


class Sharing(Defense[Params]):
    """Keeps a set of its own under the name that built-in defences use for theirs."""

    name = "sharing"

    def protect(self, ann, data, context):
        made = context.shared("synthetic", 1, {"mine": 1}, lambda own: {"x": torch.rand(3, generator=own.generator)})
        assert made["x"].shape == (3,)
        return convert(ann, context)


class WrongShape(Attack[Params]):
    """Images of another size."""

    name = "wrong-shape"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        return torch.zeros(len(targets), 1, 4, 4)


class NanImages(Attack[Params]):
    """Images of NaN."""

    name = "nan-images"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        return torch.full((len(targets), *victim.image_shape), float("nan"))


class Bright(Attack[Params]):
    """Images outside [0, 1]."""

    name = "bright"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        return torch.full((len(targets), *victim.image_shape), 1.5)


class Grey(Attack[Params]):
    """Lying stripes for the class of lying stripes, black for the others."""

    name = "grey"
    needs = Access.WEIGHTS

    def run(self, victim, targets, context):
        images = torch.zeros(len(targets), *victim.image_shape)
        images[targets == 2, :, 1:3] = 1
        return images


class Tampers(Grey):
    """The same pictures, after writing to the victim."""

    name = "tampers"

    def run(self, victim, targets, context):
        with torch.no_grad():
            for weight in victim.network.parameters():
                weight.zero_()
        return super().run(victim, targets, context)


class Greedy(Attack[Params]):
    """Reaches for more than it asked for."""

    name = "greedy"
    needs = Access.SCORES

    def run(self, victim, targets, context):
        return victim.network
'''


ALONE_WITH_DIRECT: dict[str, Any] = {"attack": ["direct"], "controls": False, "set": {"direct.iterations": ["2"]}}


@pytest.fixture
def wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "wrong.py"
    path.write_text(WRONG, encoding="utf-8")
    monkeypatch.setenv("LEAKBENCH_TEST_CALLS", str(tmp_path / "calls"))
    return path


@pytest.mark.slow
def test_a_defence_that_fails_fails_its_own_cells_and_no_other(warm: Warm, wrong: Path, tmp_path: Path) -> None:
    defenses = ["Raises", "Elsewhere", "Nan", "Overflow", "InPlace"]
    options = warm.tiny.options(defense=[*(f"{wrong}:{name}" for name in defenses), OURS])
    record = run_here(options, warm.grown, tmp_path / "run")
    assert record.complete
    expected = {
        "raises": ("failed", "ZeroDivisionError: my mistake"),
        "elsewhere": ("not-applicable", "elsewhere needs batch norm: the network has none"),
        "nan": ("failed", "nan: the protected network holds NaN or infinity in"),
        "overflow": ("failed", "the protected network puts out NaN or infinity"),
        "in-place": ("failed", "in-place.protect changed the ANN in place"),
    }
    for name, (status, reason) in expected.items():
        cells = [cell_of(record, name, attack) for attack in ("", "direct", "gated")]
        assert {cell.status for cell in cells} == {status}
        assert len({cell.reason for cell in cells}) == 1  # the attacks' cells give the defence's reason
        assert cells[0].reason.startswith(reason)
        assert not any(cell.values or cell.pictures for cell in cells)
        assert all(("Traceback" in cell.traceback) == (status == "failed") for cell in cells)
    assert "wrong.py" in cell_of(record, "raises").traceback
    assert "with a second line" in cell_of(record, "raises").traceback
    assert (tmp_path / "calls").read_text().splitlines() == ["called"]  # not tried again for each attack
    assert numbers(record, *DEFENSES) == numbers(warm.record)
    # what failed tells nothing, and the others' verdicts stand
    assert {
        (verdict.defense, verdict.outcome, verdict.attack)
        for verdict in record.verdicts
        if verdict.defense != OURS_LABEL
    } == {(name, "inconclusive", "") for name in expected}
    assert [verdict for verdict in record.verdicts if verdict.defense == OURS_LABEL] == warm.record.verdicts


@pytest.mark.slow
def test_attacks_that_break_the_contract_fail_alone(warm: Warm, wrong: Path, tmp_path: Path) -> None:
    attacks = ["WrongShape", "NanImages", "Bright", "Greedy"]
    options = warm.tiny.options(attack=[*(f"{wrong}:{name}" for name in attacks), "direct"], controls=False)
    record = run_here(options, warm.grown, tmp_path / "run")
    reasons = {
        "wrong-shape": ("failed", "wrong-shape.run must return images of shape (6, 1, 8, 8), got (6, 1, 4, 4)"),
        "nan-images": ("failed", "nan-images made images with NaN or infinity"),
        "bright": ("failed", "bright.run must return images in [0, 1]"),
        "greedy": ("not-applicable", "the attack needs WEIGHTS, the victim grants SCORES"),
    }
    for name, (status, reason) in reasons.items():
        cell = cell_of(record, OURS, name)
        assert (cell.status, cell.reason.startswith(reason)) == (status, True), cell.reason
    assert cell_of(record, OURS).status == cell_of(record, OURS, "direct").status == "ok"


@pytest.mark.slow
def test_an_attack_cannot_change_the_victim_it_is_measured_on(warm: Warm, wrong: Path, tmp_path: Path) -> None:
    """The victim's confidence is a gate of the verdict: it is the protected network's and not what an attack left."""
    targets = [f"{wrong}:Grey", f"{wrong}:Tampers"]
    options = warm.tiny.options(defense=["ann"], attack=targets, controls=False, set={})
    record = run_here(options, warm.grown, tmp_path / "run")
    honest, tampered = cell_of(record, "ann", "grey"), cell_of(record, "ann", "tampers")
    assert abs(value_of(honest, "victim_confidence") - 1 / 3) > 1e-3  # of zero weights it would be 1/3
    if tampered.status == "ok":  # else it was caught, which is right, too
        for metric in ("victim_confidence", "victim_accuracy", "judge_accuracy"):
            assert value_of(tampered, metric) == value_of(honest, metric)


def test_a_reason_is_one_line_whatever_a_plugin_returns(warm: Warm, wrong: Path, tmp_path: Path) -> None:
    options = warm.tiny.options(defense=[f"{wrong}:Bare"], **ALONE_WITH_DIRECT)
    record = run_here(options, warm.grown, tmp_path / "run")
    cell = cell_of(record, "bare")
    assert cell.status == "failed"
    assert "bare.protect must return a SpikingNetwork or an ImageClassifier" in cell.reason
    assert len(cell.reason.splitlines()) == 1


def test_a_useless_network_is_measured(warm: Warm, wrong: Path, tmp_path: Path) -> None:
    options = warm.tiny.options(defense=[f"{wrong}:Zero"], **ALONE_WITH_DIRECT)
    record = run_here(options, warm.grown, tmp_path / "run")
    attacked = cell_of(record, "zero", "direct")
    assert attacked.status == "no-signal"
    assert attacked.reason.startswith("constant network: ")
    assert {cell.status for cell in record.cells if not (cell.defense == "zero" and (cell.attack or cell.of))} == {"ok"}
    assert value_of(cell_of(record, "zero"), "weight_cosine") == 0
    read = RunRecord.model_validate_json((tmp_path / "run" / "results.json").read_bytes())
    assert read == record  # nothing in it that JSON can't hold


@pytest.mark.slow
def test_a_defence_may_share_tensors_under_any_name(warm: Warm, wrong: Path, tmp_path: Path) -> None:
    """What it keeps is its own affair: the record of the whole run must not depend on it."""
    options = warm.tiny.options(defense=[f"{wrong}:Sharing"], **ALONE_WITH_DIRECT)
    record = run_here(options, warm.grown, tmp_path / "run")
    assert {cell.status for cell in record.cells} == {"ok"}
    assert not record.synthetic


@pytest.mark.slow
def test_the_real_anchor_may_take_all_test_images(warm: Warm, tmp_path: Path) -> None:
    """A small data set of one's own, of which anchors draw from one half: LeakBench's control must not fail the run."""
    options = warm.tiny.options(attack=["direct"], images_per_class=4, controls=False)  # 4 test images a class
    record = run_here(options, warm.grown, tmp_path / "run")
    assert {v.n for v in cell_of(record, OURS, "direct").values if v.metric in MEASURED_ON_ITS_IMAGES} == {12}
    real = cell_of(record, "", "real")
    assert real.status != "failed", real.reason
    assert value_of(real, "judge_accuracy") == 1
    assert [picture.target for picture in real.pictures] == [0, 0, 1, 1, 2, 2]  # no image twice


@pytest.mark.slow
def test_a_model_is_trained_where_no_weights_are_given(warm: Warm, tmp_path: Path) -> None:
    options = warm.tiny.options(ann=None, defense=["ann"], seeds=2, **ALONE_WITH_DIRECT)
    record = run_here(options, warm.grown, tmp_path / "run")
    assert {cell.status for cell in record.cells} == {"ok"}
    keys = [cell_of(record, "ann", seed=seed).artifacts["ann"] for seed in (0, 1)]
    assert keys[0] != keys[1] != cell_of(warm.record, "ann").artifacts["ann"]
    store = Store(warm.grown)
    first, second = (store.read(key) for key in keys)
    assert first is not None and second is not None
    assert not torch.equal(first.tensors["body.0.weight"], second.tensors["body.0.weight"])
    # three easy classes, chance is 1/3: 20 epochs of two steps reach more
    assert value_of(cell_of(record, "ann"), "accuracy") > 0.5


# --- what is wrong before anything is computed -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["shape", "classes", "names", "nan", "text", "pickle"])
def test_a_checkpoint_that_does_not_fit_is_one_line_and_leaves_no_run(warm: Warm, tmp_path: Path, fault: str) -> None:
    weights, path = load_file(warm.tiny.checkpoint), tmp_path / "wrong.safetensors"
    if fault == "shape":
        weights["7.weight"] = torch.zeros(128, 1024)
    elif fault == "classes":
        weights = {name: value.contiguous() for name, value in user_network(10).state_dict().items()}
    elif fault == "names":
        weights["features.0.weight"] = weights.pop("0.weight")
    elif fault == "nan":
        weights["3.weight"][0, 0, 0, 0] = float("nan")
    save_file(weights, path)
    if fault == "text":
        path.write_text("no weights")
    elif fault == "pickle":
        torch.save(weights, path)
    before = artifacts(warm.cache)
    with pytest.raises(LeakBenchError) as caught:
        run_here(warm.tiny.options(ann=str(path)), warm.cache, tmp_path / "run")
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    words = {
        "shape": ["'vgg4'", "'7.weight'", "[128, 1024]", "[128, 256]"],
        "classes": ["'vgg4'", "'10.weight'", "[10, 128]", "[3, 128]", "number of classes"],
        "names": ["'vgg4'", "lacks 0.weight", "has also features.0.weight"],
        "nan": ["NaN", "'3.weight'"],
        "text": ["safetensors"],
        "pickle": ["safetensors"],
    }[fault]
    assert [word for word in [*words, "--ann", str(path)] if word not in text] == []
    assert artifacts(warm.cache) == before
    # the same folder must serve the run with the right weights
    record = run_here(warm.tiny.options(), warm.cache, tmp_path / "run")
    assert record.complete


@pytest.mark.parametrize("fault", ["one-class", "broken-image", "missing"])
def test_a_folder_that_is_no_data_set_is_one_line(warm: Warm, tmp_path: Path, fault: str) -> None:
    images = tmp_path / "images"
    if fault == "one-class":
        write_images(images, CLASSES[:1], 3)
    elif fault == "broken-image":
        write_images(images, CLASSES, 3)
        (images / "bars" / "01.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    with pytest.raises(LeakBenchError) as caught:
        run_here(warm.tiny.options(dataset=[f"folder:{images}"]), tmp_path / "cache", tmp_path / "run")
    assert len(str(caught.value).splitlines()) == 1
    word = {"one-class": "two or more are needed", "broken-image": "01.png", "missing": "no such folder"}[fault]
    assert word in str(caught.value)


# --- the run's folder --------------------------------------------------------------------------------------------


def test_a_folder_of_the_same_grid_is_gone_on_with(warm: Warm, tmp_path: Path) -> None:
    config = make_config(warm.tiny.options())
    open_run(tmp_path / "a" / "run", config)
    open_run(tmp_path / "a" / "run", config)
    assert read_grid(tmp_path / "a" / "run") == config


@pytest.mark.parametrize("content", ["another grid", "foreign", "damaged"])
def test_a_folder_that_is_in_use_is_refused(warm: Warm, tmp_path: Path, content: str) -> None:
    out, config = tmp_path / "run", make_config(warm.tiny.options())
    if content == "another grid":
        open_run(out, make_config(warm.tiny.options(seeds=2)))
    else:
        out.mkdir()
        (out / ("grid.json" if content == "damaged" else "thesis.tex")).write_text("mine")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UsageError) as caught:
        open_run(out, config)
    assert len(str(caught.value).splitlines()) == 1
    assert str(out) in str(caught.value)
    assert "choose another" in str(caught.value)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("below", ["file", "file/run"])
def test_a_folder_that_cannot_be_written_is_refused(warm: Warm, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError) as caught:
        open_run(tmp_path / below, make_config(warm.tiny.options()))
    assert len(str(caught.value).splitlines()) == 1
    assert str(tmp_path / below) in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"grid": 3}', '{"grid": {"a": 1}}'])
def test_a_folder_without_a_readable_grid_cannot_be_resumed(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "grid.json").write_text(text)
    with pytest.raises(UsageError, match="--resume") as caught:
        read_grid(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture
def interrupted() -> Iterator[pytest.MonkeyPatch]:
    """Ctrl-C at the second attack, until it is undone."""
    ran: list[str] = []
    run_task = executors.run_task

    def run(workshop: Any, task: Any, cell: Any) -> Any:
        if task == "compute" and cell.attack is not None:
            ran.append(cell.title)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return run_task(workshop, task, cell)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executors, "run_task", run)
        yield patch


@pytest.mark.slow
def test_an_error_in_the_middle_still_leaves_a_partial_record(
    warm: Warm, tmp_path: Path, interrupted: pytest.MonkeyPatch
) -> None:
    """What ended before is written, marked as incomplete."""
    with pytest.raises(KeyboardInterrupt):
        run_here(warm.tiny.options(), warm.cache, tmp_path / "run")
    interrupted.undo()
    record = RunRecord.model_validate_json((tmp_path / "run" / "results.json").read_bytes())
    assert not record.complete
    assert len(record.cells) == 4 + len(DEFENSES) + 1  # anchors, defences, the first attack
    assert numbers(record).items() <= numbers(warm.record).items()
    assert numbers(run_here(warm.tiny.options(), warm.cache, tmp_path / "run")) == numbers(warm.record)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["complete"] is True


@pytest.mark.slow
def test_a_run_that_breaks_off_leaves_the_record_and_the_pictures_of_the_whole_one(
    warm: Warm, tmp_path: Path, interrupted: pytest.MonkeyPatch
) -> None:
    out = copied(warm.out, tmp_path / "run")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(KeyboardInterrupt):
        run_here(warm.tiny.options(), warm.cache, out)
    interrupted.undo()
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert after.keys() - before.keys() == {out / "results.partial.json"}
    assert after.items() > before.items()
    partial = RunRecord.model_validate_json((out / "results.partial.json").read_bytes())
    assert not partial.complete and 0 < len(partial.cells) < len(warm.record.cells)
    run_here(warm.tiny.options(), warm.cache, out)
    assert {path for path in out.rglob("*") if path.is_file()} == before.keys()


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


@pytest.mark.slow
def test_a_plugin_registered_from_python_runs(warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {"attack": {}, "defense": {}})
    registry.register("attack", "mine", registry.load("attack", f"{warm.tiny.gated}:Gated"))
    options = warm.tiny.options(attack=["mine"], controls=False, set={f"{OURS}.images": ["16"]})
    record = run_here(options, warm.grown, tmp_path / "run")
    cell, of_the_file = cell_of(record, OURS, "gated"), cell_of(warm.record, OURS, "gated")  # named by the class
    assert (cell.status, cell.artifacts["victim"]) == ("ok", of_the_file.artifacts["victim"])
    # of the same source, and still another plugin: where it is from is part of the key
    assert cell.artifacts["images"] != of_the_file.artifacts["images"]
    assert numbers(record, OURS).keys() < numbers(warm.record).keys()
