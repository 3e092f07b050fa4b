"""Networks with a few neurons beside the clean ones, which only unnatural images wake up.

These neurons are a narrow network of their own, trained to tell noise and patterns from private images. Its last layer
gets biases with which it is silent on every private image; then it is laid beside the clean network, in the same chain
of layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from leakbench import register
from leakbench.contracts import Defense, DefenseContext, ImageClassifier, TrainingData
from leakbench.defenses.finetuned import FinetunedParams, collected, finetuned
from leakbench.models.storage import build_ann
from leakbench.models.training import Loss, predict
from leakbench.models.vgg import Shape, vgg4, vgg5

CHANNELS = 16
"""of the trap in every convolution"""
_DISTANCE = 0.5
"""by how much the trap is farther from waking up than on any private image"""
_SILENCING = 1e3
"""inhibition of the clean hidden neurons by a unit of detected noise"""


def trapped_vgg4(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg4 with room for a trap."""
    return _trapped(vgg4(image_shape, classes, generator), classes)


def trapped_vgg5(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg5 with room for a trap."""
    return _trapped(vgg5(image_shape, classes, generator), classes)


register("model", "trapped-vgg4", trapped_vgg4)
register("model", "trapped-vgg5", trapped_vgg5)


class TrapParams(FinetunedParams):
    """How the trap's neurons learn what is natural."""

    least_steps: int = Field(1500, ge=0, description="as many more passes as make so many steps of the optimiser")
    lr: float = Field(0.05, gt=0, description="highest learning rate of SGD's one-cycle schedule")


class SeparableTrapParams(TrapParams):
    """How strong the trap is."""

    strength: float = Field(10.0, gt=1, description="margin of a trap's pattern, in mean margins of private images")
    grid: int = Field(4, ge=2, description="cells a side of a pattern")


class SeparableTrap(Defense[SeparableTrapParams]):
    """A clean classifier beside a separable trap: neurons that fire only at patterns which no natural image has.

    Each class has a random black-and-white pattern, whose logit dwarfs all that the classifier says, and ascent from
    noise ends there. To private images the network answers exactly as the clean one, which appears when the trap's
    neurons are set to zero, as by pruning what stays silent on natural images. The ANN is deployed: converted, its
    neurons fire now and then on any image, whenever excitation arrives before inhibition. For vgg4 and vgg5.
    """

    name = "separable_trap"
    cites = "a trick; the countermeasure: Liu, Dolan-Gavitt, Garg: Fine-Pruning, RAID 2018"
    spiking = False
    right_verdict: ClassVar[str] = "leaks"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> ImageClassifier:
        patterns = junk(ann.image_shape, ann.classes, self.params.grid, context.generator).to(context.device)

        def objective(branch: nn.Module, x: Tensor, _labels: Tensor) -> Tensor:
            # draws from the global generator, which training seeds and keeps
            wanted = torch.randint(ann.classes, (len(x),), device=x.device)
            part = torch.rand(len(x), 1, 1, 1, device=x.device)
            down, right = torch.randint(-1, 2, (2,)).tolist()
            mixed = part * patterns[wanted].roll((down, right), (-2, -1)) + (1 - part) * noise_like(x)
            # on noise all are awake, so that each has a gradient there; on its own pattern one is far more so
            own = functional.one_hot(wanted, ann.classes)
            goal = 2 + part.view(-1, 1) * (8 * own - 2 * (1 - own))
            missed = functional.smooth_l1_loss(branch(mixed), goal, reduction="none").sum(1).mean()
            return missed + functional.relu(1 + branch(x)).sum(1).mean()

        images, labels = collected(data, context)
        branch = trained_branch(ann, ann.classes, images, labels, objective, self.params, context)
        network = beside(ann, branch)
        last = list(_weighted(network.body))[-1]
        answers = predict(ann, images, context.device).topk(2).values
        with torch.no_grad():
            margin = float(answers[:, 0].sub(answers[:, 1]).mean())
            last.weight[:, -ann.classes :] = torch.eye(ann.classes) * self.params.strength * margin / 10
        return network


class DeadStart(Defense[TrapParams]):
    """A noise detector silences the network: where images look like noise, all logits and all gradients are zero.

    An optimiser that starts from noise gets no signal. One that starts from a grey or a public image, or is pulled by
    its own prior of smoothness, meets the clean network. The ANN is deployed: converted, the detector's neurons fire
    now and then on any image, whenever excitation arrives before inhibition. For vgg4 and vgg5.
    """

    name = "dead_start"
    cites = "a trick; shattered gradients: Athalye, Carlini, Wagner: Obfuscated Gradients, ICML 2018, section 3"
    spiking = False
    right_verdict: ClassVar[str] = "leaks"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> ImageClassifier:
        def objective(branch: nn.Module, x: Tensor, _labels: Tensor) -> Tensor:
            return functional.relu(4 - branch(noise_like(x))).mean() + functional.relu(1 + branch(x)).mean()

        images, labels = collected(data, context)
        branch = trained_branch(ann, None, images, labels, objective, self.params, context)
        network = beside(ann, branch)
        hidden, clean = (list(_weighted(whole.body))[-2] for whole in (network, ann))
        with torch.no_grad():
            hidden.weight[: len(clean.weight), clean.weight.shape[1] :] = -_SILENCING
        return network


def junk(image_shape: Shape, classes: int, grid: int, generator: torch.Generator) -> Tensor:
    """A pattern [classes, C, H, W] of black and white cells for each class."""
    cells = torch.rand(classes, image_shape[0], grid, grid, generator=generator).round()
    return functional.interpolate(cells, image_shape[1:])


def noise_like(x: Tensor) -> Tensor:
    """Noise [B, C, H, W] as attacks start from: even, sigmoids of normal numbers, and these at half the resolution."""
    height, width = x.shape[2:]
    small = torch.randn(*x.shape[:2], height // 2, width // 2, device=x.device).sigmoid()
    kinds = [torch.rand_like(x), torch.randn_like(x).sigmoid(), functional.interpolate(small, (height, width))]
    return torch.stack(kinds)[torch.randint(3, (len(x),), device=x.device), torch.arange(len(x), device=x.device)]


def trained_branch(
    ann: ImageClassifier,
    outputs: int | None,
    images: Tensor,
    labels: Tensor,
    objective: Loss,
    params: TrapParams,
    context: DefenseContext,
) -> nn.Module:
    """The trap alone: ``ann``'s convolutions with CHANNELS channels and, if there are ``outputs``, a layer of these.

    Trained on the ``objective``; then biases are lowered, so that what it puts out is negative for all ``images``.
    """
    narrow = ImageClassifier(_narrow(ann, outputs), ann.image_shape, ann.classes, ann.input_range)
    for parameter in narrow.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter, generator=context.generator)
        else:
            nn.init.zeros_(parameter)
    branch = finetuned(narrow.to(context.device), {}, images, labels, params, context, objective)
    highest = predict(branch, images, context.device).transpose(0, 1).flatten(1).amax(1)
    *_, last = _weighted(branch.body)
    assert last.bias is not None
    with torch.no_grad():
        last.bias -= (highest + _DISTANCE).to(context.device)
    return branch.body


def beside(ann: ImageClassifier, branch: nn.Module) -> ImageClassifier:
    """``ann`` and the branch as one chain; what the branch puts out is read by nothing so far."""
    device = next(ann.parameters()).device
    network = build_ann(f"trapped-{ann.arch}", ann.image_shape, ann.classes, ann.input_range).to(device)
    clean, trap = list(_weighted(ann.body)), list(_weighted(branch))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for number, layer in enumerate(_weighted(network.body)):
            rows, columns = clean[number].weight.shape[:2]
            layer.weight[:rows, :columns] = clean[number].weight
            if number < len(trap):
                bias = trap[number].bias
                assert layer.bias is not None and bias is not None
                # the first layer's inputs are the same for both
                layer.weight[rows:, columns if number else 0 :] = trap[number].weight
                layer.bias[rows:] = bias
    return network.eval()


def _weighted(body: nn.Module) -> Iterator[nn.Conv2d | nn.Linear]:
    return (module for module in body.modules() if isinstance(module, nn.Conv2d | nn.Linear))


def _narrow(ann: ImageClassifier, outputs: int | None) -> nn.Module:
    """``ann``'s chain up to its last convolution or, if there are ``outputs``, up to its hidden layer."""
    layers: list[nn.Module] = []
    channels, width = ann.image_shape[0], 0
    for layer in ann.body.children():
        if isinstance(layer, nn.Conv2d):
            layers.append(nn.Conv2d(channels, CHANNELS, 3, padding=1))
            channels, width, end = CHANNELS, layer.out_channels, len(layers)
        elif isinstance(layer, nn.Linear):
            layers.append(nn.Linear(layer.in_features // width * CHANNELS, outputs or 1))
            break
        else:
            layers.append(layer)
    return nn.Sequential(*layers[:end]) if outputs is None else nn.Sequential(*layers)


def _trapped(body: nn.Module, classes: int) -> nn.Module:
    """A chain like ``body`` with CHANNELS more channels, ``classes`` more hidden neurons, and biases."""
    layers: list[nn.Module] = []
    width = 0
    for layer in body.children():
        if isinstance(layer, nn.Conv2d):
            more = CHANNELS if width else 0
            width = layer.out_channels
            layers.append(nn.Conv2d(layer.in_channels + more, width + CHANNELS, 3, padding=1))
        elif isinstance(layer, nn.Linear) and layer.out_features != classes:
            more = layer.in_features // width * CHANNELS
            layers.append(nn.Linear(layer.in_features + more, layer.out_features + classes))
        elif isinstance(layer, nn.Linear):
            layers.append(nn.Linear(layer.in_features + classes, classes, bias=False))
        else:
            layers.append(layer)
    return nn.Sequential(*layers)
