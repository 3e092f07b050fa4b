"""The attack made against "encrypted" weights: teach their analog twin to answer as they do, then invert it."""

from __future__ import annotations

import copy
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from leakbench.attacks.analog_twin import TwinParams
from leakbench.attacks.distillation import centred, correlation, distil, mixtures, smoothed_noise, spread
from leakbench.attacks.inversion import invert
from leakbench.attacks.search import answers_of, search
from leakbench.contracts import Access, Attack, AttackContext, ImageClassifier, Victim
from leakbench.models.training import predict
from leakbench.snn import SpikingNetwork, analog_twin, relu_network


class DecryptParams(TwinParams):
    """How the twin is taught, and how it is inverted."""

    images: int = Field(1000, ge=20, le=1_000_000, description="images that the attacker makes to teach the twin by")
    glance: int = Field(50, ge=1, description="Adam steps of the short inversion that makes some of them")
    encodings: int = Field(4, ge=1, description="encodings over which the network's logits are averaged")
    steps: int = Field(300, ge=1, description="Adam steps of 100 images by which the twin is taught")
    student_lr: float = Field(0.005, gt=0, description="the highest learning rate, in mean weights (RMS) of a layer")
    temperature: float = Field(
        1.0, gt=0, description="of the distillation, in spreads of the victim's logits: 1 is tau = 4 where that is 4"
    )


class Decrypt(Attack[DecryptParams]):
    """Fine-tunes the network's analog twin to its own logits on images without any data, then inverts the twin."""

    name = "decrypt"
    version = 3
    needs = Access.WEIGHTS
    effort = "iterations"
    cites = "LeakBench, docs/method.md, Attacks; distillation: Hinton et al. 2015"
    presets: ClassVar = {"quick": {"images": 500, "steps": 150, "iterations": 150, "restarts": 2}}

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        network = victim.network
        if not isinstance(network, SpikingNetwork):
            # nothing spikes: nothing was lost between the weights and what they compute
            return invert(relu_network(network), victim, targets, context, self.params, self.name)
        network.reseed(context.seed())
        student = decrypted(victim, self.params, context)
        return invert(student, victim, targets, context, self.params, self.name)


def decrypted(victim: Victim, params: DecryptParams, context: AttackContext) -> ImageClassifier:
    """The analog twin of a spiking ``victim``, taught its logits; how well it gives them goes into the findings."""
    network = victim.network
    assert isinstance(network, SpikingNetwork)
    twin = analog_twin(network, context.progress)
    images = lesson(twin, params, context)
    draws = params.encodings if network.config.encoder == "poisson" else 1
    ask = partial(predict, partial(answers_of, victim), images, context.device)
    wanted = torch.stack([context.once("decrypt: asking the network", ask) for _ in range(draws)]).mean(0)
    kept = torch.arange(len(images)) % 10 == 9  # for the examination
    before = correlation(predict(twin, images[kept], context.device), wanted[kept])
    student = copy.deepcopy(twin)
    _teach(student, images[~kept], wanted[~kept], params, context)
    after = correlation(predict(student, images[kept], context.device), wanted[kept])
    context.finding("twin before: correlation of logits", before)
    context.finding("twin after: correlation of logits", after)
    context.finding("twin after: weights moved", _moved(twin, student))
    return student


def lesson(twin: ImageClassifier, params: DecryptParams, context: AttackContext) -> Tensor:
    """Images [N, C, H, W] in random order: noise, images of random classes by the twin's account, and mixtures."""
    generator, shape, third = context.generator, twin.image_shape, params.images // 3
    noise = torch.cat(
        [torch.rand(third // 2, *shape, generator=generator), smoothed_noise(third - third // 2, shape, generator)]
    )
    classes = torch.randint(twin.classes, (third,), generator=generator).to(context.device)
    short = params.model_copy(update={"iterations": params.glance})
    impressions = search(twin, classes, shape, context, short, "decrypt: a glance at the twin").cpu()
    both = torch.cat([noise, impressions])
    images = torch.cat([both, mixtures(both, params.images - len(both), generator)])
    return images[torch.randperm(len(images), generator=generator)]


def _teach(
    student: ImageClassifier, images: Tensor, wanted: Tensor, params: DecryptParams, context: AttackContext
) -> None:
    """Trains the student's weights in place; dropout stays off, as it is in the victim."""
    unit = spread(wanted)
    student.requires_grad_(True)
    # a step is a share of a layer's weights: scaled networks are taught alike
    groups = [
        {"params": [p], "lr": params.student_lr * float(p.detach().square().mean().sqrt())}
        for p in student.parameters()
    ]
    optimizer = torch.optim.Adam(groups)

    distil(
        student, images, centred(wanted) / unit, optimizer, params.steps, params.temperature, context,
        "decrypt: teaching the twin", read=lambda logits: centred(logits) / unit,
    )  # fmt: skip
    student.requires_grad_(False)


def _moved(before: nn.Module, after: nn.Module) -> float:
    """|w' - w| / |w|, mean over the weights of the layers."""
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    return float(torch.stack([(new - old).norm() / old.norm().clamp(min=1e-12) for old, new in pairs]).mean())
