"""What a universal perturbation from the reconstructions does to the deployed network, and its brackets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from leakbench.contracts import Context
from leakbench.leakage.inversion.evaluation import evaluation_of
from leakbench.leakage.kind import Deployed, Measured
from leakbench.metrics.estimate import Estimate
from leakbench.metrics.metric import Measurement
from leakbench.metrics.reconstructions import some_of_each
from leakbench.metrics.uap import default_epsilon, fooling_rate, random_signs, universal_perturbation
from leakbench.models.simulation import simulated
from leakbench.models.training import predict
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.store import Artifact, Content
from leakbench.runtime.workspace import Stage, Workspace
from leakbench.snn import SpikingNetwork, relu_network

BRACKETS = Stage("uap-brackets", 3)
FOOLING = Stage("uap", 3)

TESTED_IMAGES = 200
"""real images on which fooling is measured: a spiking victim simulates each of them for every attack"""


def fooled(workspace: Workspace, dataset: str, images_per_class: int, attack: Artifact, deployed: Deployed) -> Measured:
    """The fooling rate of the attack's images on the network, and the rates that it is to be read between."""
    network, evaluation = deployed.network, evaluation_of(workspace, dataset)
    real = evaluation.real
    picked = some_of_each(real.labels, -(-TESTED_IMAGES // network.classes), torch.Generator().manual_seed(3))
    images = real.images[picked].float() / 255
    epsilon = default_epsilon(network.image_shape[0])
    twin = relu_network(network)

    def predicted(delta: Tensor | float) -> Tensor:
        x = (images + delta).clamp(0, 1)
        if isinstance(network, SpikingNetwork):
            steps = network.config.timesteps
            logits, _ = simulated(network, x, 0, [steps], workspace.device, workspace.progress)[steps]
        else:
            logits = predict(network, x, workspace.device)
        return logits.argmax(1)

    def perturbation(x: Tensor) -> Tensor:
        return universal_perturbation(twin, (x.float() / 255).to(workspace.device), epsilon).cpu()

    def brackets(context: Context) -> Content:
        before = predicted(0.0)
        signs = predicted(random_signs(network.image_shape, epsilon, context.generator))
        data = workspace.dataset(dataset)
        labels = data.test.labels[evaluation.anchors]
        known = evaluation.anchors[some_of_each(labels, images_per_class, context.generator)]
        real_images = data.test.images[known]
        noise = torch.randint(0, 256, real_images.shape, generator=context.generator, dtype=torch.uint8)
        rates = {
            "uap_fooling_random": fooling_rate(before, signs),
            "uap_fooling_noise": fooling_rate(before, predicted(perturbation(noise))),
            "uap_fooling_real": fooling_rate(before, predicted(perturbation(real_images))),
        }
        return {"before": before}, _record(rates)

    def build(_context: Context) -> Content:
        after = predicted(perturbation(attack.tensors["images"]))
        return {}, _record({"uap_fooling": fooling_rate(bracketed.tensors["before"], after)})

    inputs = {"victim": deployed.identity, "images_per_class": images_per_class, "test_images": len(picked)}
    seed = seed_of("uap-brackets", victim=workspace.seed(deployed.artifact))
    bracketed = workspace.make(BRACKETS, seed, inputs, brackets, [deployed.artifact])
    seed = seed_of("uap", attack=workspace.seed(attack))
    inputs = {"attack": attack.key, "brackets": bracketed.key}
    artifact = workspace.make(FOOLING, seed, inputs, build, [attack, bracketed])
    measured = Measured()
    for name, rate in (artifact.record | bracketed.record).items():
        measured.add(name, Measurement(Estimate(**rate)))
    return measured


def _record(rates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: asdict(rate) for name, rate in rates.items()}
