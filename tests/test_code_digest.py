"""What identifies plugins of notebooks and scripts: whatever they compute with, and nothing else."""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from leakbench import registry
from leakbench.code_digest import code_digest
from leakbench.errors import PluginError

MINE = """
    class Mine(Base):
        name = "mine"

        def run(self, x, level=LEVEL):
            return helper(x) + level + self.amount + self.bias() + self.levels[0]

        @property
        def amount(self):
            return 1

        @classmethod
        def bias(cls):
            return 2

        levels = [3]
"""
BEFORE = """
    import torch

    LEVEL = 0.5

    def helper(x):
        return other(x)

    def other(x):
        return x * FACTOR["now"]

    FACTOR = {"now": 1.0}

    class Base:
        def finish(self, x):
            return torch.relu(x)
"""


@pytest.fixture
def notebook() -> Iterator[dict[str, object]]:
    """The names of a module without a file, as ``__main__`` is in a notebook."""
    module = types.ModuleType("notebook_of_a_test")
    sys.modules[module.__name__] = module
    yield module.__dict__
    del sys.modules[module.__name__]


def digest(notebook: dict[str, object], before: str = BEFORE, mine: str = MINE, file: str = "kernel_1/cell") -> str:
    for text in (before, mine):
        exec(compile(dedent(text), file, "exec"), notebook)
    return code_digest(notebook["Mine"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LEVEL = 0.5", "LEVEL = 0.6"),
        ("return other(x)", "return other(x) + 0"),
        ('{"now": 1.0}', '{"now": 2.0}'),
        ("torch.relu", "torch.tanh"),
        ("return 1\n", "return 4\n"),
        ("return 2\n", "return 4\n"),
        ("levels = [3]", "levels = [4]"),
        ('name = "mine"', 'name = "other"'),
        ("helper(x) + level", "level + helper(x)"),
    ],
)
def test_whatever_it_computes_with_makes_another(notebook: dict[str, object], old: str, new: str) -> None:
    assert old in BEFORE + MINE
    assert digest(notebook) != digest(notebook, BEFORE.replace(old, new), MINE.replace(old, new))


def test_a_comment_another_kernel_and_what_it_does_not_use_make_none(notebook: dict[str, object]) -> None:
    first = digest(notebook)
    assert first == digest(notebook, file="kernel_2/cell")
    assert first == digest(notebook, f"    # a comment{BEFORE}\n    UNUSED = 7\n", f"\n\n{MINE}")


def test_it_says_the_same_however_often_it_is_asked(notebook: dict[str, object]) -> None:
    digest(notebook)
    held = [notebook["Mine"]] * 3  # marshal, for one, counts references
    assert len({code_digest(one) for one in held}) == 1


def test_what_a_function_was_made_with_makes_another() -> None:
    def make(amount: float) -> object:
        def build(x: float) -> float:
            return x + amount

        return build

    assert code_digest(make(0.0)) != code_digest(make(3.0))
    assert code_digest(make(3.0)) == code_digest(make(3.0))


def test_arrays_and_networks_count_by_their_values() -> None:
    import numpy as np
    import torch

    def made(value: object) -> object:
        return lambda: value

    layer, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    pairs = [(np.zeros(3), np.ones(3)), (torch.zeros(3), torch.ones(3)), (layer, other), ({1, 2}, {1, 3})]
    for one, two in pairs:
        assert code_digest(made(one)) != code_digest(made(two))
        assert code_digest(made(one)) == code_digest(made(one))


def test_what_refers_to_itself_ends() -> None:
    around: list[object] = []
    around.append(around)

    def build() -> object:
        return around, build

    assert code_digest(build) == code_digest(build)


def test_of_a_network_tensors_attributes_and_parts_count() -> None:
    import torch
    from torch import nn

    class Neurons(nn.Module):
        def __init__(self, threshold: float, rest: float) -> None:
            super().__init__()
            self.threshold = threshold
            self.register_buffer("rest", torch.tensor(rest), persistent=False)

        def detach(self) -> None:
            """As SpikingJelly's have one."""

    def network(threshold: float = 0.5, rest: float = 0.0, weight: float = 1.0) -> nn.Module:
        layer = nn.Linear(2, 2)
        nn.init.constant_(layer.weight, weight)
        nn.init.zeros_(layer.bias)
        return nn.Sequential(layer.to(torch.bfloat16), Neurons(threshold, rest))

    hooked = network()
    hooked[0].register_forward_pre_hook(lambda *_: None)
    every = [network(), network(threshold=0.7), network(rest=0.1), network(weight=2.0), hooked]
    assert len({code_digest(one) for one in every}) == len(every)
    assert code_digest(network()) == code_digest(network())
    assert code_digest(network().eval()) == code_digest(network())


class Slotted:
    """Of a test module, which is no package's."""

    __slots__ = ("amount",)

    def __init__(self, amount: float) -> None:
        self.amount = amount

    def fit(self) -> float:
        return self.amount


def test_values_of_packages_and_methods_count() -> None:
    import argparse
    import re

    import numpy as np
    import torch

    def made(value: object) -> object:
        return lambda: value

    pairs: list[tuple[object, object]] = [
        (argparse.Namespace(threshold=1.0), argparse.Namespace(threshold=2.0)), (Path("a.pt"), Path("b.pt")),
        (range(3), range(4)), (torch.float32, torch.float64), (re.compile("a"), re.compile("b")), (np.tanh, np.exp),
        (Slotted(1.0), Slotted(2.0)), (Slotted(1.0).fit, Slotted(2.0).fit), ({Slotted}, {Path}),
        (torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8),
         torch.quantize_per_tensor(2 * torch.ones(3), 2.0, 0, torch.qint8)),
        (torch.Tensor.relu, torch.Tensor.sigmoid), (torch.eye(3).to_sparse(), 2 * torch.eye(3).to_sparse()),
    ]  # fmt: skip
    for one, two in pairs:
        assert code_digest(made(one)) != code_digest(made(two)), one
        assert code_digest(made(one)) == code_digest(made(one)), one


def test_what_can_not_be_described_counts_by_its_type_and_breaks_nothing(tmp_path: Path) -> None:
    import threading

    import torch

    class Config:
        def __init__(self) -> None:
            self.held: dict[str, int] = {}

        def __getattr__(self, name: str) -> int:
            return self.__dict__["held"][name]

    class Silent:
        def __repr__(self) -> str:
            raise RuntimeError

    with (tmp_path / "log").open("w") as file:
        values = [
            threading.Lock(),
            file,
            torch.Generator(),
            torch.empty(3, device="meta"),
            Config(),
            Silent(),
            os.environ,
        ]
        assert len(code_digest(lambda: values)) == 64


def test_a_tensor_that_can_not_be_read_is_refused_and_not_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def unreadable(_tensor: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    monkeypatch.setattr(torch.Tensor, "to_dense", unreadable)
    values = torch.eye(3).to_sparse()
    with pytest.raises(PluginError, match=r"a tensor of torch\.float32 torch\.sparse_coo can't be read"):
        code_digest(lambda: values)


def test_more_than_can_be_followed_is_one_line() -> None:
    chain: list[object] = []
    for _ in range(5000):
        chain = [chain]
    with pytest.raises(PluginError, match=r"refers to more than can be followed: put it into a file"):
        code_digest(lambda: chain)


def test_a_helper_s_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "helpers_of_a_test.py").write_text("def f(x):\n    return x\n")
    helpers = importlib.import_module("helpers_of_a_test")
    before = code_digest(lambda x: helpers.f(x))
    (tmp_path / "helpers_of_a_test.py").write_text("def f(x):\n    return 2 * x\n")
    with pytest.raises(PluginError, match="'helpers_of_a_test' was edited since it was imported: start Python anew"):
        code_digest(lambda x: helpers.f(x))
    importlib.reload(helpers)
    assert code_digest(lambda x: helpers.f(x)) != before


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_of_a_compiled_network_weights_and_code_count(tmp_path: Path) -> None:
    import torch
    from torch import nn

    class Scaled(nn.Module):
        def __init__(self, weight: float) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(weight), requires_grad=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight * x

    class Around(nn.Module):
        def __init__(self, weight: float) -> None:
            super().__init__()
            torch.jit.save(torch.jit.trace(Scaled(weight), torch.ones(2)), str(tmp_path / "w.pt"))  # type: ignore[no-untyped-call]
            self.part = torch.jit.load(str(tmp_path / "w.pt"))  # type: ignore[no-untyped-call]

    assert code_digest(Around(1.0)) != code_digest(Around(2.0))
    assert code_digest(Around(1.0)) == code_digest(Around(1.0))


def test_a_run_s_own_doing_makes_no_other_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the next run is planned."""
    calls: list[object] = []

    def build(image_shape: object, classes: object, generator: object) -> None:
        calls.append((image_shape, classes, generator))

    monkeypatch.setitem(registry._registered, "model", {"mine": build})
    before = registry.source("model", "mine").digest
    build(1, 2, 3)
    assert registry.source("model", "mine").digest == before
    assert registry.at_hand("model", "mine", before) is registry.at_hand("model", "mine", "another") is build
    registry.look_again()
    assert registry.source("model", "mine").digest != before
