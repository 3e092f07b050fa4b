"""Reference networks: trained as the victim was, on images that the attacker knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from leakbench.contracts.cost import Cost
from leakbench.contracts.victim import Access, Victim


@dataclass(frozen=True)
class Reference:
    """A network that an attacker on membership has made the way the victim was made, defence included.

    They come in pairs: the references 2i and 2i + 1 were trained on complementary halves of the candidates, and both on
    all other training images, so that each is as large a training as the victim's.
    """

    members: Tensor
    """bool [candidates]: those that it was trained on, half of them"""
    opened: Callable[[], Victim]
    """gives another copy each time, whose noise starts anew"""

    def victim(self) -> Victim:
        """The network, to be asked as the victim is. What it answers costs the attacker no queries."""
        return self.opened()

    def restricted_to(self, access: Access) -> Reference:
        """The same reference with no more than ``access``."""
        return Reference(self.members, lambda: self.opened().restricted_to(access, Cost()))
