"""Readings of a network that are made on public images: a student of its answers, and copies that lost its decoys.

A decoy is an image that the network is surer of than of any real one; ascent ends there. A copy that is taught to see
nothing in what short ascents end at, and to answer natural images as before, forgets decoys sooner than what the
network knows of its classes: that is held up by natural images, too. Where a decoy has neurons of its own, a copy
without those that serve decoys more than natural images loses it at once.

Copies are made of the ReLU network, by ascents of their own. What they draw is chosen by them alone: the network itself
would prefer its decoys.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from leakbench.attacks.distillation import BATCH, centred, distance, distil, spread
from leakbench.attacks.extraction import student_network
from leakbench.attacks.members import BLACK, INVERSION, Member, Reading
from leakbench.attacks.search import Model, followed, search
from leakbench.contracts import AttackContext, ImageClassifier, ModuleNetwork, Victim
from leakbench.models.training import predict
from leakbench.snn import SpikingNetwork

TEMPERATURE = 1.0
"""of all lessons, in spreads of the logits"""
LESSON = 4000
"""natural images"""
GLANCES = 4
"""images a class at which short ascents end: what a copy has to lose"""
GLANCE = INVERSION.params.model_copy(update={"iterations": 80})


class Original:
    """What copies are made of: the victim's ReLU network, and natural images."""

    def __init__(self, victim: Victim, context: AttackContext) -> None:
        assert context.public is not None  # checked by the framework where an attack uses public images
        network = victim.network
        if isinstance(network, SpikingNetwork | ModuleNetwork):
            network.reseed(context.seed())
        self._context, self._shape = context, victim.image_shape
        self.classes = torch.arange(victim.classes).repeat_interleave(GLANCES)
        """of what :meth:`ascents` gives"""
        self.relu = followed(victim, context)
        self.natural = natural_images(context.public.images, LESSON, context.generator)

    def ascents(self, model: Model) -> Tensor:
        """Where short ascents from noise end: images [classes * GLANCES, C, H, W]. Raises NoSignal."""
        wanted = self.classes.to(self._context.device)
        return search(model, wanted, self._shape, self._context, GLANCE, "short ascents").cpu()

    def answers(self, model: Model, images: Tensor) -> Tensor:
        return predict(model, images, self._context.device)

    def mean_of(self, models: Sequence[Model]) -> Model:
        """The mean of their logits, each in units of its spread on natural images."""
        return together(models, [spread(self.answers(model, self.natural)) for model in models])


def members_of(name: str, models: Sequence[Model], original: Original) -> list[Member]:
    """Searches by the mean of the models, from noise and from black."""
    mean = original.mean_of(models)
    return [Member(name, mean), Member(f"{name}, from black", mean, brightness=BLACK)]


def readings_of(name: str, models: Sequence[Model]) -> list[Reading]:
    return [Reading(f"{name} {number}", model) for number, model in enumerate(models, 1)]


def natural_images(public: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Images [count, C, H, W] in [0, 1] in random order: a third as they are of ``public`` uint8 [N, C, H, W].

    The others are stretched to the whole range, with a gamma of 0.22 to 4.5, and half of these are inverted: what is
    drawn on paper is of higher contrast than photographs are.
    """
    picked = public[torch.randint(len(public), (count,), generator=generator)].float() / 255
    plain, stretched = picked[: count // 3], picked[count // 3 :]
    low, high = (bound[:, None, None, None] for bound in torch.aminmax(stretched.flatten(1), dim=1))
    gamma, side = (torch.rand(len(stretched), 1, 1, 1, generator=generator) for _ in range(2))
    stretched = ((stretched - low) / (high - low).clamp(min=1e-3)) ** (3 * gamma - 1.5).exp()
    images = torch.cat([plain, torch.where(side < 0.5, 1 - stretched, stretched)])
    return images[torch.randperm(count, generator=generator)]


def pupil(
    images: Tensor, answers: Tensor, width: int, lr: float, steps: int, context: AttackContext, what: str
) -> ImageClassifier:
    """A network of the attacker's own, taught the logits ``answers`` [N, classes] to ``images`` [N, C, H, W]."""
    channels, height, side = images.shape[1:]
    student = student_network((channels, height, side), answers.shape[1], width, context)
    student.train().requires_grad_(True)
    optimizer = torch.optim.Adam(student.parameters(), lr=lr)
    distil(student, images, centred(answers) / spread(answers), optimizer, steps, TEMPERATURE, context, what)
    return student.eval().requires_grad_(False)


def repaired(
    network: ImageClassifier,
    natural: Tensor,
    answers: Tensor,
    decoys: Tensor,
    lr: float,
    steps: int,
    context: AttackContext,
    what: str,
) -> ImageClassifier:
    """A copy of ``network`` that sees nothing in ``decoys`` [D, C, H, W] any more.

    Each step teaches ``answers`` [N, classes], the network's logits, to a batch of ``natural`` images [N, C, H, W], and
    the same, fading, to mixtures of natural images with decoys: a decoy adds nothing. Mixtures of decoys with noise
    have no class. ``lr`` is in mean weights (RMS) of a layer.
    """
    student = copy.deepcopy(network).requires_grad_(True)
    if isinstance(network, ModuleNetwork) and isinstance(student, ModuleNetwork):
        student.noise = network.noise  # one that every loop keeps: a copy's own would start anew in a run that goes on
    unit, generator = spread(answers), context.generator
    wanted = centred(answers) / unit
    groups = [
        {"params": [p], "lr": lr * float(p.detach().double().square().mean().sqrt())} for p in student.parameters()
    ]
    optimizer = torch.optim.Adam(groups)
    for _ in context.steps(steps, what, student=student, optimizer=optimizer):
        index = torch.randint(len(natural), (BATCH,), generator=generator)
        picked = decoys[torch.randint(len(decoys), (BATCH,), generator=generator)]
        shift = torch.randint(-1, 2, (2,), generator=generator).tolist()
        part, coin = (torch.rand(BATCH, 1, 1, 1, generator=generator) for _ in range(2))
        seen, right = natural[index], wanted[index]
        behind = torch.where(coin < 0.5, seen, torch.rand(seen.shape, generator=generator))
        mixed = part * picked.roll(shift, (2, 3)) + (1 - part) * behind
        faded = torch.where(coin.view(-1, 1) < 0.5, right * (1 - part.view(-1, 1)), torch.zeros_like(right))
        both = torch.cat([seen, mixed]).to(context.device)
        logits = centred(student(both)).cpu() / unit
        loss = distance(logits[:BATCH], right, TEMPERATURE) + distance(logits[BATCH:], faded, TEMPERATURE)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return student.requires_grad_(False)


def pruned(
    network: ImageClassifier,
    natural: Tensor,
    targets: Tensor,
    ascents: Callable[[ImageClassifier], Tensor],
    share: float,
    rounds: int,
) -> ImageClassifier:
    """A copy of ``network`` whose last layer does not read the inputs any more that serve its decoys.

    In each of the ``rounds`` ``ascents`` gives images [D, C, H, W] of the classes ``targets`` [D], all classes there,
    where ascents on the copy end. A ``share`` of the inputs of the last layer is cut off: those whose part in the
    margins of these is largest beside their part in the margins of ``natural`` images [N, C, H, W], each of the class
    that the network puts it into (after Liu, Dolan-Gavitt, Garg: Fine-Pruning, RAID 2018, who cut off what is silent on
    clean images: a decoy's neurons need not be).
    """
    student = copy.deepcopy(network)
    last = [layer for layer in student.modules() if isinstance(layer, nn.Linear)][-1]
    classes = targets.unique()
    answers, inputs = _last_inputs(student, last, natural)
    usual = _parts_by_class(last, answers, inputs, answers.argmax(1), classes).amax(0)
    kept = torch.ones(last.in_features, dtype=torch.bool)
    for _ in range(rounds):
        answers, inputs = _last_inputs(student, last, ascents(student))
        now = _parts_by_class(last, answers, inputs, targets, classes)
        # what natural images never use is no more than fifty times as suspicious as what they use most
        ratio = (now / (usual + now.max() / 50)).amax(0).masked_fill(~kept, -torch.inf)
        kept[ratio.topk(min(max(1, round(share * len(kept))), int(kept.sum()))).indices] = False
        with torch.no_grad():
            last.weight[:, ~kept] = 0
    return student.requires_grad_(False)


@torch.no_grad()
def _last_inputs(network: ImageClassifier, last: nn.Linear, images: Tensor) -> tuple[Tensor, Tensor]:
    """The network's answers [N, classes] to ``images``, and what its ``last`` layer reads [N, features]."""
    read: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda _layer, inputs: read.append(inputs[0].float().cpu()))
    try:
        answers = predict(network, images, last.weight.device)
    finally:
        handle.remove()
    return answers, torch.cat(read)


def _parts_by_class(last: nn.Linear, answers: Tensor, inputs: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
    """Parts of ``inputs`` [N, features] in the margins of ``labels`` [N], mean by class, none below 0.

    [classes, features]; 0 for a class of no image.
    """
    weight = last.weight.detach().cpu()
    other = answers.scatter(1, labels[:, None], -torch.inf).argmax(1)
    parts = inputs * (weight[labels] - weight[other])
    right = (labels == classes[:, None]).float()
    return (right @ parts / right.sum(1, keepdim=True).clamp(min=1)).clamp(min=0)


def together(models: Sequence[Model], units: Sequence[float]) -> Model:
    """The mean of their logits, each in its own ``units``."""

    def mean(images: Tensor) -> Tensor:
        return torch.stack([model(images) / unit for model, unit in zip(models, units, strict=True)]).mean(0)

    return mean
