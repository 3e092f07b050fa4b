"""What the optimising attacks share: one search over pixels, and the victim's confidence, by which results are chosen.

An attack differs from the next in the model whose gradients it follows; the optimiser, its losses and its priors are
the same here, so that attacks can be compared by what they know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from statistics import median
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import (
    AttackContext,
    ImageClassifier,
    ModuleNetwork,
    Params,
    State,
    Victim,
    optimizer_state,
    restore_optimizer,
)
from leakbench.errors import NoSignal
from leakbench.snn import searched

Model = Callable[[Tensor], Tensor]
"""images [B, C, H, W] in [0, 1] -> logits [B, classes], differentiable in the images"""
_COARSEST = 8
"""pixels a side below which half the resolution shows no class any more"""
RGB = 3
"""channels of images whose colours are searched along axes of their own"""
_COLOURS = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, -2.0], [1.0, -1.0, 0.0]])
"""axes of RGB along which natural images hardly correlate: brightness, yellow to blue, red to green (Ruderman et al.,
JOSA A 1998)"""
_RGB_VARIATION = 2.0
"""times that total variation weighs of RGB images"""
_STEP = 0.03
"""root mean square of the step that tells how far a module's answers follow its gradients"""
_GAINED = 0.5
"""share of what gradients promise, below which they are not those of the answers"""
Loss = Literal["margin", "poincare", "logit"]


class SearchParams(Params):
    """The optimiser and its priors. x = sigmoid(w) keeps images in [0, 1]; Adam moves w, or, of RGB, what w is along
    three axes of colour.

    The defaults were chosen on networks that protect nothing (benchmarks/tune_inversion.py).
    """

    iterations: int = Field(300, ge=1, description="Adam steps a restart")
    restarts: int = Field(3, ge=1, description="starts an image; the victim's own confidence chooses the best")
    lr: float = Field(0.1, gt=0, description="Adam's learning rate on w, where x = sigmoid(w)")
    loss: Loss = Field("margin", description="margin (PLG-MI), poincare (PPA), or logit (Algorithm 1's)")
    total_variation: float = Field(
        0.03, ge=0, description="weight of the summed absolute differences of neighbours; twice that of RGB"
    )
    l2: float = Field(0.0, ge=0, description="weight of the summed squared distances from the middle grey")
    jitter: int = Field(
        2, ge=0, description="random shift up to so many pixels each step, an eighth of the side at most"
    )
    flips: bool = Field(True, description="mirror at random each step, where a mirrored image keeps its class")
    blur: float = Field(0.0, ge=0, description="sigma in pixels of a blur that fades out over the steps")
    coarse: float = Field(
        0.5, ge=0, lt=1, description="share of the steps, the first, at half the resolution; from 16 pixels up"
    )
    chroma: float = Field(
        0.25, gt=0, le=1, description="how far a step moves colours, of RGB images, against brightness; 1: as far"
    )
    confidence_draws: int = Field(
        4, ge=1, description="answers over small shifts (and a spiking victim's noise) whose mean is the confidence"
    )


def search(
    model: Model,
    targets: Tensor,
    shape: tuple[int, int, int],
    context: AttackContext,
    params: SearchParams,
    what: str,
    size: int = 250,
    extra: Callable[[], Tensor] | None = None,
    brightness: float | None = None,
    best: Best | None = None,
    shown: bool = False,
    own: bool = False,
) -> Tensor:
    """One restart: images [N, *shape] in [0, 1] that ``model`` puts into the classes ``targets`` [N].

    It starts from noise, or, with a ``brightness`` in (0, 1), from flat images of it with little noise, which are
    searched at the full resolution alone. ``size`` images are optimised at once. ``extra`` is a further term of the
    loss, summed over the images of the last call of ``model``. ``best`` is what the outcome is offered to, where it is
    for the attack's own targets; without one, ``shown`` says whether its present state is what the attack has so far.
    Of its ``own`` targets, as these both are, each pays for the steps of its batch alone.
    Logits are measured in units of their own spread on the images it starts from, so that a network whose logits were
    scaled is attacked in the same way. Raises NoSignal where no gradient ever reached the images, or one was no number.
    """
    parts = torch.arange(len(targets)).split(size)
    images = []
    for number, (where, wanted) in enumerate(zip(parts, targets.split(size), strict=True)):
        title = what if len(parts) == 1 else f"{what}, batch {number + 1} of {len(parts)}"
        with context.part(where) if best or shown or own else nullcontext():
            images.append(_search(model, wanted, shape, context, params, title, extra, brightness, best, shown))
    return torch.cat(images)


def _search(
    model: Model,
    targets: Tensor,
    shape: tuple[int, int, int],
    context: AttackContext,
    params: SearchParams,
    what: str,
    extra: Callable[[], Tensor] | None,
    brightness: float | None,
    best: Best | None,
    shown: bool,
) -> Tensor:
    height, width = shape[1:]
    halved = brightness is None and min(height, width) >= 2 * _COARSEST
    coarse = round(params.coarse * params.iterations) if halved else 0
    small = (height // 2, width // 2) if coarse else (height, width)
    image = _Canvas(shape, params.chroma, context.device)
    start = torch.randn(len(targets), shape[0], *small, generator=context.generator)
    if brightness is not None:
        start = image.flat(brightness) + start / 4
    pixels = _Pixels(start.to(context.device), params.lr)
    with torch.no_grad():
        spread = model(image(pixels.w)).std(1).mean().clamp(min=1e-12)
    smoothness = params.total_variation * (_RGB_VARIATION if shape[0] == RGB else 1)
    watch = GradientWatch()
    for step in context.steps(params.iterations, what, pixels=pixels, watch=watch):
        if coarse and step == coarse:
            pixels.begin(image.whole(pixels.w.detach()).clone())
        x = image(pixels.w)
        sigma = params.blur * (1 - step / params.iterations)
        seen = _disturbed(blurred(x, sigma), params, context)
        loss = LOSSES[params.loss](model(seen) / spread, targets).sum()
        if extra is not None:
            loss = loss + extra()
        (pull,) = torch.autograd.grad(loss, pixels.w, retain_graph=True)
        watch.see(pull)
        prior = smoothness * total_variation(x).sum()
        if params.l2:
            prior = prior + params.l2 * (x - 0.5).square().sum()
        (smooth,) = torch.autograd.grad(prior, pixels.w)
        pixels.step(pull + smooth)
        if shown or (best is not None and best.empty):
            context.snapshot(image(pixels.w.detach()))
    watch.check(what)
    return image(pixels.w.detach())


class _Canvas:
    """What is searched -> images [B, C, H, W] in (0, 1). A pixel of RGB is searched along the three axes of colour, in
    units that make a step along the latter two ``chroma`` as long: colours that change as fast as brightness are no
    natural image's (Olah et al., Feature Visualization, Distill 2017)."""

    def __init__(self, shape: tuple[int, int, int], chroma: float, device: torch.device) -> None:
        self._size = shape[1:]
        self._axes: Tensor | None = None
        if shape[0] == RGB:
            lengths = torch.tensor([[1.0], [chroma], [chroma]])
            self._axes = (lengths * functional.normalize(_COLOURS)).to(device)

    def __call__(self, w: Tensor) -> Tensor:
        """Of w [B, C, h, w], at the whole or a lower resolution."""
        if self._axes is not None:
            w = torch.einsum("ac,bahw->bchw", self._axes, w)
        return torch.sigmoid(self.whole(w))

    def whole(self, w: Tensor) -> Tensor:
        """``w`` at the whole resolution."""
        if w.shape[-2:] == self._size:
            return w
        return functional.interpolate(w, self._size, mode="bilinear", align_corners=False)

    def flat(self, brightness: float) -> Tensor:
        """The w [C or 1, 1, 1] of a grey image of this brightness in (0, 1)."""
        level = math.log(brightness / (1 - brightness))
        return torch.tensor([level] if self._axes is None else [level * math.sqrt(3), 0.0, 0.0]).view(-1, 1, 1)


class _Pixels:
    """What is searched, and the Adam that moves it."""

    def __init__(self, w: Tensor, lr: float) -> None:
        self._lr = lr
        self.begin(w)

    def begin(self, w: Tensor) -> None:
        """Anew from ``w`` [N, C, H, W]."""
        self.w = w.requires_grad_()
        self._optimizer = torch.optim.Adam([self.w], lr=self._lr)

    def step(self, gradient: Tensor) -> None:
        self.w.grad = gradient
        self._optimizer.step()

    def state(self) -> State:
        return {"w": self.w, **optimizer_state(self._optimizer)}

    def restore(self, state: State) -> None:
        moments = dict(state)
        self.begin(moments.pop("w").to(self.w.device))
        restore_optimizer(self._optimizer, moments)


def followed(victim: Victim, context: AttackContext) -> ImageClassifier:
    """What a search with the weights follows the gradients of (:func:`leakbench.snn.searched`).

    Raises NoSignal where a ReLU network's gradients are not those of its answers.
    """
    probes = torch.rand(64, *victim.image_shape, generator=context.generator).to(context.device)
    network = searched(victim.network, probes, context.seed())
    images = {
        "noise": probes,
        "smooth noise": blurred(probes, min(victim.image_shape[1:]) / 8),
        "dark noise": probes / 10,
        "bright noise": 1 - probes / 10,
    }
    if isinstance(network, ModuleNetwork):  # its gradients may be surrogates
        return to_scale(network, list(images.values()), context.seed())
    for name, of in images.items():
        check_gradients(network, of, name)
    return network


def to_scale(network: ModuleNetwork, images: Sequence[Tensor], seed: int) -> ModuleNetwork:
    """The module with gradients as long as what its answers change by along them.

    Surrogate gradients are of any length, and a search weighs them against the priors. Steps of :data:`_STEP` are tried
    from each of the ``images`` [B, C, H, W]; the median over these counts, without those to which the module answers
    nothing. Where no step gains anything gradients stay as they are.
    """
    shares = []
    for of in images:
        margins, before, gradient = _margins_at(partial(network, seed=seed), of)
        length = gradient.flatten(1).norm(dim=1).clamp(min=1e-30).view(-1, 1, 1, 1)
        with torch.no_grad():
            moved = (of + gradient / length * _STEP * math.sqrt(of[0].numel())).clamp(0, 1)
            share = float((margins(moved) - before).sum() / (gradient * (moved - of)).sum())
        if 0 < share < math.inf:
            shares.append(share)
    scaled = ModuleNetwork(
        _Scaled(network.body, median(shares) if shares else 1.0),
        network.image_shape, network.classes, network.input_range, network.arch,
    )  # fmt: skip
    scaled.noise = network.noise  # one that every loop keeps
    return scaled.eval().requires_grad_(False)


class _Scaled(nn.Module):
    """A module's body whose gradients with respect to images are ``factor`` times as long."""

    def __init__(self, body: nn.Module, factor: float) -> None:
        super().__init__()
        self.body, self.factor = body, factor

    def forward(self, images: Tensor, seed: int) -> Tensor:
        """As the body's."""
        if images.requires_grad:
            images = images.view_as(images)
            images.register_hook(lambda gradient: gradient * self.factor)
        logits: Tensor = self.body(images, seed)
        return logits


def _margins_at(model: Model, images: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """A model's margins of one class each, in units of the spread of its logits at ``images`` [B, C, H, W]: as a
    function of images, there [B], and their gradient there [B, C, H, W]."""
    x = images.detach().clone().requires_grad_()
    logits = model(x)
    spread = logits.detach().std(1).mean().clamp(min=1e-12)
    targets = torch.arange(len(x), device=x.device) % logits.shape[1]

    def margins(of: Tensor) -> Tensor:
        return -margin_loss(of / spread, targets)

    before = margins(logits)
    (gradient,) = torch.autograd.grad(before.sum(), x)
    return lambda moved: margins(model(moved)), before.detach(), gradient


def check_gradients(model: Model, images: Tensor, name: str) -> None:
    """Raises NoSignal where steps along the gradients at ``images`` [B, C, H, W] gain far less than these promise.

    Constants so large that a branch's values are lost in rounding leave its gradients: whoever follows them goes
    astray, while the network answers as it would without the branch. Steps that promise gains of .3, .1 and .03
    spreads of the logits are tried, as large ones leave the neighbourhood that is linear and small ones are lost in
    rounding everywhere. Of networks of ReLUs on the digits the median image gained .9 and more.
    """
    margins, before, gradient = _margins_at(model, images)
    step = gradient / gradient.flatten(1).square().sum(1).clamp(min=1e-30).view(-1, 1, 1, 1)
    gained = []
    with torch.no_grad():
        for gain in (0.3, 0.1, 0.03):
            moved = (images + gain * step).clamp(0, 1)
            promised = (gradient * (moved - images)).flatten(1).sum(1)
            known = promised > 0
            if not bool(known.any()):
                return  # no gradient: the search says so
            gained.append(((margins(moved) - before) / promised)[known].nan_to_num(0.0, 0.0, 0.0).median())
    most = max(float(share) for share in gained)
    if most < _GAINED:
        raise NoSignal(
            f"misleading gradients: from {name}, steps along the gradients gain {most:.2f} of what these promise"
        )


class GradientWatch:
    """Whether gradients ever said anything: an attack on zeros hands back what it started from."""

    def __init__(self) -> None:
        self._moved = False

    def state(self) -> State:
        return {"moved": torch.tensor(self._moved)}

    def restore(self, state: State) -> None:
        self._moved = bool(state["moved"])

    def see(self, gradient: Tensor) -> None:
        """Raises NoSignal where the gradient is no number."""
        total = float(gradient.abs().sum())
        if not total < float("inf"):
            raise NoSignal("non-finite gradients: the victim's gradient with respect to its input is NaN or infinite")
        self._moved |= total > 0

    def check(self, what: str) -> None:
        """Raises NoSignal where all gradients so far were zero."""
        if not self._moved:
            raise NoSignal(f"zero gradients: {what}: no step had a gradient with respect to the input")


class Best:
    """The best image of each target so far, by the victim's own averaged confidence; no judge has a say in it.

    Who stops the attack hands these over, so they are its snapshots. A search that goes on beside them is none of it
    until it has been compared: which of the two is better, nobody knows who has not asked.
    """

    def __init__(self, victim: Victim, targets: Tensor, context: AttackContext, draws: int) -> None:
        self._victim, self._targets, self._context, self._draws = victim, targets, context, draws
        self.images = torch.zeros(len(targets), *victim.image_shape, device=targets.device)
        self.confidence = torch.full((len(targets),), -1.0, device=targets.device)
        self._winner = torch.zeros(len(targets), dtype=torch.long, device=targets.device)
        self._names: list[str] = []

    @property
    def empty(self) -> bool:
        """Whether nothing was offered yet: what is being searched is all that there is."""
        return not self._names

    def offer(self, images: Tensor, name: str, index: Tensor | None = None) -> Tensor:
        """Takes what is better than before; returns the confidence in each of ``images``.

        ``index`` says which targets the images are for (default: all of them, in order).
        """
        where = torch.arange(len(self._targets), device=self._targets.device) if index is None else index
        ask = partial(averaged_confidence, self._victim, images, self._targets[where], self._context, self._draws)
        with self._context.part(where):
            reached = self._context.once(f"the victim's confidence in {name}", ask)
        if name not in self._names:
            self._names.append(name)
        better = reached > self.confidence[where]
        chosen = where[better]
        self.images[chosen], self.confidence[chosen] = images[better], reached[better]
        self._winner[chosen] = self._names.index(name)
        self._context.snapshot(self.images)
        return reached

    def report(self) -> None:
        """How many images each of the names won, as findings."""
        for number, name in enumerate(self._names):
            self._context.finding(f"images won by {name}", int((self._winner == number).sum()))


def averaged_confidence(victim: Victim, images: Tensor, targets: Tensor, context: AttackContext, draws: int) -> Tensor:
    """The victim's mean probability of ``targets`` [N] over ``draws`` answers to ``images`` shifted by up to a pixel.

    An image of a class stays one when it moves; one that depends on single pixels (or on one draw of the encoder's
    noise) does not (Struppek et al., PPA, ICML 2022, choose by random crops).
    """
    total = torch.zeros(len(images), device=images.device)
    for draw in range(draws):
        shift = torch.randint(-1, 2, (2,), generator=context.generator).tolist() if draw else [0, 0]
        answers = answers_of(victim, torch.roll(images, shift, (2, 3)))
        total += answers.softmax(1).gather(1, targets[:, None]).squeeze(1)
    return total / draws


def answers_of(victim: Victim, images: Tensor, size: int = 100) -> Tensor:
    """The victim's logits [N, classes], asked in batches that a simulation over many steps has room for."""
    return torch.cat([victim.scores(part) for part in images.split(size)])


def labels_of(victim: Victim, images: Tensor, size: int = 100) -> Tensor:
    """The victim's classes [N], asked in the same batches."""
    return torch.cat([victim.labels(part) for part in images.split(size)])


def margin_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """max over other classes of y_j, minus y_c; [B]. Does not saturate as cross-entropy does (PLG-MI, AAAI 2023)."""
    target_logits = logits.gather(1, targets[:, None]).squeeze(1)
    others = logits.scatter(1, targets[:, None], -torch.inf).amax(1)
    return others - target_logits


def poincare_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Distance in the Poincare ball from y / |y|_1 to the class's corner, drawn in by 1e-4; [B] (PPA, ICML 2022)."""
    u = logits / logits.abs().sum(1, keepdim=True).clamp(min=1e-12)
    v = functional.one_hot(targets, logits.shape[1]).to(u.dtype) * (1 - 1e-4)
    u2, v2 = u.square().sum(1), v.square().sum(1)
    inside = 2 * (u - v).square().sum(1) / ((1 - u2).clamp(min=1e-6) * (1 - v2))
    return torch.acosh(1 + inside.clamp(min=1e-7))


def logit_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Minus the class's own logit; [B]. Says nothing against the other classes."""
    return -logits.gather(1, targets[:, None]).squeeze(1)


LOSSES: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    "margin": margin_loss,
    "poincare": poincare_loss,
    "logit": logit_loss,
}


def total_variation(x: Tensor) -> Tensor:
    """Sum over pixels of the absolute differences to the right and lower neighbours; [B]."""
    across = (x[..., 1:] - x[..., :-1]).abs().flatten(1).sum(1)
    down = (x[..., 1:, :] - x[..., :-1, :]).abs().flatten(1).sum(1)
    return across + down


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of ``sigma`` pixels, its kernel cut to what the image can take; below a tenth of a pixel none."""
    if sigma < 0.1:
        return x
    from torchvision.transforms.functional import gaussian_blur  # torchvision takes as long to load as torch

    size = 2 * min(max(1, round(3 * sigma)), min(x.shape[2:]) - 1) + 1
    out: Tensor = gaussian_blur(x, [size, size], [sigma, sigma])
    return out


def jittered(x: Tensor, pixels: int, context: AttackContext) -> Tensor:
    """``x`` [B, C, H, W] shifted at random by up to ``pixels`` (an eighth of the side at most), all alike."""
    most = min(pixels, min(x.shape[2:]) // 8)
    if not most:
        return x
    shift = torch.randint(-most, most + 1, (2,), generator=context.generator).tolist()
    return torch.roll(x, shift, (2, 3))


def _disturbed(x: Tensor, params: SearchParams, context: AttackContext) -> Tensor:
    """Shifted and mirrored at random, the whole batch alike."""
    x = jittered(x, params.jitter, context)
    if params.flips and context.flips and bool(torch.rand((), generator=context.generator) < 0.5):
        x = x.flip(-1)
    return x
