"""What an isolated attack shares is made of public images alone, as others get it who may know less."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from leakbench.contracts import Access, AttackContext, Victim
from leakbench.errors import PluginError
from leakbench.models.storage import build_ann
from leakbench.runtime.isolation.handlers import AttackHandler


def handler(access: Access, members: bool = False, queries: int = 0) -> AttackHandler:
    network = build_ann("vgg4", (1, 8, 8), 3, (0, 1), torch.Generator().manual_seed(0)).eval()
    context = AttackContext(torch.Generator())
    context.cost.queries = queries
    return AttackHandler(cast(Any, None), Victim(network, access, context.cost), context, members)


@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES])
def test_an_attack_that_knows_nothing_yet_may_share(access: Access) -> None:
    handler(access).may_build()


@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES])
def test_one_that_has_asked_may_not(access: Access) -> None:
    with pytest.raises(PluginError, match="this one has asked the victim"):
        handler(access, queries=1).may_build()


def test_one_that_holds_the_network_or_candidates_may_not() -> None:
    for one in (handler(Access.WEIGHTS), handler(Access.SCORES, members=True)):
        with pytest.raises(PluginError, match="with WEIGHTS or on members share nothing"):
            one.may_build()
