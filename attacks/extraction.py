"""Extraction, then inversion: all that the attacker has of the victim is its answers, and a network of his own."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.linalg import vector_norm

from leakbench.attacks.distillation import centred, correlation, distil, mixtures, smoothed_noise, spread
from leakbench.attacks.search import Best, SearchParams, answers_of, search
from leakbench.contracts import Access, Attack, AttackContext, ImageClassifier, Victim
from leakbench.models.training import predict


class ExtractionParams(SearchParams):
    """What is asked, how the student learns it, and how the student is inverted."""

    queries: int = Field(
        6000, ge=100, le=1_000_000, description="images that the student learns from, each asked once, in all rounds"
    )
    restarts: int = Field(2, ge=1, description="starts an image in the last round; those before have one")
    rounds: int = Field(
        2, ge=1, le=10, description="rounds; from the second on, neighbours of the images found are asked"
    )
    steps: int = Field(400, ge=1, description="Adam steps of 100 images by which the student learns, each round")
    student_lr: float = Field(3e-3, gt=0, description="the highest learning rate of the student")
    width: int = Field(
        16, ge=1, le=1024, description="maps of the student's first layers; up to four times as many follow"
    )
    temperature: float = Field(
        1.0, gt=0, description="of the distillation, in spreads of the victim's logits: 1 is tau = 4 where that is 4"
    )
    bn: float = Field(0.1, ge=0, description="weight of the distance of batch statistics to the student's running ones")


class Extraction(Attack[ExtractionParams]):
    """Distils a student with batch norm out of the victim's scores, then inverts the student (DeepInversion)."""

    name = "extraction"
    version = 2
    needs = Access.SCORES
    effort = "iterations"
    uses_public = True
    cites = (
        "distillation: Hinton et al. 2015; Tramer et al., USENIX Security 2016; DeepInversion: Yin et al., CVPR 2020"
    )
    presets: ClassVar = {"quick": {"queries": 1500, "steps": 150, "iterations": 150, "restarts": 1}}

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        params = self.params
        assert context.public is not None  # checked by the framework, as uses_public says so
        student = student_network(victim.image_shape, victim.classes, params.width, context)
        lesson = Lesson(victim, context)
        best = Best(victim, targets, context, params.confidence_draws)
        later = params.queries // (params.rounds + 1)
        lesson.ask(first_questions(params.queries - (params.rounds - 1) * later, context.public.images, context))
        for number in range(params.rounds):
            title = f"{self.name}: round {number + 1} of {params.rounds}"
            lesson.teach(student, params, title)
            last = number + 1 == params.rounds
            for _ in range(params.restarts if last else 1):
                impressions = deep_inversion(student, targets, context, params, title, best)
                best.offer(impressions, f"round {number + 1}")
            if not last:
                lesson.ask(mixtures(impressions.cpu(), later, context.generator))
        lesson.examine(student)
        best.report()
        return best.images


class Lesson:
    """What was asked and answered so far; every tenth question is kept for the examination."""

    def __init__(self, victim: Victim, context: AttackContext) -> None:
        self._victim, self._context = victim, context
        self._images = torch.empty(0, *victim.image_shape)
        self._answers = torch.empty(0, victim.classes)

    def ask(self, images: Tensor) -> None:
        """Asks the victim about ``images`` [N, C, H, W], each once."""
        ask = partial(answers_of, self._victim, images.to(self._context.device))
        answers = self._context.once("extraction: asking the victim", ask)
        self._images = torch.cat([self._images, images])
        self._answers = torch.cat([self._answers, answers.cpu()])

    def teach(self, student: ImageClassifier, params: ExtractionParams, what: str) -> None:
        """Trains the student on all that was answered; leaves it in eval mode."""
        optimizer = torch.optim.Adam(student.parameters(), lr=params.student_lr)
        learnt = ~self._held_out()
        wanted = centred(self._answers)[learnt] / spread(self._answers)
        student.train().requires_grad_(True)
        distil(student, self._images[learnt], wanted, optimizer, params.steps, params.temperature, self._context, what)
        student.eval().requires_grad_(False)

    def examine(self, student: ImageClassifier) -> None:
        """How well the student answers what it has not learnt, as findings."""
        kept = self._held_out()
        given, right = predict(student, self._images[kept], self._context.device), self._answers[kept]
        same = (given.argmax(1) == right.argmax(1)).double().mean()
        self._context.finding("student: same class as the victim", float(same))
        self._context.finding("student: correlation of logits", correlation(given, right))

    def _held_out(self) -> Tensor:
        return torch.arange(len(self._images)) % 10 == 9


def student_network(
    image_shape: tuple[int, int, int], classes: int, width: int, context: AttackContext
) -> ImageClassifier:
    """The attacker's own architecture: convolutions with batch norm, maps halved until a side is 4 or less."""
    channels, *sides = image_shape
    with torch.random.fork_rng(devices=[]):
        # layers draw their weights from the global generator: seeded here, given back afterwards
        torch.manual_seed(context.seed())
        layers = _block(channels, width)
        if min(sides) < 16:
            layers += _block(width, width)
        maps = width
        while min(sides) > 4:
            more = min(2 * maps, 4 * width)
            layers += [nn.AvgPool2d(2), *_block(maps, more)]
            maps, sides = more, [side // 2 for side in sides]
        layers += [nn.Flatten(), nn.Linear(maps * sides[0] * sides[1], classes)]
    body = nn.Sequential(*layers).to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return ImageClassifier(body, image_shape, classes, (-1.0, 1.0))


def _block(channels: int, maps: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, maps, 3, padding=1, bias=False), nn.BatchNorm2d(maps), nn.ReLU()]


class StatisticsDistance:
    """How far what enters a student's batch norms, in its last call, is from their running statistics.

    Mean over layers of |mean - running mean| / |running deviation| + |variance - running variance| / |running
    variance|, norms over maps (Yin et al., Eq. 4, in units of the layer), times the images of the call.
    """

    def __init__(self, student: nn.Module) -> None:
        self._layers = [module for module in student.modules() if isinstance(module, nn.BatchNorm2d)]
        self._seen: dict[nn.Module, Tensor] = {}
        self._hooks = [layer.register_forward_pre_hook(self._see) for layer in self._layers]

    def __call__(self) -> Tensor:
        return torch.stack([self._distance(layer) for layer in self._layers]).mean() * len(self._seen[self._layers[0]])

    def close(self) -> None:
        """Stops looking."""
        for hook in self._hooks:
            hook.remove()

    def _see(self, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._seen[layer] = args[0].float()

    def _distance(self, layer: nn.BatchNorm2d) -> Tensor:
        assert layer.running_mean is not None and layer.running_var is not None
        variance, mean = torch.var_mean(self._seen[layer], (0, 2, 3), correction=0)
        usual = layer.running_var + layer.eps
        off = vector_norm(mean - layer.running_mean) / vector_norm(usual.sqrt())
        return cast(Tensor, off + vector_norm(variance - layer.running_var) / vector_norm(usual))


def deep_inversion(
    student: ImageClassifier,
    targets: Tensor,
    context: AttackContext,
    params: ExtractionParams,
    what: str,
    best: Best | None = None,
) -> Tensor:
    """Images [N, C, H, W] of the classes ``targets`` [N], with the student's running statistics in every batch.

    ``best`` is what they will be offered to, if they are for the attack's own targets.
    """
    # statistics are those of many classes: batches are mixed, and put in order afterwards
    order = torch.randperm(len(targets), generator=context.generator).to(targets.device)
    statistics = StatisticsDistance(student)
    extra = (lambda: params.bn * statistics()) if params.bn else None
    try:
        with context.part(order) if best else nullcontext():
            impressions = search(
                student, targets[order], student.image_shape, context, params, what, extra=extra, best=best
            )
    finally:
        statistics.close()
    images = torch.empty_like(impressions)
    images[order] = impressions
    return images


def first_questions(count: int, public: Tensor, context: AttackContext) -> Tensor:
    """A third each of public images (uint8 [N, C, H, W]), of mixtures of them, and of smoothed noise."""
    generator = context.generator
    third = min(count // 3, len(public))
    picked = public[torch.randperm(len(public), generator=generator)[:count]].float() / 255
    noise = smoothed_noise(count // 3, (public.shape[1], public.shape[2], public.shape[3]), generator)
    return torch.cat([picked[:third], mixtures(picked, count - third - len(noise), generator), noise])
