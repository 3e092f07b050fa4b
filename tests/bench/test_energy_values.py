"""Energy ratios of a run: from the recorded counts by closed forms, and left out with a reason where undefined."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
from tiny_runs import DEFENSES, OURS, Warm, cell_of, copied, run_here, value_of

from leakbench.bench import pipeline
from leakbench.metrics.energy import LayerOperations
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


def test_without_any_spike_the_cell_says_what_it_leaves_out(
    warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = pipeline.operations

    def none(network: SpikingNetwork, spikes: Mapping[str, float]) -> list[LayerOperations]:
        return [dataclasses.replace(layer, spikes_in=0.0, spikes_out=0.0) for layer in counted(network, spikes)]

    monkeypatch.setattr(pipeline, "operations", none)
    options = warm.tiny.options(attack=["none"], controls=False, set={f"{OURS}.images": ["16"]})
    cell = cell_of(run_here(options, copied(warm.cache, tmp_path / "cache"), tmp_path / "out"), OURS)
    found = {value.metric for value in cell.values}
    assert cell.status == "ok" and "accuracy" in found
    # neurons are evaluated at every step all the same, which costs memory accesses
    assert {name for name in found if name.startswith("energy")} == {"energy_ratio_memory"}
    assert len([warning for warning in cell.warnings if "left out" in warning]) == 4
