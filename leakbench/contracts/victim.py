"""The deployed network in the attacker's hands."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional

from leakbench.contracts.cost import Cost
from leakbench.contracts.networks import ImageClassifier
from leakbench.errors import NoSignal, NotApplicable

if TYPE_CHECKING:
    from leakbench.snn import SpikingNetwork


class Access(enum.IntEnum):
    """What an attacker is given, in rising order: answers, answers with confidences, the network itself."""

    LABELS = 1
    SCORES = 2
    WEIGHTS = 3


class Victim:
    """The deployed network in the attacker's hands: it hands out only what the threat model allows."""

    def __init__(self, network: SpikingNetwork | ImageClassifier, access: Access, cost: Cost | None = None) -> None:
        self._network = network
        self.access = access
        self.cost = cost if cost is not None else Cost()
        self.image_shape: tuple[int, int, int] = network.image_shape
        self.classes: int = network.classes

    def restricted_to(self, access: Access, cost: Cost) -> Victim:
        """The same victim with no more than ``access``, its queries counted in ``cost``."""
        return Victim(self._network, min(self.access, access), cost)

    @property
    def noise(self) -> torch.Generator | None:
        """What the network's answers draw their noise from, if anything; for the framework alone."""
        return getattr(self._network, "noise", None)

    def _require(self, access: Access) -> None:
        if self.access < access:
            raise NotApplicable(f"the attack needs {access.name}, the victim grants {self.access.name}")

    @torch.no_grad()
    def require_answers(self, needs: Access, shown: Tensor | None = None) -> None:
        """Raises NoSignal where the network's answers are no numbers, or the same for every image.

        Asked on grey, black, white and noise images and on coarse patterns of black and white, which count as no
        queries: an attack on such a network would hand back what it started from, and that must not be read as
        protection. Coarse patterns are seen by spiking networks that are silent on noise: few steps, high thresholds.
        ``shown`` [B, C, H, W]: images that the attack holds, the first 100 of which are asked about as well. To an
        attack that ``needs`` WEIGHTS and holds none, a spiking network that is silent on all of them has its weights to
        tell: of its ReLU network the answers have to differ.
        """
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(16, *self.image_shape, generator=generator)
        coarse = torch.rand(16, self.image_shape[0], 4, 4, generator=generator).round()
        patterns = functional.interpolate(coarse, self.image_shape[1:])
        flat = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, *self.image_shape)
        device = next(self._network.parameters()).device
        probes = torch.cat([noise, patterns, flat, *([] if shown is None else [shown[:100].cpu()])]).to(device)
        # a seed of its own: the noise of the attack's own queries stays what it was
        logits = self._network(probes) if self.noise is None else self._network(probes, seed=0)
        if not torch.isfinite(logits).all():
            raise NoSignal("non-finite logits: the network answers NaN or infinity to ordinary images")
        relu: Callable[[], ImageClassifier] | None = getattr(self._network, "reconvert", None)
        if _constant(logits) and shown is None and needs == Access.WEIGHTS and relu is not None:
            logits = relu()(probes)
        if _constant(logits):
            whom = "" if shown is None else ", and the images that are asked about,"
            raise NoSignal(f"constant network: it gives flat images, noise and coarse patterns{whom} the same answer")

    @property
    def network(self) -> SpikingNetwork | ImageClassifier:
        """The network itself: weights, thresholds, gradients (WEIGHTS)."""
        self._require(Access.WEIGHTS)
        return self._network

    def scores(self, images: Tensor) -> Tensor:
        """Logits [B, classes] for images [B, C, H, W] in [0, 1] (SCORES). A spiking victim draws fresh noise."""
        self._require(Access.SCORES)
        return self._answers(images)

    def labels(self, images: Tensor) -> Tensor:
        """Predicted classes [B] (LABELS)."""
        self._require(Access.LABELS)
        return self._answers(images).argmax(1)

    @torch.no_grad()
    def _answers(self, images: Tensor) -> Tensor:
        self.cost.queries += len(images)
        logits = cast(Tensor, self._network(images))
        if not torch.isfinite(logits).all():
            raise NoSignal("non-finite logits: the victim answers NaN or infinity to an image that the attack made")
        return logits


def _constant(logits: Tensor) -> bool:
    """Whether all answers [B, classes] are one."""
    return torch.equal(logits, logits[:1].expand_as(logits))
