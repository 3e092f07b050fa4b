"""The plugin of a variant, and what its seeds follow from."""

from __future__ import annotations

from typing import Any

from leakbench import registry
from leakbench.cells import Variant
from leakbench.contracts import Params, Plugin
from leakbench.errors import PluginError
from leakbench.runtime.fence import made_plugin


def plugin_of(kind: registry.Kind, variant: Variant) -> Any:
    """The plugin of a variant. PluginError where its code is no longer what the variant's key says."""
    plugin = made_plugin(kind, variant.target, variant.params)
    if variant.code and registry.source(kind, variant.target).digest != variant.code:
        raise PluginError(f"{variant.target} was edited while the run was under way: start it again")
    return plugin


def changed_params(plugin: Plugin[Any]) -> dict[str, Any]:
    """The parameters that are not the defaults: what a seed follows from, so that a new one changes no old number."""
    params: Params = plugin.params
    return params.model_dump(mode="json", exclude_defaults=True)
