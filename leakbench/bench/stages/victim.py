"""The deployed network of a cell: what a defence makes of the ANN."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import torch

from leakbench.bench.stages.ann import TrainedAnn, Training, trained_ann
from leakbench.bench.stages.shared import SharedArtifacts
from leakbench.cells import UtilityCell
from leakbench.contracts import Context, Defense, DefenseContext, ImageClassifier, TrainingData
from leakbench.errors import NotApplicable, PluginError
from leakbench.leakage import control_training
from leakbench.leakage.controls import BLANK
from leakbench.leakage.kind import Deployed
from leakbench.models.steadiness import Steadiness
from leakbench.models.storage import check_kept, load_network, save_network
from leakbench.runtime.fence import fenced
from leakbench.runtime.plugins import ISOLATED, how_it_runs, isolation_inputs, load_plugin, made_plugin
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.store import Artifact, ArtifactRecord, Content
from leakbench.runtime.workspace import Stage, Workspace
from leakbench.snn import SpikingNetwork
from leakbench.snn.quantization import quantized

VICTIM = Stage("victim", 2)
_GRADIENTS = 2
"""version of what spiking networks' gradients are in less than float32; float32's are the stage's"""
READ = "training images read"
"""the tensor that says which they were, beside the network's own"""


class VictimRecord(ArtifactRecord):
    """What is kept beside a deployed network's tensors."""

    network: Mapping[str, Any]
    """as :func:`save_network` gives it"""
    seconds: float
    training_images_read: int
    training_image_reads: int
    """each time counted"""
    shared: Mapping[str, str]
    findings: Mapping[str, float] = {}


class _Inputs(TypedDict):
    """What the network depends on besides the defence: part of the key."""

    ann: str
    training: NotRequired[str]
    """fingerprint of what a reference was trained on"""
    timesteps: NotRequired[int | None]
    precision: NotRequired[str]
    gradients: NotRequired[int]


@dataclass(frozen=True)
class BuiltVictim:
    """A deployed network and what it took."""

    deployed: Deployed
    ann: TrainedAnn
    seconds: float
    images_read: int
    """different private training images that the defence asked for"""
    shared: Mapping[str, str]
    """name -> key of what it was built on besides the ANN"""
    findings: Mapping[str, float]
    """what the defence measured on its way"""


def built_victim(workspace: Workspace, cell: UtilityCell, training: Training | None = None) -> BuiltVictim:
    """The protected network of a cell, as it is deployed; with ``training`` a reference, in all steps the same."""
    if how_it_runs("defense", cell.defense.target) != ISOLATED:
        load_plugin("defense", cell.defense.target)  # code that stored tensors are of is at hand from here on
    if training is None and (other := control_training(workspace, cell)) is not None:
        training = Training.of(workspace, cell, other, "control")
        cell = cell.model_copy(update={"checkpoint": None})  # the user's weights were trained on who knows what
    # another ANN would be trained in vain where nothing but its shape is taken
    ann = trained_ann(workspace, cell, None if cell.defense.name in BLANK else training)
    made = _protected if cell.defense.quantize == "none" else _quantized
    artifact = made(workspace, cell, ann, training)
    record = VictimRecord.read(artifact)
    deployed = _deployed(workspace, cell, artifact, record)
    return BuiltVictim(deployed, ann, record.seconds, record.training_images_read, record.shared, record.findings)


def _identity(workspace: Workspace, cell: UtilityCell, ann: TrainedAnn, training: Training | None) -> dict[str, Any]:
    """What seeds follow from, besides the defence."""
    of_reference = {} if training is None else {"training": training.fingerprint}
    return {"ann": workspace.seed(ann.artifact), "replicate": cell.replicate, **of_reference}


def _seed(cell: UtilityCell, identity: Mapping[str, Any], **more: str) -> int:
    return seed_of("victim", **identity, plugin=cell.defense.plugin, params={**cell.defense.changed, **more})


def _protected(workspace: Workspace, cell: UtilityCell, ann: TrainedAnn, training: Training | None) -> Artifact:
    """What the defence makes of the ANN."""
    variant, data = cell.defense, workspace.dataset(cell.dataset)
    split = data.train if training is None else training.split
    isolated = isolation_inputs("defense", variant.target)
    identity = _identity(workspace, cell, ann, training)
    seed = _seed(cell, identity)
    built_on = {"ann": ann.artifact.key, **variant.source, **isolated}
    shared = SharedArtifacts(workspace, built_on, identity, DefenseContext)

    def build(context: DefenseContext) -> Content:
        plugin = made_plugin("defense", variant.target, variant.params, variant.code)
        context.timesteps = cell.timesteps or 1
        context.precision = cell.precision
        context.flips = data.flips
        context.shared_store = shared
        handle = TrainingData(split.images, split.labels)
        network = ann.network(workspace.device)
        try:
            with fenced(variant.name, seed):
                victim = plugin(network, handle, context)
        finally:
            workspace.check_private(cell.dataset, variant.name)
        seconds = context.stopwatch.seconds
        _check_timesteps(cell, plugin, victim)
        tensors, saved = save_network(victim)
        kept = load_network(tensors, saved, workspace.device)
        steadiness = Steadiness(variant.name, kept, data.test.images)  # before anything else is asked of it
        check_kept(variant.name, victim, kept)
        steadiness.check(kept)
        record = VictimRecord(
            network=saved,
            seconds=seconds,
            training_images_read=handle.images_read,
            training_image_reads=handle.reads,
            shared=shared.keys,
            findings=context.findings,
        )
        return {**tensors, READ: handle.read_mask}, record.model_dump()

    inputs: _Inputs = {"ann": ann.artifact.key}
    if training is not None:
        inputs["training"] = training.fingerprint
    if not cell.all_timesteps:
        inputs["timesteps"] = cell.timesteps
    if cell.precision != "float32":
        inputs["precision"], inputs["gradients"] = cell.precision, _GRADIENTS
    return workspace.make(
        VICTIM, seed, {**variant.identity, **isolated, **inputs}, build, [ann.artifact], context=DefenseContext
    )


def _check_timesteps(cell: UtilityCell, plugin: Defense[Any], victim: ImageClassifier | SpikingNetwork) -> None:
    """PluginError where the network has another T than its row is labelled with."""
    if not isinstance(victim, SpikingNetwork) or plugin.anytime or not plugin.takes_timesteps:
        return
    if (steps := victim.config.timesteps) != cell.timesteps:
        raise PluginError(
            f"{cell.defense.name}: its network has T = {steps} where the run asks for {cell.timesteps}: take "
            "context.timesteps, or say takes_timesteps = False in the class"
        )


def _quantized(workspace: Workspace, cell: UtilityCell, ann: TrainedAnn, training: Training | None) -> Artifact:
    """The network of the row without quantisation, the same one, with its weights rounded."""
    variant = cell.defense
    plain = cell.model_copy(update={"defense": variant.model_copy(update={"quantize": "none"})})
    protected = _protected(workspace, plain, ann, training)

    def build(_context: Context) -> Content:
        record = VictimRecord.read(protected)
        weights = {name: tensor for name, tensor in protected.tensors.items() if name != READ}
        try:
            network = quantized(load_network(weights, record.network, torch.device("cpu")))
        except NotApplicable as error:
            raise NotApplicable(f"{variant.name}: quantize={variant.quantize}: {error}") from None
        tensors, saved = save_network(network)
        return {**tensors, READ: protected.tensors[READ]}, record.model_copy(update={"network": saved}).model_dump()

    inputs = {"protected": protected.key, "quantize": variant.quantize}
    seed = _seed(cell, _identity(workspace, cell, ann, training), quantize=variant.quantize)
    return workspace.make(VICTIM, seed, inputs, build, [protected])


def _deployed(workspace: Workspace, cell: UtilityCell, artifact: Artifact, record: VictimRecord) -> Deployed:
    def copy() -> ImageClassifier | SpikingNetwork:
        """A copy of its own; a network for every T comes at the cell's."""
        tensors = {name: tensor for name, tensor in artifact.tensors.items() if name != READ}
        network = load_network(tensors, record.network, workspace.device)
        if cell.all_timesteps and isinstance(network, SpikingNetwork):
            network = network.configured(dataclasses.replace(network.config, timesteps=cell.timesteps or 1))
            network.requires_grad_(False)
        return network

    # a network for every T is another victim at every T
    identity = f"{artifact.key} at {cell.timesteps}" if cell.all_timesteps else artifact.key
    return Deployed(copy(), artifact, identity, artifact.tensors[READ], copy, record.shared)
