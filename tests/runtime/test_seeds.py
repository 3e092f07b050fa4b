"""Seeds: what they follow from, and above all what they don't, so that code can be changed at equal numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_runs import GATED, OURS, Warm, cell_of, numbers, run_here

from leakbench.runtime.seeds import seed_of
from leakbench.runtime.store import Store

MEASURED = [
    97629991947137298,
    364841446844072736,
    400489127647068869,
    654096568578924746,
    656262353908922604,
    670677022133059141,
    738823368595175551,
    828326137016925435,
    1132484262560138102,
]
"""of the features of a set of images, and of every metric of it: no metric's number depends on the others"""
OF_A_CHECK = 79760804049965595
"""the same, of the check at half the effort"""
METRICS, CHECKED = 16, 4
"""how many metrics are measured of a set of images, and of a check at half the effort"""
SEEDS = {
    "anchor": [
        591360020858529055,
        619320534946625586,
        619320534946625586,
        619320534946625586,
        619320534946625586,
        622973792608864086,
        836409529454251172,
        921385478148998884,
    ],
    "ann": [325233973816098717],
    "attack": [172225577376952849, 484731867960302209],
    "budget": [1068856869935060773],
    "ensemble": [219722115531560067],
    "features": [219722115531560067],
    "image-features": [
        400489127647068869,
        486839081216422267,
        670677022133059141,
        828326137016925435,
        914087553766555909,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
    ],
    "judge": [386267787679688944, 956775995835372332],
    "metric": [
        400489127647068869,
        400489127647068869,
        400489127647068869,
        400489127647068869,
        400489127647068869,
        400489127647068869,
        400489127647068869,
        400489127647068869,
        400489127647068869,
        400489127647068869,
        400489127647068869,
        400489127647068869,
        400489127647068869,
        400489127647068869,
        400489127647068869,
        400489127647068869,
        400489127647068869,
        486839081216422267,
        486839081216422267,
        486839081216422267,
        486839081216422267,
        486839081216422267,
        486839081216422267,
        486839081216422267,
        486839081216422267,
        486839081216422267,
        486839081216422267,
        486839081216422267,
        486839081216422267,
        486839081216422267,
        486839081216422267,
        486839081216422267,
        486839081216422267,
        486839081216422267,
        499720295299940637,
        499720295299940637,
        499720295299940637,
        499720295299940637,
        670677022133059141,
        670677022133059141,
        670677022133059141,
        670677022133059141,
        670677022133059141,
        670677022133059141,
        670677022133059141,
        670677022133059141,
        670677022133059141,
        670677022133059141,
        670677022133059141,
        670677022133059141,
        670677022133059141,
        670677022133059141,
        670677022133059141,
        670677022133059141,
        670677022133059141,
        828326137016925435,
        828326137016925435,
        828326137016925435,
        828326137016925435,
        828326137016925435,
        828326137016925435,
        828326137016925435,
        828326137016925435,
        828326137016925435,
        828326137016925435,
        828326137016925435,
        828326137016925435,
        828326137016925435,
        828326137016925435,
        828326137016925435,
        828326137016925435,
        828326137016925435,
        914087553766555909,
        914087553766555909,
        914087553766555909,
        914087553766555909,
        914087553766555909,
        914087553766555909,
        914087553766555909,
        914087553766555909,
        914087553766555909,
        914087553766555909,
        914087553766555909,
        914087553766555909,
        914087553766555909,
        914087553766555909,
        914087553766555909,
        914087553766555909,
        914087553766555909,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
        1034756213700209791,
    ],
    "nearest": [94686022164757331, 417052861836635768],
    "outliers": [51636628267149370],
    "predictions": [
        243738620296589248,
        320103078693287163,
        320103078693287163,
        320103078693287163,
        320103078693287163,
        444562576801622768,
        510241159357335057,
        580166223171592765,
        771382754023282076,
        1054271892785748510,
    ],
    "training-features": [219722115531560067],
    "uap": [825795884902095792],
    "uap-brackets": [47171097217924698],
    "utility": [967222757631542397],
    "victim": [731868689459094235],
}
"""stage -> the seeds that artifacts of the digits run start from"""


def store_seed(store: Store, key: str) -> int:
    seed: int = json.loads((store.root / "objects" / key[:2] / key / "manifest.json").read_bytes())["inputs"]["seed"]
    return seed


def seeds_in(cache: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for path in (cache / "objects").glob("??/*/manifest.json"):
        manifest = json.loads(path.read_bytes())
        found.setdefault(manifest["stage"], []).append(manifest["inputs"]["seed"])
    return {stage: sorted(seeds) for stage, seeds in sorted(found.items())}


@pytest.mark.long
@pytest.mark.slow
def test_the_seeds_of_a_digits_run_stay_what_they_are(digits_store: Path) -> None:
    """If this fails, every number of every run on the digits changes: say so in the changelog, or undo it."""
    assert seeds_in(digits_store) == SEEDS


def test_a_seed_follows_from_everything_it_is_told() -> None:
    base = {"data": "abc", "plugin": "direct", "params": {"iterations": 5, "zeta": 0.01}, "replicate": 0}
    others = [
        seed_of("attack", **base),
        seed_of("victim", **base),
        *(seed_of("attack", **{**base, name: other}) for name, other in
          (("data", "abd"), ("plugin", "direc"), ("params", {"iterations": 5, "zeta": 0.02}), ("replicate", 1))),
    ]  # fmt: skip
    assert len(set(others)) == len(others)
    assert all(0 <= seed < 2**60 for seed in others)
    turned = {"replicate": 0, "params": {"zeta": 0.01, "iterations": 5}, "plugin": "direct", "data": "abc"}
    assert seed_of("attack", **turned) == others[0]


@pytest.mark.slow
@pytest.mark.parametrize("change", ["version", "text", "place"])
def test_no_seed_follows_from_version_or_source(warm: Warm, tmp_path: Path, change: str) -> None:
    """A new version makes new artifacts with the same draws: equal numbers, if it computes the same."""
    other = tmp_path / ("elsewhere.py" if change == "place" else "gated.py")
    text = {
        "version": GATED.replace("needs =", "version = 2\n    needs ="),
        "text": GATED + "\n# a remark\n",
        "place": GATED,
    }[change]
    other.write_text(text, encoding="utf-8")
    options = warm.tiny.options(attack=[f"{other}:Gated"], controls=False, set={f"{OURS}.images": ["16"]})
    record = run_here(options, warm.grown, tmp_path / "run")
    cell, before = cell_of(record, OURS, "gated"), cell_of(warm.record, OURS, "gated")
    assert numbers(record, OURS).items() <= numbers(warm.record, OURS).items()
    assert (cell.artifacts["images"] == before.artifacts["images"]) == (change == "place")


@pytest.mark.long
@pytest.mark.slow
def test_replicates_and_networks_draw_apart(warm: Warm, tmp_path: Path) -> None:
    """The attack starts anew on each network: shared starts would make outcomes of several networks alike."""
    options = warm.tiny.options(
        defense=[OURS, "random"], attack=[f"{warm.tiny.gated}:Gated"], controls=False, seeds=2,
        set={f"{OURS}.images": ["16"]},
    )  # fmt: skip
    record = run_here(options, warm.grown, tmp_path / "run")
    store = Store(warm.grown)
    for role in ("images", "victim"):
        keys = {cell.artifacts[role] for cell in record.cells if cell.defense and cell.attack and not cell.of}
        seeds = {store_seed(store, key) for key in keys}
        assert len(seeds) == len(keys) == 4, role
