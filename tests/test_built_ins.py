"""What built-in plugins compute by default is pinned: no change of it without a new version."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from leakbench import registry

DIGESTS: dict[str, str] = {}
"""plugin -> digest of its version, defaults, presets and (of an ensemble) members"""

KINDS: tuple[registry.Kind, ...] = ("defense", "attack")
BUILT_IN = [
    (kind, name) for kind in KINDS for name, entry in registry.entries(kind).items() if entry.origin == "built-in"
]


def described(plugin: Any) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "version": plugin.version,
        "defaults": plugin().params.model_dump(mode="json"),
        "presets": {name: plugin(**values).params.model_dump(mode="json") for name, values in plugin.presets.items()},
        "members": [
            (member.name, member.version, member.params.model_dump(mode="json"))
            for member in getattr(plugin, "members", ())
        ],
    }


def digest(plugin: Any) -> str:
    return hashlib.sha256(json.dumps(described(plugin), sort_keys=True).encode()).hexdigest()[:16]


@pytest.mark.parametrize(("kind", "name"), BUILT_IN)
def test_no_default_changes_without_a_new_version(kind: registry.Kind, name: str) -> None:
    plugin = registry.load(kind, name)
    assert DIGESTS.get(name) == digest(plugin), (
        f"{name} computes something else by default: raise its version, then write {digest(plugin)!r} here.\n"
        f"{json.dumps(described(plugin), indent=1)}"
    )


def test_no_digest_is_of_what_is_gone() -> None:
    assert DIGESTS.keys() <= {name for _, name in BUILT_IN}


def test_ensembles_say_what_they_run() -> None:
    """So that the key of what they made holds the versions and parameters of their members."""
    for kind, name in BUILT_IN:
        plugin = registry.load(kind, name)
        assert bool(getattr(plugin, "members", ())) == getattr(plugin, "ensemble", False)
