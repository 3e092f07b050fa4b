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
_SAME = 0.9
"""share of the images that must get the same class again: random numbers and rounding move some"""


class Steadiness:
    """What a network answers to some images, kept to be asked for again.

    One that remembers is judged in different states: its accuracy before it has seen an attack's images, its leak
    afterwards. One that looks at the whole batch can tell an attack, which asks for unnatural images alone, from
    measuring its accuracy. Networks of built-in code can do neither, and are not asked.
    """

    def __init__(self, who: str, network: ImageClassifier | SpikingNetwork, images: Tensor) -> None:
        """``network`` belongs to ``who``, ``images`` uint8 [N, C, H, W] are natural ones."""
        self._who = who
        self._images = images[:_ASKED]
        self._own_code = isinstance(network, ModuleNetwork) or bool(Architecture.parse(network.arch).code)
        self._first = self._classes(network, self._images) if self._own_code else None

    def check(self, network: ImageClassifier | SpikingNetwork) -> None:
        """Asks again, each image beside one of noise. PluginError where the answers are others than at first."""
        if self._first is None:
            return
        before = {name: value.clone() for name, value in network.state_dict().items()}
        generator = torch.Generator().manual_seed(0)
        darkness = torch.linspace(0, 4, len(self._images))[:, None, None, None]  # the first is white
        noise = torch.rand(self._images.shape, generator=generator) ** darkness
        mixed = torch.stack([self._images.float() / 255, noise], 1).flatten(0, 1)
        again = self._classes(network, mixed)[::2]
        if isinstance(network, SpikingNetwork | ModuleNetwork):  # noise of its own depends on the place in the batch
            again = self._classes(network, self._images)
        changed = [name for name, value in network.state_dict().items() if not torch.equal(before[name], value)]
        if changed:
            raise PluginError(
                f"{self._who}: to answer changes its network's {changed[0]!r}, and each image must be answered alike "
                "whatever was asked before"
            )
        if (differing := int((self._first != again).sum())) > (1 - _SAME) * len(again):
            raise PluginError(
                f"{self._who}: its network answers {differing} of {len(again)} images otherwise after others were "
                "asked, or beside them: each must be answered alike"
            )

    def _classes(self, network: ImageClassifier | SpikingNetwork, images: Tensor) -> Tensor:
        device = next(network.parameters()).device

        def asked(x: Tensor) -> Tensor:
            with torch.no_grad():
                spiking = isinstance(network, SpikingNetwork | ModuleNetwork)
                logits: Tensor = network(x, seed=0) if spiking else network(x)
            return logits

        with seeded(0):
            return predict(asked, images, device).argmax(1)
