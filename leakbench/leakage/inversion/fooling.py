"""What a universal perturbation from the reconstructions does to the deployed network, and its brackets.

It stands apart from :class:`~leakbench.metrics.reconstructions.ReconstructionMetric`, which measures images alone: the
same of every attack, anchor and check, whatever network they are from. Here four values come of one measurement on the
network itself, which no third party's metric may hold; three of them, the brackets, are of the network and not of any
attack. They are an artifact of their own that all attacks on the network share, since each of them is as many
simulations as the value that they bracket. For anchors there is no network, and the brackets take their place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leakbench.contracts import Context, ModuleNetwork
from leakbench.leakage.inversion.evaluation import Evaluation
from leakbench.leakage.inversion.targets import part_of_key
from leakbench.leakage.kind import Deployed, Measured
from leakbench.metrics.estimate import Estimate
from leakbench.metrics.metric import Measurement
from leakbench.metrics.reconstructions import some_of_each
from leakbench.metrics.uap import default_epsilon, fooling_rate, random_signs, universal_perturbation
from leakbench.models.simulation import simulated
from leakbench.models.training import predict
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.store import Artifact, ArtifactRecord, Content
from leakbench.runtime.workspace import Stage, Workspace
from leakbench.snn import SpikingNetwork, relu_network

BRACKETS = Stage("uap-brackets", 3)
FOOLING = Stage("uap", 3)

TESTED_IMAGES = 200
"""real images on which fooling is measured: a spiking victim simulates each of them for every attack"""


class FoolingRecord(ArtifactRecord):
    """The rate of an attack."""

    uap_fooling: Estimate


class BracketsRecord(ArtifactRecord):
    """The rates that it is to be read between, of a network."""

    uap_fooling_noise: Estimate
    uap_fooling_random: Estimate
    uap_fooling_real: Estimate


def fooled(
    workspace: Workspace,
    evaluation: Evaluation,
    dataset: str,
    images_per_class: int,
    attack: Artifact,
    deployed: Deployed,
) -> Measured:
    """The fooling rate of the attack's images on the network, and the rates that it is to be read between."""
    network = deployed.network
    classes = attack.tensors["targets"].unique()
    real = evaluation.real
    picked = some_of_each(real.labels, -(-TESTED_IMAGES // network.classes), torch.Generator().manual_seed(3))
    images = real.images[picked].float() / 255
    epsilon = default_epsilon(network.image_shape[0])
    twin = network if isinstance(network, ModuleNetwork) else relu_network(network)

    def predicted(context: Context, delta: Tensor | float) -> Tensor:
        x = (images + delta).clamp(0, 1)
        same_noise()
        if isinstance(network, SpikingNetwork):
            steps = network.config.timesteps
            loop = context.loop("answers")
            logits, _ = simulated(network, x, 0, [steps], workspace.device, workspace.progress, loop)[steps]
        else:
            logits = predict(network, x, workspace.device)
        return logits.argmax(1)

    def same_noise() -> None:
        """Of a network that draws its own: other noise would change answers, too, and be counted as fooling."""
        if isinstance(network, ModuleNetwork):
            network.reseed(0)

    def perturbation(x: Tensor) -> Tensor:
        same_noise()
        return universal_perturbation(twin, (x.float() / 255).to(workspace.device), epsilon).cpu()

    def brackets(context: Context) -> Content:
        before = predicted(context, 0.0)
        signs = predicted(context, random_signs(network.image_shape, epsilon, context.generator))
        data = workspace.dataset(dataset)
        known = evaluation.some_anchors(data.test.labels, classes, images_per_class, context.generator)
        real_images = data.test.images[known]
        noise = torch.randint(0, 256, real_images.shape, generator=context.generator, dtype=torch.uint8)
        record = BracketsRecord(
            uap_fooling_noise=fooling_rate(before, predicted(context, perturbation(noise))),
            uap_fooling_random=fooling_rate(before, signs),
            uap_fooling_real=fooling_rate(before, predicted(context, perturbation(real_images))),
        )
        return {"before": before}, record.model_dump()

    def build(context: Context) -> Content:
        after = predicted(context, perturbation(attack.tensors["images"]))
        return {}, FoolingRecord(uap_fooling=fooling_rate(bracketed.tensors["before"], after)).model_dump()

    inputs = {
        "victim": deployed.identity,
        "images_per_class": images_per_class,
        **part_of_key(network.classes, len(classes)),
        "test_images": len(picked),
        **({"noise": 0} if isinstance(network, ModuleNetwork) else {}),
    }
    seed = seed_of("uap-brackets", victim=workspace.seed(deployed.artifact))
    bracketed = workspace.make(BRACKETS, seed, inputs, brackets, [deployed.artifact])
    seed = seed_of("uap", attack=workspace.seed(attack))
    inputs = {"attack": attack.key, "brackets": bracketed.key}
    artifact = workspace.make(FOOLING, seed, inputs, build, [attack, bracketed])
    measured = Measured()
    for record in (FoolingRecord.read(artifact), BracketsRecord.read(bracketed)):
        for name, rate in record:
            measured.add(name, Measurement(rate))
    return measured
