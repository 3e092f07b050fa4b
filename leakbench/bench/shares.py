"""What built-in plugins share with others: built once under its own key, by whoever comes first.

Which that is depends on the plugin's code, and was seen when costs were measured (``benchmarks/costs.py``).
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from leakbench.cells import Variant

Shares = Mapping[str, Mapping[str, tuple[str, ...]]]
"""plugin -> name of what it shares with others -> the parameters that this depends on"""


@cache
def measured_shares() -> Shares:
    """Those of the table of measured costs."""
    table = json.loads(files("leakbench.bench").joinpath("costs.json").read_bytes())
    return {plugin: {name: tuple(params) for name, params in each.items()} for plugin, each in table["shares"].items()}


def chosen_shares(variant: Variant, shares: Shares) -> dict[str, dict[str, Any]]:
    """Name of what a built-in shares -> values of the parameters that this depends on; empty for a third party's."""
    if variant.code:
        return {}
    return {
        name: {param: variant.params.get(param) for param in depends}
        for name, depends in shares.get(variant.name, {}).items()
    }


def share_key(name: str, scope: Hashable, chosen: Mapping[str, Any]) -> Hashable:
    """Alike for variants that share it on one network, or with the same public images: ``scope``."""
    return "shared", name, scope, text_of(chosen)


def text_of(params: Mapping[str, Any]) -> str:
    """Parameters as what can be compared and hashed."""
    return json.dumps(params, sort_keys=True, default=str)
