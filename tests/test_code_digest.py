"""What identifies plugins of notebooks and scripts: whatever they compute with, and nothing else."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from textwrap import dedent

import pytest

from leakbench.code_digest import code_digest

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
