"""What a deployed network is worth and what it costs: accuracy, energy, and how far its weights moved."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

import torch
from pydantic import ConfigDict
from torch import Tensor

from leakbench.bench.stages.ann import TrainedAnn, finite
from leakbench.bench.stages.victim import BuiltVictim
from leakbench.built_ins import GIVEN
from leakbench.cells import UtilityCell
from leakbench.contracts import Context, ImageClassifier, ModuleNetwork
from leakbench.leakage.kind import counted
from leakbench.metrics.accuracy import accuracy
from leakbench.metrics.energy import LayerOperations, energy_ratios
from leakbench.metrics.estimate import Estimate
from leakbench.metrics.motion import LayerMotion, overall_cosine, weight_motion
from leakbench.models.asked import Asking
from leakbench.models.simulation import simulated
from leakbench.models.training import predict
from leakbench.records import Value, value
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.store import Artifact, ArtifactRecord, Content
from leakbench.runtime.workspace import Stage, Workspace
from leakbench.snn import INPUT, SpikingNetwork, relu_network
from leakbench.snn.folding import has_batch_norm, with_biases

UTILITY = Stage("utility", 3)
ANN_UTILITY = Stage("ann-utility", 1)


@dataclass(frozen=True)
class Answers:
    """What a network made of the test images."""

    accuracy: Estimate
    spikes: Mapping[str, float]
    """by layer, mean per image; empty where nothing spikes"""


UNRELATED = 0.3
"""cosine of weights below which they are another network's: conversions have .7 or more, networks that were trained
from other weights 0"""
NEARLY_ALL = 0.9
"""share of the training images, from which on what was read is taken for all of them: the last batch may be left out"""


class UtilityRecord(ArtifactRecord):
    """What is kept: the answers after so many steps under their number, and the reconverted network's accuracy."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Answers]

    reconverted: Estimate | None = None
    """None: nobody can read its layers"""

    def after(self, steps: int) -> Answers:
        """What the network made of them after so many steps (1, where nothing spikes)."""
        return self.__pydantic_extra__[str(steps)]


class AnnUtilityRecord(ArtifactRecord):
    """What is kept of an ANN of which fewer test images are asked than there are."""

    accuracy: Estimate


class _Inputs(TypedDict):
    """What is measured: part of the key."""

    victim: str
    test_images: int | None
    at: NotRequired[list[int]]
    """the steps, where they are several"""
    pools: NotRequired[bool]
    """whether spikes are counted behind max pooling, too, where there is any"""


@dataclass
class Utility:
    """What was measured of a defence alone."""

    artifact: Artifact
    values: list[Value]
    timesteps: int | None = None
    """of the network; None where nothing spikes"""
    weights: str = ""
    """sha256 over the deployed weights; empty where nobody can read them"""
    trained_on_part: bool = False
    """whether it may have been trained on a part of the training images alone: it read no others, and its weights are
    not its ANN's, or can't be compared with these"""
    motion: list[LayerMotion] = field(default_factory=list)
    energy: list[LayerOperations] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def utility(workspace: Workspace, cell: UtilityCell, victim: BuiltVictim) -> Utility:
    """Accuracy and cost of a deployed network."""
    network, data = victim.deployed.network, workspace.dataset(cell.dataset)
    steps = network.config.timesteps if isinstance(network, SpikingNetwork) else 1
    stops = cell.all_timesteps or (steps,)

    def build(context: Context) -> Content:
        picked = _some(len(data.test.labels), cell.test_images)
        images, labels = data.test.images[picked], data.test.labels[picked]
        answers: dict[int, tuple[Tensor, dict[str, int]]] = {}
        if isinstance(network, SpikingNetwork):
            longest = network.configured(dataclasses.replace(network.config, timesteps=max(stops)))
            answers = simulated(
                longest, images, context.seed(), stops, workspace.device, workspace.progress, context.loop("answers")
            )
        else:
            if isinstance(network, ModuleNetwork):
                network.reseed(context.seed())
            answers[1] = predict(network, images, workspace.device, loop=context.loop("answers")), {}
        after = {
            str(stop): Answers(
                accuracy(finite(logits, "the protected network"), labels),
                {name: count / len(images) for name, count in spikes.items()},
            )
            for stop, (logits, spikes) in answers.items()
        }
        if isinstance(network, ModuleNetwork):
            return {}, UtilityRecord.model_validate(after).model_dump()
        twin = predict(relu_network(network), images, workspace.device, loop=context.loop("reconverted answers"))
        reconverted = accuracy(finite(twin, "the reconverted network"), labels)
        return {}, UtilityRecord.model_validate({**after, "reconverted": reconverted}).model_dump()

    inputs: _Inputs = {"victim": victim.deployed.artifact.key, "test_images": cell.test_images}
    if isinstance(network, SpikingNetwork) and network.max_pools:
        inputs["pools"] = True
    if cell.all_timesteps:
        inputs["at"] = list(cell.all_timesteps)
    seed = seed_of("utility", victim=workspace.seed(victim.deployed.artifact))
    artifact = workspace.make(UTILITY, seed, {**inputs}, build, [victim.deployed.artifact])
    record = UtilityRecord.read(artifact)
    measured, of_ann = record.after(steps), _accuracy_of(victim.ann, workspace, cell)
    given = cell.defense.target.startswith(GIVEN)  # what its owner read, nobody knows
    outcome = Utility(
        artifact,
        [
            value("accuracy", measured.accuracy),
            value("ann_accuracy", of_ann),
            *([value("reconverted_accuracy", record.reconverted)] if record.reconverted else []),
            *([] if given else [counted("training_images_read", victim.images_read)]),
            counted("seconds", victim.seconds),
            counted("timesteps", Asking.parse(network.arch).timesteps if isinstance(network, ModuleNetwork) else steps),
        ],
    )
    right = measured.accuracy.value
    if given and right < of_ann.value / 2:
        outcome.warnings.append(
            f"accuracy {right:.2f}, less than half of what the control ANN has ({of_ann.value:.2f}): are its settings, "
            "its data set and the order of its classes right?"
        )
    if isinstance(network, ModuleNetwork):
        return outcome
    ann, twin = victim.ann.network(workspace.device), relu_network(network)
    if has_batch_norm(ann.body) and not has_batch_norm(twin.body):
        ann = with_biases(ann)  # as it was folded for the conversion
    before, after = _weights(ann), _weights(twin)
    outcome.weights = _digest(after)
    # a network that is given was made of an ANN of the user's, if it was made of one
    made_of_it = not given or cell.checkpoint is not None
    turned = 0.0
    if made_of_it and before.keys() == after.keys() and all(before[name].shape == after[name].shape for name in before):
        outcome.motion = weight_motion(before, after)
        turned = overall_cosine(before, after)
        outcome.values.append(counted("weight_cosine", turned))
    part = 0 < victim.images_read < NEARLY_ALL * len(data.train.labels)
    outcome.trained_on_part = not given and part and turned < UNRELATED
    if isinstance(network, SpikingNetwork):
        outcome.timesteps = steps
        outcome.energy = operations(network, measured.spikes)
        ratios = energy_ratios(outcome.energy, steps)
        outcome.values += [counted(name, ratio) for name, ratio in ratios.values.items()]
        outcome.warnings += [f"{name} left out: {reason}" for name, reason in ratios.undefined.items()]
    return outcome


def _accuracy_of(ann: TrainedAnn, workspace: Workspace, cell: UtilityCell) -> Estimate:
    """Of the ANN on the test images that its defences are measured on: on others the loss would be of them, too."""
    test = workspace.dataset(cell.dataset).test
    picked = _some(len(test.labels), cell.test_images)
    if len(picked) == len(test.labels):
        return ann.accuracy

    def build(context: Context) -> Content:
        network = ann.network(workspace.device)
        answers = predict(network, test.images[picked], workspace.device, loop=context.loop("answers of the ANN"))
        return {}, AnnUtilityRecord(accuracy=accuracy(finite(answers, "the ANN"), test.labels[picked])).model_dump()

    seed = seed_of("ann-utility", ann=workspace.seed(ann.artifact))
    inputs = {"ann": ann.artifact.key, "test_images": cell.test_images}
    return AnnUtilityRecord.read(workspace.make(ANN_UTILITY, seed, inputs, build, [ann.artifact])).accuracy


def operations(network: SpikingNetwork, spikes: Mapping[str, float]) -> list[LayerOperations]:
    """The operations of each weight layer, from spikes counted where they are made, and behind max pooling (mean per
    image)."""
    constant, counted = network.config.encoder == "direct", bool(network.max_pools)
    weights = network.weights()
    topology = network.topology
    fed_by = {
        layer.name: [name for name, feeders in topology.feeders.items() if layer.name in feeders]
        for layer in topology.weights
    }
    return [
        LayerOperations(
            layer=layer.name,
            macs=layer.macs,
            input_neurons=layer.input_neurons,
            spikes_in=float(sum(spikes[name] for name in (layer.entered_by if counted else layer.producers))),
            constant_current=constant and INPUT in layer.producers,
            output_neurons=layer.output_neurons,
            parameters=weights[layer.name].numel(),
            spikes_out=float(sum(spikes[name] for name in fed_by[layer.name])),
            spiking_neurons=sum(topology.neurons[name] for name in fed_by[layer.name]),
        )
        for layer in topology.weights
    ]


def _some(total: int, wanted: int | None) -> Tensor:
    """The same ``wanted`` test images for every victim, drawn over the whole split."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    return order[:wanted].sort().values if wanted is not None else torch.arange(total)


def _digest(weights: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and values."""
    digest = hashlib.sha256()
    for name, weight in weights.items():
        digest.update(f"{name} {tuple(weight.shape)} ".encode())
        digest.update(weight.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _weights(network: ImageClassifier) -> dict[str, Tensor]:
    return {
        name: module.weight.detach().cpu()
        for name, module in network.body.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    }
