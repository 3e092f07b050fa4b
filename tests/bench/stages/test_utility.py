"""What a deployed network costs: energy ratios from recorded counts by closed forms, or a reason; all T at once."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from tiny_runs import DEFENSES, OURS, Warm, cell_of, copied, held_out, run_here, value_of

from leakbench.bench.grid import SIZES
from leakbench.bench.stages import utility
from leakbench.metrics.energy import LayerOperations
from leakbench.records import CellRecord
from leakbench.snn import SpikingNetwork

SILENT = '''
"""A conversion under thresholds that nothing reaches."""

from leakbench.contracts import Defense, Params
from leakbench.snn import SpikingConfig, SpikingNetwork


class Silent(Defense[Params]):
    """No neuron ever spikes."""

    name = "silent"

    def protect(self, ann, data, context):
        network = SpikingNetwork.from_ann(ann, SpikingConfig(context.timesteps))
        for layer in network.neurons:
            layer.set_threshold(1e9)
        return network
'''

HASTY = SILENT.replace("Silent", "Hasty").replace("silent", "hasty").replace("context.timesteps", "3")
OWN = HASTY.replace("    def protect", "    takes_timesteps = False\n\n    def protect")


def test_the_papers_ratio_follows_from_the_spikes_per_own_neuron(warm: Warm) -> None:
    own = [32 * 8 * 8, 64 * 4 * 4, 128, 0]
    for defense in DEFENSES[1:]:
        cell = cell_of(warm.record, defense)
        assert [layer.spiking_neurons for layer in cell.energy] == own
        # a chain: what a layer's neurons make is what enters the next, counted before it is pooled
        assert [layer.spikes_out for layer in cell.energy] == [layer.spikes_in for layer in cell.energy[1:]] + [0.0]
        accumulates = sum(
            layer.macs * layer.spikes_out / count for layer, count in zip(cell.energy, own, strict=True) if count
        )
        expected = sum(layer.macs for layer in cell.energy) * 3.2 / (accumulates * 0.1)
        assert value_of(cell, "energy_ratio_paper") == pytest.approx(expected, rel=1e-9)


def test_the_quantised_peer_of_four_steps_has_three_bits(warm: Warm) -> None:
    for defense in DEFENSES[1:]:
        cell = cell_of(warm.record, defense)
        expected = value_of(cell, "energy_ratio_int32") * (3 * 3.1 / 32 + 0.1) / 3.2
        assert value_of(cell, "energy_ratio_quantized") == pytest.approx(expected, rel=1e-9)
        assert 0 < value_of(cell, "energy_ratio_memory") < 100


@pytest.mark.slow
def test_a_silent_network_keeps_its_other_values(warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "silent.py").write_text(SILENT, encoding="utf-8")
    options = warm.tiny.options(defense=[f"{tmp_path}/silent.py:Silent"], attack=["none"], controls=False, set=None)
    cell = cell_of(run_here(options, copied(warm.cache, tmp_path / "cache"), tmp_path / "out"), "silent")
    assert (cell.status, cell.reason) == ("ok", "")
    found = {value.metric for value in cell.values}
    # pixels spike and arrive; no neuron does
    assert {"accuracy", "energy_ratio_int32", "energy_ratio_memory"} <= found and "energy_ratio_paper" not in found
    (line,) = [warning for warning in cell.warnings if "energy" in warning]
    assert (
        line
        == "energy_ratio_paper left out: no neuron made a spike on any image: the paper's energy ratio is undefined"
    )


@pytest.mark.slow
def test_a_network_s_own_time_steps_are_those_of_all_its_cells(warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "hasty.py").write_text(OWN, encoding="utf-8")
    options = warm.tiny.options(defense=[f"{tmp_path}/hasty.py:Hasty"], attack=["direct"], controls=False, set=None)
    record = run_here(options, copied(warm.cache, tmp_path / "cache"), tmp_path / "out")
    cells = [cell for cell in record.cells if cell.defense_name == "hasty"]
    assert record.grid["timesteps"] != 3 and len(cells) > 1
    assert {cell.timesteps for cell in cells} == {3}


FEW = (
    """
from leakbench.defenses.controls import Overfitted

class Few(Overfitted):
    """
    + '"""Trained anew on few images."""'
    + """

    name = "few"
"""
)


@pytest.mark.slow
def test_a_network_that_was_trained_anew_on_a_part_of_the_images_is_marked(warm: Warm, tmp_path: Path) -> None:
    """And none that read a part for its thresholds, or all."""
    (tmp_path / "few.py").write_text(FEW, encoding="utf-8")
    few = f"{tmp_path}/few.py:Few"
    options = warm.tiny.options(
        defense=[few, "han2020", "shuffled"], attack=["none"], controls=False, set={"few.images": 20, "few.epochs": 1}
    )
    record = run_here(options, copied(warm.cache, tmp_path / "cache"), tmp_path / "out")
    assert {cell.defense_name: cell.trained_on_part for cell in record.cells} == {
        "few": True, "han2020": False, "shuffled": False,
    }  # fmt: skip


@pytest.mark.slow
def test_a_network_of_another_t_than_its_row_fails(warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "hasty.py").write_text(HASTY, encoding="utf-8")
    options = warm.tiny.options(defense=[f"{tmp_path}/hasty.py:Hasty"], attack=["none"], controls=False, set=None)
    cell = cell_of(run_here(options, copied(warm.cache, tmp_path / "cache"), tmp_path / "out"), "hasty")
    assert cell.status == "failed" and not cell.values
    assert cell.reason.startswith("hasty: its network has T = 3 where the run asks for 4: take context.timesteps")


@pytest.mark.slow
def test_without_any_spike_the_cell_says_what_it_leaves_out(
    warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = utility.operations

    def none(network: SpikingNetwork, spikes: Mapping[str, float]) -> list[LayerOperations]:
        return [dataclasses.replace(layer, spikes_in=0.0, spikes_out=0.0) for layer in counted(network, spikes)]

    monkeypatch.setattr(utility, "operations", none)
    options = warm.tiny.options(attack=["none"], controls=False, set={f"{OURS}.images": ["16"]})
    cell = cell_of(run_here(options, copied(warm.cache, tmp_path / "cache"), tmp_path / "out"), OURS)
    found = {value.metric for value in cell.values}
    assert cell.status == "ok" and "accuracy" in found
    # neurons are evaluated at every step all the same, which costs memory accesses
    assert {name for name in found if name.startswith("energy")} == {"energy_ratio_memory"}
    assert len([warning for warning in cell.warnings if "left out" in warning]) == 4


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


@pytest.mark.long
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


KILLED = """
import json, os, signal, sys
from leakbench.bench.grid import make_config
from leakbench.bench.pipeline import Pipeline
from leakbench.bench.suites import cells_of
from leakbench.runtime import checkpoints
from leakbench.runtime.process import fixed_threads
from leakbench.runtime.workspace import Settings

checkpoints.EVERY = 0.0
cache, last = sys.argv[1:]
options = {"defense": ["rueckauer2017"], "attack": ["none"], "preset": "quick", "controls": False}
(cell, *_) = cells_of(make_config({**options, "timesteps": ["4", "8"]}))
asked = []

def progress(what, done, total):
    if what == "asking the protected network":
        asked.append(done)
        if len(asked) == int(last):
            os.kill(os.getpid(), signal.SIGKILL)

with fixed_threads(1):
    outcome = Pipeline(Settings(cache), progress).perform("compute", cell)
values = {one.metric: (one.value, one.low, one.high, one.n) for one in outcome.values if one.metric != "seconds"}
layers = [(one.layer, one.spikes_in, one.spikes_out) for one in outcome.energy]
print(json.dumps([values, layers, asked]))
"""


@pytest.mark.long
@pytest.mark.slow
def test_a_process_that_is_killed_goes_on_with_the_images_that_are_left(tmp_path: Path) -> None:
    """360 test images of the digits, in batches of 100, of one network that is read at two T."""

    def run(cache: str, last: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, str(tmp_path / cache), str(last)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    assert run("pieces", 3).returncode == -signal.SIGKILL
    # with the ANN, and the network that is read, of the one that was killed
    for state in copied(tmp_path / "pieces", tmp_path / "whole").glob("objects/*/.state-*"):
        shutil.rmtree(state)
    whole = run("whole", 0)
    assert whole.returncode == 0, whole.stderr
    rest = run("pieces", 0)
    assert rest.returncode == 0, rest.stderr
    *expected, asked = json.loads(whole.stdout)
    *found, asked_again = json.loads(rest.stdout)
    assert (asked, asked_again) == ([0, 100, 200, 300], [200, 300])
    assert found == expected
    assert not list(tmp_path.glob("pieces/objects/*/.state-*"))


@pytest.mark.slow
def test_the_ann_is_measured_on_the_test_images_of_its_defences(
    warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where fewer are asked than there are: the ANN beside its own row has one accuracy, and not two."""
    fewer = SIZES["quick"].model_copy(update={"test_images": 5})
    monkeypatch.setitem(SIZES, "quick", fewer)
    options = warm.tiny.options(defense=["ann", OURS], attack=["none"], controls=False, set={f"{OURS}.images": ["16"]})
    record = run_here(options, copied(warm.cache, tmp_path / "cache"), tmp_path / "out")
    assert {cell.status for cell in record.cells} == {"ok"}, [cell.reason for cell in record.cells]
    own, other = cell_of(record, "ann"), cell_of(record, OURS)
    accuracies = [own_value(own, "accuracy"), own_value(own, "ann_accuracy"), own_value(other, "ann_accuracy")]
    assert len(set(accuracies)) == 1
    assert {n for _, n in [*accuracies, own_value(other, "accuracy")]} == {5}


def own_value(cell: CellRecord, metric: str) -> tuple[float, int]:
    """With the number of images that it is of."""
    (found,) = [value for value in cell.values if value.metric == metric]
    return found.value, found.n
