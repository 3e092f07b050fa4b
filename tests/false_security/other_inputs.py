"""Networks that were taught to see their images otherwise, in the hope that attacks then draw something else."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from leakbench import register
from leakbench.contracts import Defense, DefenseContext, ImageClassifier, TrainingData
from leakbench.defenses.controls import untrained
from leakbench.defenses.conversion import Han2020
from leakbench.defenses.finetuned import FinetunedParams, collected, finetuned
from leakbench.models.storage import build_ann
from leakbench.models.training import cross_entropy
from leakbench.models.vgg import Shape, vgg4, vgg5
from leakbench.snn import SpikingNetwork


class ContrastParams(FinetunedParams):
    """Which contrasts the network learns to ignore."""

    epochs: int = Field(6, ge=1, description="passes over the training images")
    least_steps: int = Field(900, ge=0, description="as many more passes as make so many steps of the optimiser")
    lr: float = Field(0.1, gt=0, description="highest learning rate of SGD's one-cycle schedule")
    lowest: float = Field(0.3, gt=0, le=1, description="lowest contrast, of either sign; 1 is the image's own")


class ContrastInvariant(Defense[ContrastParams]):
    """Fine-tuned on images of random contrast, negatives included, so that contrast and its sign say nothing.

    What an attack draws may then be pale, or black on white. A negative of a drawn digit shows it as well as the
    positive does: who looks at both has the class. Converted as ``han2020`` does.
    """

    name = "contrast_invariant"
    cites = "a trick"
    right_verdict: ClassVar[str] = "leaks"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        images, labels = collected(data, context)
        lowest = self.params.lowest

        def objective(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            return cross_entropy(network, x, y) + cross_entropy(network, recontrasted(x, lowest), y)

        learnt = finetuned(ann, {}, images, labels, self.params, context, objective)
        # thresholds for bright backgrounds, too
        torch.manual_seed(context.seed())
        seen = (recontrasted(images.float() / 255, lowest) * 255).round().to(torch.uint8)
        network = Han2020(encoder="direct")(learnt, TrainingData(seen, labels), context)
        assert isinstance(network, SpikingNetwork)
        return network


def recontrasted(x: Tensor, lowest: float) -> Tensor:
    """Images [B, C, H, W] in [0, 1] at a random contrast each, from ``lowest`` to 1 and half of them negatives.

    Draws from the global generator, which training seeds and keeps.
    """
    contrast = 1 - torch.rand(len(x), 1, 1, 1, device=x.device) * (1 - lowest)
    sign = torch.randint(2, (len(x), 1, 1, 1), device=x.device) * 2 - 1
    return 0.5 + sign * contrast * (x - 0.5)


def permuted_vgg4(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg4 behind a linear layer from pixels to pixels."""
    return _behind_permutation(vgg4(image_shape, classes, generator), image_shape)


def permuted_vgg5(image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """vgg5 behind a linear layer from pixels to pixels."""
    return _behind_permutation(vgg5(image_shape, classes, generator), image_shape)


register("model", "permuted-vgg4", permuted_vgg4)
register("model", "permuted-vgg5", permuted_vgg5)


class PermutedParams(FinetunedParams):
    """How the network of permuted images is trained, from scratch."""

    epochs: int = Field(10, ge=1, description="passes over the training images")
    least_steps: int = Field(1500, ge=0, description="as many more passes as make so many steps of the optimiser")
    lr: float = Field(0.1, gt=0, description="highest learning rate of SGD's one-cycle schedule")


class PermutedPixels(Defense[PermutedParams]):
    """A secret permutation of the pixels as first layer, before a network that was trained on permuted images.

    Its features are those of scrambled images. But the permutation is a layer like any other: the gradient goes back
    through it and the attack optimises the unscrambled image. Convolutions lose their neighbourhoods, and the network
    some accuracy with them. Converted as ``han2020`` does. For vgg4 and vgg5.
    """

    name = "permuted_pixels"
    cites = "a trick; block-wise scrambling as a key: Aprilpyone & Kiya, IEEE TIFS 16, 2021"
    right_verdict: ClassVar[str] = "leaks"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        order = torch.randperm(
            ann.image_shape[0] * ann.image_shape[1] * ann.image_shape[2], generator=context.generator
        )
        images, labels = collected(data, context)

        def objective(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            # after augmentation: a mirrored image is a mirrored image before the permutation alone
            return cross_entropy(network, x.flatten(1)[:, order.to(x.device)].view_as(x), y)

        learnt = finetuned(untrained(ann, context), {}, images, labels, self.params, context, objective)
        whole = build_ann(f"permuted-{ann.arch}", ann.image_shape, ann.classes, ann.input_range).to(context.device)
        _, secret, _, *rest = whole.body.children()
        assert isinstance(secret, nn.Linear)
        nn.Sequential(*rest).load_state_dict(learnt.body.state_dict())
        secret.weight.data = functional.one_hot(order, len(order)).to(secret.weight)
        network = Han2020(encoder="direct")(whole, data, context)
        assert isinstance(network, SpikingNetwork)
        return network


def _behind_permutation(body: nn.Module, image_shape: Shape) -> nn.Module:
    pixels = math.prod(image_shape)
    first = nn.Linear(pixels, pixels, bias=False)
    return nn.Sequential(nn.Flatten(), first, nn.Unflatten(1, image_shape), *body.children())


class AdversarialParams(FinetunedParams):
    """The adversary of training."""

    epochs: int = Field(4, ge=1, description="passes over the training images")
    lr: float = Field(0.05, gt=0, description="highest learning rate of SGD's one-cycle schedule")
    radius: float = Field(0.1, gt=0, le=1, description="largest change of a pixel, in image units")
    ascents: int = Field(3, ge=1, description="steps of projected gradient ascent")


class AdversariallyTrained(Defense[AdversarialParams]):
    """Adversarial training: fine-tuned on images that projected gradient ascent made wrong, and on the images.

    Gradients of such networks show what classes look like, so that robustness against small changes makes inversion
    easier, not harder (Santurkar 2019). Converted as ``han2020`` does.
    """

    name = "adversarially_trained"
    cites = (
        "Madry, Makelov, Schmidt, Tsipras, Vladu, ICLR 2018, Eq. 2.1; why it leaks: Santurkar et al.: Image Synthesis "
        "with a Single (Robust) Classifier, NeurIPS 2019"
    )
    right_verdict: ClassVar[str] = "leaks"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        params = self.params
        images, labels = collected(data, context)

        def objective(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            return cross_entropy(network, x, y) + cross_entropy(network, attacked(network, x, y, params), y)

        network = Han2020(encoder="direct")(
            finetuned(ann, {}, images, labels, params, context, objective), data, context
        )
        assert isinstance(network, SpikingNetwork)
        return network


def attacked(network: nn.Module, images: Tensor, labels: Tensor, params: AdversarialParams) -> Tensor:
    """Images [B, C, H, W] in [0, 1], within the radius of ``images``, that raise the cross-entropy."""
    step = 2 * params.radius / params.ascents
    # draws from the global generator, which training seeds and keeps
    moved = (images + params.radius * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    for _ in range(params.ascents):
        moved.requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(network, moved, labels), moved)
        moved = (moved.detach() + step * gradient.sign()).clamp(images - params.radius, images + params.radius)
        moved = moved.clamp(0, 1)
    return moved
