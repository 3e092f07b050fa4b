"""What the seeds of a plugin's results follow from."""

from __future__ import annotations

from typing import Any

from leakbench.contracts import Params, Plugin


def changed_params(plugin: Plugin[Any]) -> dict[str, Any]:
    """The parameters that are not the defaults: what a seed follows from, so that a new one changes no old number."""
    params: Params = plugin.params
    return params.model_dump(mode="json", exclude_defaults=True)
