"""Modules that are asked as they are: what they are handed, what is made of their answers, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leakbench import registry
from leakbench.attacks.inversion import Inversion
from leakbench.attacks.pruned import Pruned
from leakbench.attacks.reconversion import Reconversion
from leakbench.attacks.surrogate_zoo import SurrogateZoo
from leakbench.contracts import Access, AttackContext, ImageClassifier, InputRange, ModuleNetwork, Victim
from leakbench.errors import LeakBenchError, NotApplicable, PluginError, UsageError
from leakbench.models import Architecture
from leakbench.models.asked import Asked, Asking
from leakbench.models.storage import build_ann, load_network, save_network

SHAPE = (1, 8, 8)
FILE = '''
import torch
from torch import nn

class Counting(nn.Module):
    """Fires when what came in so far reaches 1; its state is an attribute."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 3)
        with torch.no_grad():
            self.layer.weight.copy_(torch.linspace(-1, 1, 192).view(3, 64))
        self.v = None

    def forward(self, x):
        now = self.layer(x.flatten(1))
        self.v = now if self.v is None else self.v + now
        spikes = (self.v >= 1).to(x.dtype) + (now - now.detach())
        self.v = self.v - spikes.detach()
        return spikes

class Whole(Counting):
    def forward(self, x):
        return torch.stack([super(Whole, self).forward(one) for one in x])

def step(): return Counting()
def whole(): return Whole()
def states():
    class Both(Counting):
        def forward(self, x):
            return super().forward(x), self.v
    return Both()
def images(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
def number(): return 3
def raises(): raise RuntimeError("no weights here\\nand more")
def broken():
    module = step()
    module.layer.bias.data[1] = torch.nan
    return module
def words():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1)
        def forward(self, x):
            return "a cat"
    return Words()
def wide(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
def blind():
    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 3)
        def forward(self, x):
            return self.layer((x.flatten(1) > 0.5).float()).detach()
    return Blind()
'''


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., ModuleNetwork]:
    path = tmp_path / "folder of mine" / "mine.py"
    path.parent.mkdir()
    path.write_text(FILE)

    def make(function: str, range: tuple[float, float] = (0.0, 1.0), **said: Any) -> ModuleNetwork:
        name = Asking(range=range, **said).model_name(f"{path}:{function}")
        network = build_ann(name, SHAPE, 3, InputRange(*range))
        assert isinstance(network, ModuleNetwork)
        return network

    return make


def pictures(count: int = 5) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))


# --- what it is asked ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["sum", "mean", "last"])
def test_steps_are_asked_one_by_one_and_read_out(made: Callable[..., ModuleNetwork], over: str) -> None:
    network = made("step", forward="step", timesteps=6, encoder="direct", over=over, scale=2.0)
    x, v, outs = pictures(), torch.zeros(5, 3), []
    weight, bias = network.body.module.layer.weight, network.body.module.layer.bias  # type: ignore[union-attr]
    for _ in range(6):
        v = v + x.flatten(1) @ weight.T + bias  # type: ignore[operator, union-attr]
        outs.append((v >= 1).float())
        v = v - outs[-1]
    steps = torch.stack(outs)
    wanted = {"sum": steps.sum(0), "mean": steps.mean(0), "last": steps[-1]}[over]
    assert torch.equal(network(x), 2 * wanted)


def test_a_module_with_a_loop_answers_as_one_of_steps(made: Callable[..., ModuleNetwork]) -> None:
    one, whole, both = (
        made(function, forward=forward, timesteps=7)
        for function, forward in (("step", "step"), ("whole", "spikes"), ("states", "step"))
    )
    x = pictures()
    assert torch.equal(one(x, seed=3), whole(x, seed=3)) and torch.equal(one(x, seed=3), both(x, seed=3))
    assert not torch.equal(one(x, seed=3), one(x, seed=4))


def test_images_enter_as_its_settings_say(made: Callable[..., ModuleNetwork]) -> None:
    network = made("images", range=(-1.0, 1.0), forward="images", mean=(0.5,), std=(2.0,))
    x = pictures()
    wanted = network.body.module((2 * x - 1 - 0.5) / 2)  # type: ignore[operator, union-attr]
    assert torch.equal(network(x), wanted)


def test_no_state_outlasts_a_call_and_noise_is_drawn_anew(made: Callable[..., ModuleNetwork]) -> None:
    network, x = made("step", forward="step", timesteps=5), pictures()
    network.reseed(0)
    first, second = network(x), network(x)
    network.reseed(0)
    assert torch.equal(network(x), first) and not torch.equal(first, second)
    assert network.body.module.v is None  # type: ignore[union-attr]
    before = torch.get_rng_state()
    network(x)
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_are_the_modules_own(made: Callable[..., ModuleNetwork]) -> None:
    network, x = made("step", forward="step", timesteps=4, encoder="direct"), pictures().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).sum(), x)
    weight = network.body.module.layer.weight.sum(0)  # type: ignore[operator, union-attr]
    assert torch.allclose(gradient, 4 * weight.view(1, *SHAPE).expand_as(gradient))
    with pytest.raises(NotApplicable, match="no gradient passes through the module"):
        made("blind", forward="images")(x)
    made("blind", forward="images")(x.detach())


# --- how it is kept --------------------------------------------------------------------------------------------------


def test_it_goes_through_the_store_without_its_folder(made: Callable[..., ModuleNetwork]) -> None:
    network = made("step", forward="step", timesteps=4)
    assert isinstance(network.body, Asked)
    with torch.no_grad():
        network.body.module.layer.weight.mul_(3)  # type: ignore[operator, union-attr]
    tensors, record = save_network(network)
    assert "folder" not in record["arch"] and Architecture.parse(record["arch"]).label == "mine.py:step"
    again = load_network(tensors, record, torch.device("cpu"))
    assert isinstance(again, ModuleNetwork) and torch.equal(again(pictures(), seed=1), network(pictures(), seed=1))
    name, digest = Architecture.parse(record["arch"]).model, Architecture.parse(record["arch"]).code
    with pytest.raises(PluginError, match="was edited since"):
        registry.at_hand("model", name, "0" * 64)
    assert registry.whereabouts("model", name, digest)[0].endswith("folder of mine/mine.py:step")


def test_another_network_is_no_module() -> None:
    assert not isinstance(build_ann("vgg4", SHAPE, 3, InputRange(0, 1)), ModuleNetwork)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("number", "it must return a torch.nn.Module, and returned int"),
        ("raises", "RuntimeError: no weights here"),
        ("broken", r"its weights 'layer\.bias' hold NaN or infinity"),
        ("words", "it must return a tensor, or one followed by states, and returns a str"),
        ("wide", r"must give logits \[2, 3\], and give \[2, 7\]"),
    ],
)
def test_what_is_no_classifier_is_refused(made: Callable[..., ModuleNetwork], function: str, problem: str) -> None:
    with pytest.raises(PluginError, match=problem) as caught:
        made(function, forward="images")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "said", ["", "{}", '{"forward": "images", "more": 1}', '{"forward": "step", "timesteps": 0}', "["]
)
def test_names_that_say_nothing_are_refused(tmp_path: Path, said: str) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    with pytest.raises(LeakBenchError) as caught:
        registry.load("model", f"module: {said} of {tmp_path}/mine.py:step")
    assert str(caught.value).isprintable()


def test_a_name_is_read_as_it_is_written() -> None:
    asking = Asking(forward="spikes", timesteps=3, mean=(0.5, 0.25, 0.1))
    assert Asking.parse(asking.model_name("/a of b/c.py:d")) == asking
    with pytest.raises(UsageError):
        Asking.parse("module: of c.py:d")


# --- attacks ---------------------------------------------------------------------------------------------------------


def context() -> AttackContext:
    return AttackContext(torch.Generator().manual_seed(0), torch.device("cpu"))


def test_attacks_follow_its_gradients_and_none_looks_inside(made: Callable[..., ModuleNetwork]) -> None:
    network = made("step", forward="step", timesteps=4).requires_grad_(False)
    victim, targets = Victim(network, Access.WEIGHTS), torch.arange(3)
    images = Inversion(iterations=5, restarts=1)(victim, targets, context()).images
    assert images.shape == (3, *SHAPE)
    for attack in (Reconversion(iterations=2), SurrogateZoo(iterations=2, trial=1), Pruned()):
        given = context()
        given.public = None if not attack.uses_public else _public()
        with pytest.raises(NotApplicable, match="is a module whose layers can't be read"):
            attack(victim, targets, given)


def _public() -> Any:
    from leakbench.contracts import PublicImages

    return PublicImages(torch.zeros(4, *SHAPE, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))


def test_the_relu_network_of_an_ann_is_itself() -> None:
    ann = ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), SHAPE, 3)
    images = Reconversion(iterations=2)(Victim(ann, Access.WEIGHTS), torch.arange(3), context()).images
    assert images.shape == (3, *SHAPE)
