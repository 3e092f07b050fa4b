"""Attacks on members with 4, 8 and 16 references, on five networks of the digits: what their number is worth.

python benchmarks/fewer_references.py
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, cast, get_args

from pydantic import Field
from torch import Tensor

import leakbench
from leakbench.attacks.auto_mia_v2 import AutoMiaV2
from leakbench.attacks.bavaria import Bavaria
from leakbench.attacks.lira import Lira
from leakbench.attacks.rmia import Rmia
from leakbench.bench.grid import SIZES, Sizes
from leakbench.contracts import AttackContext, MembershipAttack, Params, Victim

PRESET, COUNTS = "standard", [4, 8, 16]
Name = Literal["auto_mia-v2", "lira", "rmia", "bavaria"]
ATTACKS: dict[str, type[MembershipAttack[Any]]] = {each.name: each for each in (AutoMiaV2, Lira, Rmia, Bavaria)}


class Count(Params):
    attack: Name = "auto_mia-v2"
    count: int = Field(4, ge=4, multiple_of=2, description="references that it uses, the first ones")


class FewerReferences(MembershipAttack[Count]):
    name = "fewer_references"
    needs = AutoMiaV2.needs
    uses_references = True
    uses_population = True
    cites = AutoMiaV2.cites

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        fewer = replace(context, references=context.references[: self.params.count])
        return ATTACKS[self.params.attack]().run(victim, candidates, labels, fewer)


def main() -> None:
    most = SIZES[PRESET].model_copy(update={"references": max(COUNTS)})
    cast(dict[str, Sizes], SIZES)[PRESET] = most
    leakbench.run(
        dataset="digits",
        preset=PRESET,
        seeds=5,
        defense="han2020",
        attack=FewerReferences,
        set={"fewer_references.attack": list(get_args(Name)), "fewer_references.count": COUNTS},
        out="runs/references",
    )


if __name__ == "__main__":
    main()
