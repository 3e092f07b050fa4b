"""What the tests of several folders share: the digits, a small network trained on them, its conversion."""

from __future__ import annotations

import os
import sys

# Read by OpenMP when torch is imported, so it stands before that import: threads that wait spin otherwise, and beside
# any other busy process that slows training several times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest
import threadpoolctl
import torch
from hypothesis import settings

from leakbench import registry
from leakbench.contracts import ImageClassifier, TrainingData
from leakbench.data import Dataset, default_data_folder, load_dataset
from leakbench.models.storage import build_ann
from leakbench.models.training import UNCHANGED, Recipe, train
from leakbench.snn import SpikingConfig, SpikingNetwork, balance_thresholds

# a test's time says how busy the machine is
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the cores are divided among the workers


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--ends", action="store_true", help="of each test the first and the last case only; all in files test_every_*"
    )


@pytest.hookimpl(trylast=True)  # what -m leaves out is no case
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files with the most slow tests first: workers take whole files, and then end together."""
    if config.getoption("ends"):
        cases: dict[str, list[pytest.Item]] = {}
        for item in items:
            every = item.path.name.startswith("test_every_")  # a case is a plugin
            cases.setdefault(item.nodeid if every else item.nodeid.partition("[")[0], []).append(item)
        chosen = {id(item) for of_one in cases.values() for item in (of_one[0], of_one[-1])}
        config.hook.pytest_deselected(items=[item for item in items if id(item) not in chosen])
        items[:] = [item for item in items if id(item) in chosen]
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session", autouse=True)
def shortcuts() -> Iterator[None]:
    """What takes milliseconds in most tests and no test can see.

    threadpoolctl looks through all that the process has loaded whenever threads are limited: libraries come with
    modules, so it looks again only after an import. That written files are on the disk shows after a crash of the
    machine alone; a handle that is closed is an error here, too.
    """
    pools = cache(lambda _modules, look=threadpoolctl.ThreadpoolController: look())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threadpoolctl, "ThreadpoolController", lambda: pools(len(sys.modules)))
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(autouse=True)
def the_process() -> Iterator[None]:
    """No test sees what the tests before it left in the process.

    Networks built without a generator of their own begin with the same weights in any order of the tests; commands set
    their process up, this one too, so that the smallest numbers are 0: not for the tests after them; and what a test
    registers is gone after it.
    """
    torch.default_generator.manual_seed(2022)  # torch.manual_seed() takes milliseconds: it asks for every accelerator
    torch.set_flush_denormal(False)
    registered = {kind: dict(plugins) for kind, plugins in registry._registered.items()}
    yield
    torch.set_flush_denormal(False)
    registry._registered.clear()
    registry._registered.update(registered)


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh CPU generator, the same in every test."""
    return torch.Generator().manual_seed(2022)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset("digits", default_data_folder())


@pytest.fixture(scope="session")
def digits_ann(digits: Dataset) -> ImageClassifier:
    """vgg4 trained for a few epochs, about 95 % right on the test digits. Frozen: copy it before changing it."""
    generator = torch.Generator().manual_seed(1)
    ann = build_ann("vgg4", digits.image_shape, 10, digits.input_range, generator)
    recipe = Recipe(steps=225, batch_size=32, lr=0.1, schedule="one-cycle", augmentation=UNCHANGED)
    train(ann, digits.train.images, digits.train.labels, recipe, generator, torch.device("cpu"), "training")
    ann.zero_grad()
    return ann.requires_grad_(False)


@pytest.fixture(scope="session")
def digits_snn(digits: Dataset, digits_ann: ImageClassifier) -> SpikingNetwork:
    """The digits network converted on training images, Poisson code, T = 16. Frozen: copy it before changing it."""
    network = SpikingNetwork.from_ann(digits_ann, SpikingConfig(16))
    balance_thresholds(network, digits.train.images[:100].float() / 255, seed=3)
    return network.requires_grad_(False)


@pytest.fixture
def digits_data(digits: Dataset) -> TrainingData:
    """A fresh handle on the training digits, nothing read yet."""
    return TrainingData(digits.train.images, digits.train.labels)
