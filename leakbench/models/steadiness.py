"""Networks of a third party's code must answer an image alike, whatever else they are asked."""

from __future__ import annotations

import torch
from torch import Tensor

from leakbench.contracts import ImageClassifier, ModuleNetwork
from leakbench.errors import PluginError
from leakbench.models.catalogue import Architecture
from leakbench.models.third_party import seeded
from leakbench.models.training import predict
from leakbench.snn import SpikingNetwork

_ASKED = 200
"""images"""
_BATCH = 50
"""images at a time, half of them noise: gradients keep what every layer gave"""
_OTHERWISE = 0.1
"""share of the images that may get another class, besides those that get one by the network's own noise"""


class Steadiness:
    """What a network answers to some images, kept to be asked for again.

    One that remembers is judged in different states: its accuracy before it has seen an attack's images, its leak
    afterwards. One that looks at the whole batch, or at whether gradients are wanted, can tell an attack from measuring
    its accuracy. Networks of built-in code can do none of it, and are not asked.

    Not seen: one that remembers outside of its buffers and has forgotten by the time that it is asked again.
    """

    def __init__(self, who: str, network: ImageClassifier | SpikingNetwork, images: Tensor) -> None:
        """``network`` belongs to ``who``, ``images`` uint8 [N, C, H, W] are natural ones."""
        self._who = who
        self._images = images[:_ASKED].float() / 255
        self._first: Tensor | None = None
        if isinstance(network, ModuleNetwork) or Architecture.parse(network.arch).code:
            self._first, other = (_classes(network, self._images, seed) for seed in (0, 1))
            self._most = _OTHERWISE * len(other) + int((self._first != other).sum())

    def check(self, network: ImageClassifier | SpikingNetwork) -> None:
        """Asks again, each image beside one of noise, and of ANNs with gradients. PluginError where the answers are
        others than at first."""
        if self._first is None:
            return
        before = {name: value.clone() for name, value in network.state_dict().items()}
        darkness = torch.arange(len(self._images)) % (_BATCH // 2) / 6  # of each batch the first is white
        noise = (
            torch.rand(self._images.shape, generator=torch.Generator().manual_seed(0)) ** darkness[:, None, None, None]
        )
        again = _classes(network, torch.stack([self._images, noise], 1).flatten(0, 1), 0, gradients=True)[::2]
        changed = [name for name, value in network.state_dict().items() if not torch.equal(before[name], value)]
        if changed:
            raise PluginError(
                f"{self._who}: to answer changes its network's {changed[0]!r}, and each image must be answered alike "
                "whatever was asked before"
            )
        if (differing := int((self._first != again).sum())) > self._most:
            raise PluginError(
                f"{self._who}: its network answers {differing} of {len(again)} images otherwise after others were "
                "asked, beside them or with gradients: each must be answered alike"
            )


def _classes(network: ImageClassifier | SpikingNetwork, images: Tensor, seed: int, gradients: bool = False) -> Tensor:
    """int64 [N]: the class of each image float [N, C, H, W], with all noise from ``seed``."""

    def asked(x: Tensor) -> Tensor:
        noisy = isinstance(
            network, SpikingNetwork | ModuleNetwork
        )  # these take a seed, and are asked without gradients
        with torch.set_grad_enabled(gradients and not noisy):
            logits: Tensor = network(x, seed=seed) if noisy else network(x.requires_grad_(gradients))
        return logits.detach()

    with seeded(seed):
        return predict(asked, images, next(network.parameters()).device, _BATCH).argmax(1)
