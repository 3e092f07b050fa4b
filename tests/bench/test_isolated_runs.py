"""A plugin gives the same numbers in a process of its own as in the run's, to the last bit, and says how it ran."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from isolated_cells import attack, built, cells, here
from tiny_runs import Tiny, make_tiny

from leakbench import registry
from leakbench.bench.recording import Participants
from leakbench.cli.new import new
from leakbench.errors import PluginError, UsageError
from leakbench.runtime import checkpoints
from leakbench.runtime.isolation.confinement import what_is_lacking
from leakbench.runtime.plugins import how_it_runs, load_plugin, made_plugin
from leakbench.runtime.process import fixed_threads
from leakbench.runtime.workspace import Settings, Workspace

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(what_is_lacking()), reason="this system can't isolate")]

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tests" / "plugin_package"

OTHERS = '''
"""What the examples leave out: labels, members, public images, what is shared, parts, loops, findings."""

import torch
from pydantic import Field

from leakbench.contracts import Access, Attack, Defense, MembershipAttack, Params, Variables
from leakbench.snn import SpikingConfig, SpikingNetwork, balance_thresholds


class Steps(Params):
    steps: int = Field(6, ge=1, description="steps")


class Labels(Attack[Steps]):
    """Walks while the label stays; shares what it draws, in two parts, in loops that can be resumed."""

    name = "labels"
    needs = Access.LABELS
    uses_public = True
    effort = "steps"

    def run(self, victim, targets, context):
        def build(own):
            layer = torch.nn.Linear(3, 3)  # of the global generator
            drawn = own.once("drawn", lambda: torch.rand(3, generator=own.generator))
            return {"weight": layer.weight.detach(), "drawn": drawn, "first": own.public.images[0].float()}

        shared = context.shared("draw", 1, {"size": 3}, build)
        context.finding("shared", float(shared["weight"].sum() + shared["drawn"].sum() + shared["first"].sum()))
        context.finding("global", float(torch.rand(1)))
        x = torch.rand(len(targets), *victim.image_shape, generator=context.generator)
        for half in torch.arange(len(targets)).chunk(2):
            with context.part(half):
                state = Variables(x=x[half])
                for _ in context.steps(self.params.steps, "walking", state=state):
                    step = torch.randn(state.x.shape, generator=context.generator) * 0.1
                    tried = (state.x + step).clamp(0, 1)
                    kept = victim.labels(tried) == targets[half]
                    state.x = torch.where(kept[:, None, None, None], tried, state.x)
                    context.snapshot(state.x)
                x[half] = state.x
        return x


class Scores(MembershipAttack[Params]):
    """The largest logit."""

    name = "scores"
    needs = Access.SCORES

    def run(self, victim, candidates, labels, context):
        return victim.scores(candidates).amax(1) + torch.rand(len(labels), generator=context.generator)


class Spiking(Attack[Steps]):
    """Ascent through the spikes, whose noise is drawn anew."""

    name = "spiking"
    needs = Access.WEIGHTS

    def run(self, victim, targets, context):
        x = torch.rand(len(targets), *victim.image_shape, generator=context.generator).requires_grad_(True)
        for _ in context.steps(self.params.steps, "ascending", x=x):
            loss = torch.nn.functional.cross_entropy(victim.network(x), targets)
            (gradient,) = torch.autograd.grad(loss, x)
            with torch.no_grad():
                x.sub_(gradient.sign() * 0.05).clamp_(0, 1)
            victim.scores(x.detach())
        return x.detach()


class Calibrated(Defense[Steps]):
    """A conversion on private images that come in batches, in a loop that can be resumed."""

    name = "calibrated-here"

    def protect(self, ann, data, context):
        kept = context.shared("noise", 1, {}, lambda own: {"x": torch.rand(4, generator=own.generator)})
        summed = Variables(x=torch.zeros(ann.image_shape))
        for _ in context.loop("reading").steps(self.params.steps, summed=summed, data=data):
            images, _ = data.sample(5, context.generator)
            summed.x = summed.x + images.mean(0) * kept["x"].mean()
        for images, labels in data.batches(16, context.generator):
            assert len(images) == len(labels)
            break
        network = SpikingNetwork.from_ann(ann, SpikingConfig(context.timesteps))
        images = (summed.x / summed.x.max()).expand(8, *ann.image_shape)
        balance_thresholds(network, images, context.seed())
        return network


class Wide(Defense[Params]):
    """Settings beyond all reason, and a way around what its own process checks."""

    name = "wide"

    def protect(self, ann, data, context):
        from leakbench.runtime.isolation import serving

        serving.check_kept = lambda *_: None
        network = SpikingNetwork.from_ann(ann, SpikingConfig(10**9))
        for layer in network.neurons:
            layer.threshold.fill_(1.0)
        return network


class Raises(Attack[Params]):
    """Raises."""

    name = "raises"
    needs = Access.SCORES

    def run(self, victim, targets, context):
        raise ZeroDivisionError("my mistake\\nwith a second line")


class Greedy(Raises):
    name = "greedy"

    def run(self, victim, targets, context):
        return victim.network


class Wrong(Raises):
    name = "wrong"

    def run(self, victim, targets, context):
        return "no images"
'''


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("isolated")
    with fixed_threads(1):
        made = make_tiny(folder)
    (folder / "others.py").write_text(OTHERS)
    for guide, name in (("write-an-attack", "ascent"), ("write-a-defense", "noisy")):
        blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / f"{guide}.md").read_text(), re.M | re.S)
        (folder / f"{name}.py").write_text(blocks[0])
    for kind in ("attack", "defense"):
        new(kind, f"new_{kind}", folder)
    return made


@pytest.fixture(scope="module", autouse=True)
def package() -> Iterator[None]:
    """The example package, registered as an installed one is."""
    patch = pytest.MonkeyPatch()
    patch.setattr(registry, "_registered", {})
    patch.syspath_prepend(str(PACKAGE))
    registry.register("attack", "random-search", "noise_plugins.attack:RandomSearch")
    registry.register("defense", "weight-noise", "noise_plugins.defense:WeightNoise")
    yield
    patch.undo()


ATTACKS = {
    "ascent.py:Ascent": "ann",
    "new_attack/new_attack.py:NewAttack": "han2020",
    "random-search": "ann",
    "gated.py:Gated": "ann",
    "others.py:Labels": "han2020",
    "others.py:Scores": "han2020",
    "others.py:Spiking": "han2020",
}
DEFENSES = ("noisy.py:Noisy", "new_defense/new_defense.py:NewDefense", "weight-noise", "others.py:Calibrated")


def target(tiny: Tiny, name: str) -> str:
    return f"{tiny.gated.parent / name}" if ".py:" in name else name


@pytest.fixture(scope="module")
def both(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Name -> what came of it in the run's process, and in its own. One warm process serves all of them."""
    outcomes: dict[str, list[Any]] = {}
    for isolated in (False, True):
        cache = tmp_path_factory.mktemp("cache")
        with here(isolated, cache, tiny.images), fixed_threads(1):
            for name, defense in ATTACKS.items():
                outcomes.setdefault(name, []).append(attack(tiny, cache, target(tiny, name), defense))
            for name in DEFENSES:
                outcomes.setdefault(name, []).append(built(tiny, cache, target(tiny, name)))
    return outcomes


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) and one[key].dtype == other[key].dtype for key in one
    )


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_give_the_same(both: dict[str, list[Any]], name: str) -> None:
    here_, there = both[name]
    assert same(here_.artifact.tensors, there.artifact.tensors)
    assert here_.findings == there.findings
    assert (here_.cost.queries, here_.cost.gradient_steps) == (there.cost.queries, there.cost.gradient_steps)
    assert here_.artifact.key != there.artifact.key  # nothing is taken for what was made with isolation
    assert here_.shared.keys() == there.shared.keys()


@pytest.mark.parametrize("name", DEFENSES)
def test_defences_give_the_same(both: dict[str, list[Any]], name: str) -> None:
    here_, there = both[name]
    assert same(here_.deployed.artifact.tensors, there.deployed.artifact.tensors)
    assert here_.images_read == there.images_read
    without = {"seconds", "shared"}
    records = [{k: v for k, v in one.deployed.artifact.record.items() if k not in without} for one in (here_, there)]
    assert records[0] == records[1]


@pytest.mark.long
@pytest.mark.parametrize("name", ["others.py:Labels", "others.py:Calibrated"])
def test_a_run_that_is_killed_goes_on_to_the_same(
    tiny: Tiny, both: dict[str, list[Any]], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States are kept at every step, and the process of the plugin ends in the middle of its loop."""
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    saved: list[str] = []
    save = checkpoints.CheckpointFolder.save

    def interrupted(self: Any, loop: str, state: Any, last: bool) -> None:
        save(self, loop, state, last)
        saved.append(loop)
        if len([one for one in saved if one.startswith("isolated")]) == 4:
            raise KeyboardInterrupt

    def run() -> Any:
        with here(True, tmp_path, tiny.images), fixed_threads(1):
            chosen = target(tiny, name)
            return attack(tiny, tmp_path, chosen, ATTACKS[name]) if name in ATTACKS else built(tiny, tmp_path, chosen)

    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(checkpoints.CheckpointFolder, "save", interrupted)
            run()
    finally:
        signal.signal(signal.SIGINT, usual)
    first, again = both[name][0], run()
    if name in ATTACKS:
        assert same(first.artifact.tensors, again.artifact.tensors)
        assert first.cost.queries == again.cost.queries
    else:
        one, other = (victim.deployed.artifact for victim in (first, again))
        assert same(one.tensors, other.tensors)
        assert one.record["training_image_reads"] == other.record["training_image_reads"]


@pytest.mark.long
def test_errors_are_told_as_elsewhere(tiny: Tiny, tmp_path: Path) -> None:
    def raised(name: str) -> BaseException:
        with pytest.raises(Exception) as caught:
            attack(tiny, tmp_path / "cache", target(tiny, f"others.py:{name}"))
        return caught.value

    with here(True, tmp_path / "cache"), fixed_threads(1):
        error = raised("Raises")
        assert str(error) == "ZeroDivisionError: my mistake"
        assert "with a second line" in "".join(error.__notes__) and "others.py" in "".join(error.__notes__)
        assert "needs WEIGHTS, the victim grants SCORES" in str(raised("Greedy"))
        assert str(raised("Wrong")).endswith("got str")
        with pytest.raises(PluginError, match="one of its settings is 1000000000"):
            built(tiny, tmp_path / "cache", target(tiny, "others.py:Wide"))
        with pytest.raises(UsageError, match="has no class or function 'None_'"):
            load_plugin("attack", target(tiny, "others.py:None_"))
        with pytest.raises(PluginError, match="is no attack"):
            load_plugin("attack", target(tiny, "others.py:Wide"))
        with pytest.raises(UsageError, match=r"labels\.steps: input should be greater than or equal to 1"):
            made_plugin("attack", target(tiny, "others.py:Labels"), {"steps": 0})


def test_a_record_says_how_plugins_ran(tiny: Tiny, tmp_path: Path) -> None:
    class Notebook(load_plugin("attack", str(tiny.gated) + ":Gated")):  # type: ignore[misc]
        name = "notebook"

    registry.register("attack", "notebook", Notebook)
    named = [str(tiny.gated) + ":Gated", "random-search", "direct", "notebook"]
    with here(True, tmp_path):
        asked, workspace = (
            cells(tiny, attack=named, defense=["ann"]),
            Workspace(Settings(str(tmp_path)), lambda *_: None),
        )
        ran = {one.name: one.ran for one in Participants.from_cells(asked, workspace).plugins}
        assert how_it_runs("metric", "mine.py:Mine").startswith("not isolated: metrics")
    assert ran == {
        "ann": "built-in",
        "direct": "built-in",
        "gated": "isolated",
        "random-search": "isolated",
        "notebook": "not isolated: its class is in no file",
    }
    with here(False):
        assert how_it_runs("attack", named[0]) == "not isolated: --no-isolate"


def test_a_plugin_is_not_imported_where_the_data_is(tiny: Tiny, tmp_path: Path) -> None:
    plugin = tmp_path / "marks.py"
    plugin.write_text(f"import sys\nsys.marked_by_a_test = True\n{OTHERS}")
    with here(True, tmp_path / "cache"):
        (cell,) = [
            cell for cell in cells(tiny, attack=[f"{plugin}:Labels"], defense=["ann"]) if hasattr(cell, "attack")
        ]
        assert cell.attack.params == {"steps": 6} and cell.attack.changed == {}
        assert load_plugin("attack", f"{plugin}:Labels").uses_public
        assert not hasattr(sys, "marked_by_a_test")
    load_plugin("attack", f"{plugin}:Labels")  # where it is not isolated, it is
    assert vars(sys).pop("marked_by_a_test")
