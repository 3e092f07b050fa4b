"""What is found of plugins that keep their contract, and of those that break it in one point each."""

from __future__ import annotations

from pathlib import Path

import pytest

from leakbench import registry
from leakbench.bench.plugin_check import Finding, check_plugin
from leakbench.errors import UnknownName, UsageError

pytestmark = pytest.mark.slow

PLUGINS = '''
"""Plugins, most of which do one thing wrong."""

import copy
import itertools
import os

import torch
from pydantic import Field

from leakbench.contracts import Access, Attack, Defense, Params
from leakbench.errors import NotApplicable
from leakbench.metrics.reconstructions import ImageMetric
from leakbench.snn import SpikingConfig, SpikingNetwork, balance_thresholds


class Right(Defense[Params]):
    """Converts on twenty private images. And a second sentence."""

    name = "right"
    cites = "nobody"

    def protect(self, ann, data, context):
        network = SpikingNetwork.from_ann(ann, SpikingConfig(context.timesteps))
        balance_thresholds(network, data.sample(20, context.generator)[0], context.seed())
        return network


class Anytime(Right):
    """Says that its network is the same at every T, and it is."""

    name = "anytime"
    anytime = True

    def protect(self, ann, data, context):
        network = SpikingNetwork.from_ann(ann, SpikingConfig(16))
        balance_thresholds(network, data.sample(20, context.generator)[0], context.seed())
        return network


class Timely(Right):
    """Says that its network is the same at every T, and it is not."""

    name = "timely"
    anytime = True


class Plain(Anytime):
    """Says that its network is the same at every T, and hands over one that does not spike."""

    name = "plain"

    def protect(self, ann, data, context):
        return copy.deepcopy(ann)


class Short(Anytime):
    """Says that its network is the same at every T, and works at few."""

    name = "short"

    def protect(self, ann, data, context):
        if context.timesteps > 20:
            raise ValueError("only up to 20")
        return super().protect(ann, data, context)


class Uncalibrated(Right):
    """Forgets the thresholds."""

    name = "uncalibrated"

    def protect(self, ann, data, context):
        return SpikingNetwork.from_ann(ann, SpikingConfig(context.timesteps))


class Stubborn(Right):
    """Has a T of its own and does not say so."""

    name = "stubborn"

    def protect(self, ann, data, context):
        network = SpikingNetwork.from_ann(ann, SpikingConfig(5))
        balance_thresholds(network, data.sample(20, context.generator)[0], context.seed())
        return network


class Silent(Right):
    name = "silent"
    cites = ""


class InPlace(Right):
    """Writes to the ANN."""

    name = "in-place"

    def protect(self, ann, data, context):
        next(ann.parameters()).mul_(0.5)
        return super().protect(ann, data, context)


class Raises(Right):
    """Has a mistake in it."""

    name = "raises"

    def protect(self, ann, data, context):
        return 1 / 0  # here


CALLS = itertools.count()


class Counting(Right):
    """Does something else with every call."""

    name = "counting"
    spiking = False

    def protect(self, ann, data, context):
        network = copy.deepcopy(ann)
        next(network.parameters()).data[0] += 1e-3 * next(CALLS)
        return network


class Leftovers(Right):
    """Leaves the process otherwise than it was."""

    name = "leftovers"

    def protect(self, ann, data, context):
        torch.set_grad_enabled(False)
        os.environ["LEAKBENCH_TEST_LEFT"] = "1"
        return super().protect(ann, data, context)


class Hooked(Right):
    """Protects by code that no store keeps."""

    name = "hooked"
    spiking = False

    def protect(self, ann, data, context):
        network = copy.deepcopy(ann)
        network.register_forward_hook(lambda _module, _images, logits: -logits)
        return network


class Elsewhere(Right):
    """For other networks."""

    name = "elsewhere"

    def protect(self, ann, data, context):
        raise NotApplicable("it needs batch norm")


class Bounded(Params):
    few: int = Field(3, le=5)


class BadPreset(Defense[Bounded]):
    """With a preset beyond its bounds."""

    name = "bad-preset"
    cites = "nobody"
    presets = {"paper": {"few": 6}}

    def protect(self, ann, data, context):
        raise AssertionError("never called")


class NoPreset(BadPreset):
    """With a preset that is none."""

    name = "no-preset"
    presets = {"quik": {"few": 2}}


class Steps(Params):
    steps: int = Field(100, ge=1, description="how many")


class Labels(Attack[Steps]):
    """Hands over the image of a few that the victim classifies as the target."""

    name = "labels"
    cites = "nobody"
    needs = Access.LABELS
    effort = "steps"

    def run(self, victim, targets, context):
        images = torch.rand(len(targets), *victim.image_shape, generator=context.generator)
        for _ in context.steps(self.params.steps, "asking"):
            victim.labels(images)
        return images


class Greedy(Labels):
    """Says labels, and takes the network."""

    name = "greedy"

    def run(self, victim, targets, context):
        victim.network
        return super().run(victim, targets, context)


class Modest(Labels):
    """Says weights, and asks for labels."""

    name = "modest"
    needs = Access.WEIGHTS


class Bright(Labels):
    """Images beyond white."""

    name = "bright"

    def run(self, victim, targets, context):
        return 2 + super().run(victim, targets, context)


class Meddler(Modest):
    """Changes the network that it is handed."""

    name = "meddler"

    def run(self, victim, targets, context):
        next(victim.network.parameters()).mul_(0.5)
        return super().run(victim, targets, context)


class Misnamed(Labels):
    """Names an effort that it does not have."""

    name = "misnamed"
    effort = "iterations"


class Confidence(ImageMetric[Params]):
    """Probability of the target class."""

    name = "confidence"
    title = "Confidence"
    unit = "share"
    leaks = "more"
    cites = "nobody"

    def scores(self, drawn):
        return drawn.predictions.gather(1, drawn.targets[:, None]).squeeze(1)


class Backwards(Confidence):
    """Says that less of it is more leakage."""

    name = "backwards"
    leaks = "less"


class Nan(Confidence):
    """No number."""

    name = "nan"

    def scores(self, drawn):
        return super().scores(drawn) * float("nan")
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugins") / "plugins.py"
    path.write_text(PLUGINS, encoding="utf-8")
    return path


def findings(kind: registry.Kind, file: Path, name: str, **settings: str) -> dict[str, Finding]:
    """By subject, the worse of two."""
    given = {key.replace("__", "."): [value] for key, value in settings.items()}
    found = list(check_plugin(kind, f"{file}:{name}", given))
    assert not any("\n" in finding.text for finding in found)
    return {finding.subject: finding for finding in sorted(found, key=lambda one: one.status)}


def amiss(found: dict[str, Finding]) -> dict[str, str]:
    """Subject -> status of all that is not ok."""
    return {subject: finding.status for subject, finding in found.items() if finding.status != "ok"}


def test_a_defence_that_keeps_its_contract(file: Path) -> None:
    found = findings("defense", file, "Right")
    assert amiss(found) == {}
    assert found["summary"].text == "Converts on twenty private images."
    assert found["private images"].text.startswith("20 of 1437")
    assert "T = 16" in found["returns"].text
    assert "another seed gives another outcome" in found["deterministic"].text


def test_a_network_for_every_t_is_built_at_two(file: Path) -> None:
    found = findings("defense", file, "Anytime")
    assert amiss(found) == {}
    assert found["any T"].text == "at T = 32 it makes the same network"
    assert amiss(findings("defense", file, "Plain")) == {}


@pytest.mark.parametrize("name", ["QueryMonitor", "SecretQueryMonitor"])
def test_a_network_that_remembers_what_it_was_asked(name: str) -> None:
    found = findings("defense", Path(__file__).parent.parent / "false_security" / "memory.py", name)
    assert found["runs"].status == "wrong" and "must be answered alike" in found["runs"].text


def test_what_it_says_of_itself_is_missed(file: Path) -> None:
    assert amiss(findings("defense", file, "Silent")) == {"summary": "wrong", "citation": "wrong"}


@pytest.mark.parametrize(
    ("name", "subject", "text"),
    [
        ("InPlace", "runs", "changed the ANN in place"),
        ("Raises", "runs", "ZeroDivisionError: division by zero (plugins.py, line {line})"),
        ("Counting", "deterministic", "two runs with one seed differ"),
        ("Leftovers", "global state", "not put back: grad mode, environment (LEAKBENCH_TEST_LEFT)"),
        ("Hooked", "runs", "answers otherwise after it was stored and loaded"),
        ("Elsewhere", "runs", "not applicable to vgg4 on the digits: it needs batch norm"),
        ("BadPreset", "parameters", "bad-preset.few"),
        ("NoPreset", "parameters", "no-preset: its presets name 'quik': a preset is one of quick, standard"),
        ("Timely", "any T", "anytime = True, and at T = 32 it makes another network (body"),
        ("Short", "any T", "anytime = True, and at T = 32 it raises: ValueError: only up to 20"),
        ("Uncalibrated", "runs", "uncalibrated: the neurons 'body.1' have no threshold yet: set it"),
        ("Stubborn", "runs", "stubborn: its network has T = 5 where the run asks for 16: take context.timesteps"),
    ],
)
def test_what_a_defence_does_wrong(file: Path, name: str, subject: str, text: str) -> None:
    found = findings("defense", file, name)
    assert amiss(found) == {subject: "wrong"}
    line = next(n for n, one in enumerate(PLUGINS.splitlines(), 1) if one.endswith("# here"))
    assert text.format(line=line) in found[subject].text


def test_an_attack_is_tried_with_little_effort_and_its_cost_is_shown(file: Path) -> None:
    found = findings("attack", file, "Labels")
    assert amiss(found) == {}
    assert "steps=10" in found["runs"].text
    assert found["access"].text == "LABELS; it asked for labels"
    assert found["cost"].text.endswith("10 gradient steps, 100 queries")
    assert findings("attack", file, "Labels", labels__steps="3")["cost"].text.endswith("3 gradient steps, 30 queries")


@pytest.mark.parametrize(
    ("name", "subject", "status", "text"),
    [
        ("Greedy", "access", "wrong", "needs LABELS, and it asks for WEIGHTS"),
        ("Modest", "access", "note", "needs LABELS, and says WEIGHTS"),
        ("Bright", "runs", "wrong", "must return images in [0, 1]"),
        ("Meddler", "inputs", "note", "changed the network"),
        ("Misnamed", "parameters", "wrong", "effort names 'iterations'"),
    ],
)
def test_what_an_attack_does_wrong(file: Path, name: str, subject: str, status: str, text: str) -> None:
    found = findings("attack", file, name)
    assert amiss(found) == {subject: status}
    assert text in found[subject].text


def test_an_attack_that_others_are_run_beside_is_tried_alone() -> None:
    assert "parameters" not in amiss({one.subject: one for one in check_plugin("attack", "auto", {})})


def test_a_metric_that_keeps_its_contract(file: Path) -> None:
    found = findings("metric", file, "Confidence")
    assert amiss(found) == {}
    assert "10 of single classes" in found["values"].text


def test_what_a_metric_does_wrong(file: Path) -> None:
    assert amiss(findings("metric", file, "Backwards")) == {"direction": "note"}
    found = findings("metric", file, "Nan")
    assert amiss(found) == {"values": "wrong"}
    assert "40 of 40 scores are NaN" in found["values"].text


def test_attacks_on_members_are_tried_on_candidates() -> None:
    found = {finding.subject: finding for finding in check_plugin("attack", "loss_threshold")}
    assert amiss(found) == {}
    assert found["returns"].text.startswith("scores [356]")


def test_attacks_that_use_references_are_not_tried() -> None:
    found = {finding.subject: finding for finding in check_plugin("attack", "lira")}
    assert amiss(found) == {"runs": "note"}
    assert "reference networks" in found["runs"].text


def test_wrong_input_is_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="can be checked"):
        list(check_plugin("model", "vgg4"))
    with pytest.raises(UsageError, match="check one of yours"):
        list(check_plugin("metric", "kes"))
    with pytest.raises(UsageError, match="one value"):
        list(check_plugin("attack", f"{file}:Labels", {"labels.steps": ["3", "4"]}))
    with pytest.raises(UnknownName, match="vgg44"):
        list(check_plugin("attack", f"{file}:Labels", model="vgg44"))
