"""What built-in plugins compute by default is pinned: no change of it without a new version."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from leakbench import registry

DIGESTS: dict[str, str] = {
    "ann": "9f212c00c90dd2cf",
    "random": "cd617fa5a9739ff0",
    "shuffled": "5c557a7d80f538b1",
    "overfitted": "18c44c804eaa3cbf",
    "unseen": "5fa483f7baa7931b",
    "diehl2015": "4e4aed561dfcfb18",
    "rueckauer2017": "7ebeb315ff1dee92",
    "sengupta2019": "3603950d5a345cc2",
    "han2020": "42e13808bbbf1215",
    "han_roy2020": "d74c6ce20866ec22",
    "zambrano2019": "ceaffc7d09d5276c",
    "deng_gu2021": "9e2f45342f3526af",
    "li2021": "95f05b08d6736e53",
    "bu2022": "7cd44c4e6d711fff",
    "stbp": "9681f3c412c5bc96",
    "tdbn": "c8243608d9b4ddbf",
    "lee2020": "1f6c43c11dce6c0d",
    "zskd": "a2505f1ef7828331",
    "knowledge_within": "52e96b52cb7f8a52",
    "dpsgd": "59cb4ca5c1daab8a",
    "datafree": "a3a91d1ec0ac17ac",
    "privatesnn": "af987607d71a4f34",
    "reconversion": "be0506d47aa4d276",
    "direct": "7ca563f4550d327b",
    "inversion": "0d74fc67218daf01",
    "analog_twin": "8dfbbc4039130bf1",
    "surrogate_zoo": "6112d089a64ec8fe",
    "spsa": "7215d3705a49bd34",
    "extraction": "bd5a3cc953d27433",
    "decrypt": "5b4b98024d050cef",
    "generative_prior": "e6b45a3c97bd4e78",
    "evolution": "b115d59a021e4ad3",
    "label_only": "ab66e621906fbce5",
    "auto-v1": "afc7d2ca54cd04c3",
    "auto-v2": "c681be693d48a13f",
    "repaired": "a26a566d8ac1d6ae",
    "pruned": "e39f0ed2ed83f0c4",
    "distilled": "fb52873dfbe04980",
    "loss_threshold": "11301abf0772962a",
    "attack_p": "ad44f2c264a15696",
    "rmia": "dc021fdc59cab373",
    "lira": "c517be8dfd4c8779",
    "bavaria": "1132ce78211939fe",
    "threshold_membership": "a907a62e658aaaea",
    "synthetic_leak": "2165062e2e527a61",
    "noise_mia": "41d8bbc2c0da18f4",
    "label_only_mia": "4246f7cc7eddcd01",
    "gradient_mia": "bc508167a491f72d",
    "trajectory_mia": "8b4111fcdc16116a",
    "auto_mia-v1": "de1fb7d1632dd8e6",
    "auto_mia-v2": "bf8f9069504496f8",
    "shadow_mia": "0d2f4689b8b88e1f",
    "auto_mia-v3": "2dc65ff989378608",
}
"""plugin -> digest of its version, defaults, presets and (of an ensemble) members

`auto-v2`, `repaired`, `pruned` and `distilled` kept their versions, which protocols require, when the search of RGB
images changed: all protocols are of grey images, of which they compute what they did, and keys hold their members'
parameters. `auto-v1` kept its version when `surrogate_zoo` was corrected for readouts that no network of a run has; its
members' versions are in its keys.
"""

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
