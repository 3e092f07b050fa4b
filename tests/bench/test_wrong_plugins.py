"""What plugins do wrong ends in their own cells, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_runs import (
    DEFENSES,
    OURS,
    OURS_LABEL,
    Warm,
    cell_of,
    numbers,
    run_here,
    value_of,
)

from leakbench.records import RunRecord

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


@pytest.mark.slow
def test_a_reason_is_one_line_whatever_a_plugin_returns(warm: Warm, wrong: Path, tmp_path: Path) -> None:
    options = warm.tiny.options(defense=[f"{wrong}:Bare"], **ALONE_WITH_DIRECT)
    record = run_here(options, warm.grown, tmp_path / "run")
    cell = cell_of(record, "bare")
    assert cell.status == "failed"
    assert "bare.protect must return a SpikingNetwork or an ImageClassifier" in cell.reason
    assert len(cell.reason.splitlines()) == 1


@pytest.mark.slow
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
