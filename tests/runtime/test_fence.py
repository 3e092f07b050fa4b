"""The fence around plugins: what a call leaves behind is put back, what it raises ends in its own cell."""

from __future__ import annotations

import os
import random
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from tiny_runs import OURS, Warm, cell_of, copied, forget, numbers, run_here

from leakbench.errors import NumericalError, PluginError, described, one_line
from leakbench.runtime.fence import fenced, watched


@pytest.fixture(autouse=True)
def _repaired() -> Iterator[None]:
    """A failing test must not spoil those after it."""
    with fenced("test", 0):
        yield


def state() -> dict[str, Any]:
    """All that a plugin can leave behind in its process."""
    return {
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": torch.zeros(1).device,
        "threads": torch.get_num_threads(),
        "pools": sorted(pool["num_threads"] for pool in threadpool_info()),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.get_deterministic_debug_mode()),
        "anomaly": torch.is_anomaly_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "mkldnn": torch.backends.mkldnn.enabled,
        "cudnn": [getattr(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")],
        "autocast": [(torch.is_autocast_enabled(name), torch.get_autocast_dtype(name)) for name in ("cpu", "cuda")],
        "warnings": list(warnings.filters),
        "denormals": float(torch.tensor(1e-38, device="cpu") * 0.01),
        "torch": torch.rand(3, device="cpu").tolist(),
        "numpy": np.random.rand(3).tolist(),
        "random": random.random(),
        "numpy errors": np.geterr(),
        "variables": dict(os.environ),
        "folder": Path.cwd(),
    }


LEFT: dict[str, Callable[[], object]] = {
    "grad": lambda: torch.set_grad_enabled(False),
    "dtype": lambda: torch.set_default_dtype(torch.float64),
    "device": lambda: torch.set_default_device("meta"),
    "threads": lambda: torch.set_num_threads(3),
    "pools": lambda: threadpool_limits(3),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True),
    "matmul": lambda: torch.set_float32_matmul_precision("medium"),
    "mkldnn": lambda: setattr(torch.backends.mkldnn, "enabled", False),
    "cudnn": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "autocast": lambda: torch.set_autocast_enabled("cpu", True),
    "autocast's dtype": lambda: torch.set_autocast_dtype("cpu", torch.float16),
    "warnings": lambda: warnings.simplefilter("error"),
    "denormals": lambda: torch.set_flush_denormal(True),
    "torch": lambda: torch.manual_seed(5),
    "numpy": lambda: np.random.seed(5),
    "random": lambda: random.seed(5),
    "numpy errors": lambda: np.seterr(all="raise"),
    "variables": lambda: os.environ.update(LEAKBENCH_LEFT="1", HOME="/nowhere"),
    "folder": lambda: os.chdir("/"),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_a_plugin_leaves_behind_is_put_back(name: str) -> None:
    def start() -> None:
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)

    start()
    before = state()
    start()
    with fenced("plugin", 7):
        LEFT[name]()
    after = state()
    assert after == before
    LEFT[name]()
    assert state() != before  # what is checked is changed by it


def test_draws_from_global_generators_follow_from_the_seed() -> None:
    def drawn(seed: int) -> list[float]:
        with fenced("plugin", seed):
            return [float(torch.rand(())), float(np.random.rand()), random.random()]

    assert drawn(7) == drawn(7)
    assert not set(drawn(7)) & set(drawn(8))


class _Odd(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SystemExit(0), "plugin raised SystemExit: 0"),
        (SystemExit(), "plugin raised SystemExit: None"),
        (_Odd("odd\nand long"), "plugin raised _Odd: odd"),
    ],
)
def test_what_is_no_exception_becomes_one(error: BaseException, line: str) -> None:
    with pytest.raises(PluginError) as caught, fenced("plugin", 0):
        raise error
    assert str(caught.value).rstrip(": ") == line.removesuffix("None").rstrip(": ")


@pytest.mark.parametrize("error", [NumericalError("NaN"), ValueError("mine")])
def test_exceptions_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)), fenced("plugin", 0):
        raise error


def test_ctrl_c_is_the_users_unless_nobody_delivers_it() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt), fenced("plugin", 0):
            raise KeyboardInterrupt
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with pytest.raises(PluginError, match="plugin raised KeyboardInterrupt"), fenced("plugin", 0):
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("first\nsecond", "first"),
        (
            "Error(s) in loading:\n\tMissing key(s): a. \n\tUnexpected key(s): b.",
            "Error(s) in loading: Missing key(s): a. Unexpected key(s): b.",
        ),
        ("nothing follows:", "nothing follows:"),
    ],
)
def test_a_line_that_announces_others_has_them_behind_it(text: str, line: str) -> None:
    assert one_line(RuntimeError(text)) == line


def test_an_error_without_words_is_named_all_the_same() -> None:
    class Wordless(Exception):
        def __str__(self) -> str:
            raise SystemExit

    assert one_line(Wordless()) == "(its message can't be shown)"
    assert described(Wordless()) == "Wordless: (its message can't be shown)"
    assert described(NumericalError("NaN\nhere")) == "NaN"


# --- in a run ----------------------------------------------------------------------------------------------------

CARELESS = '''
import torch

from leakbench.contracts import Access, Attack, Defense, Params
from leakbench.snn import SpikingConfig, SpikingNetwork, balance_thresholds


class Careless(Attack[Params]):
    """Leaves all that it can behind."""

    name = "careless"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        torch.set_grad_enabled(False)
        torch.backends.mkldnn.enabled = False
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(0)
        torch.set_num_threads(2)
        return torch.rand(len(targets), *victim.image_shape, dtype=torch.float32, generator=context.generator)


def converted(ann, data, context):
    network = SpikingNetwork.from_ann(ann, SpikingConfig(context.timesteps))
    balance_thresholds(network, data.sample(16, context.generator)[0], context.seed())
    return network


class Wipes(Defense[Params]):
    """Sets the private images to zero."""

    name = "wipes"

    def protect(self, ann, data, context):
        network = converted(ann, data, context)
        data._images.zero_()
        return network


class Relabels(Defense[Params]):
    """Exchanges private labels."""

    name = "relabels"

    def protect(self, ann, data, context):
        data._labels.add_(1).remainder_(3)
        raise RuntimeError("and fails on top of it")


class Writes(Defense[Params]):
    """Writes to what it was handed: copies."""

    name = "writes"

    def protect(self, ann, data, context):
        images, labels = data.sample(16, context.generator)
        images.zero_(), labels.zero_()
        for images, labels in data.batches(8, context.generator):
            images.zero_(), labels.zero_()
        return converted(ann, data, context)
'''


@pytest.fixture
def careless(tmp_path: Path) -> Path:
    file = tmp_path / "careless.py"
    file.write_text(CARELESS, encoding="utf-8")
    return file


@pytest.mark.slow
def test_a_careless_plugin_changes_no_other_cell(warm: Warm, tmp_path: Path, careless: Path) -> None:
    cache = copied(warm.cache, tmp_path / "cache")
    forget(cache, "attack", "judged", "compared", "uap")
    attacks = [f"{careless}:Careless", "direct", f"{warm.tiny.gated}:Gated"]
    record = run_here(warm.tiny.options(attack=attacks, controls=False), cache, tmp_path / "run")
    assert {cell.status for cell in record.cells} == {"ok"}
    assert [cell.attack_name for cell in record.cells if cell.defense][:2] == ["", "careless"]
    ours = {key: value for key, value in numbers(record, OURS).items() if key[3] != "careless"}
    before = {key: value for key, value in numbers(warm.record, OURS).items() if key in ours}
    assert ours == before
    assert {key[3] for key in ours} >= {"", "direct", "gated"}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ok"), [("Wipes", False), ("Relabels", False), ("Writes", True)])
def test_private_data_is_what_it_was_for_the_next_defence(
    warm: Warm, tmp_path: Path, careless: Path, name: str, ok: bool
) -> None:
    """Its own cell fails, and the cells after it, which read the same data, come out as ever."""
    cache = copied(warm.cache, tmp_path / "cache")
    forget(cache, "victim")
    options = warm.tiny.options(defense=[f"{careless}:{name}", OURS], attack=["direct"], controls=False)
    record = run_here(options, cache, tmp_path / "run")
    cell = cell_of(record, name.lower())
    assert (cell.status == "ok") == ok
    assert ok or "changed the private images or labels in place" in cell.reason
    ours = numbers(record, OURS)
    assert ours == {key: value for key, value in numbers(warm.record, OURS).items() if key in ours}
    assert cell_of(record, OURS).status == "ok"


CODE_OF_ITS_OWN = """
import torch

from leakbench.contracts import Defense, ImageClassifier, Params
from leakbench.snn import SpikingConfig, SpikingNetwork, balance_thresholds


class Blind(ImageClassifier):
    def forward(self, images):
        answers = torch.zeros(len(images), self.classes)
        answers[:, -1] = 1
        return answers


class Subclass(Defense[Params]):
    'Hands back a network with a forward of its own.'

    name = "subclass"
    spiking = False

    def protect(self, ann, data, context):
        return Blind(ann.body, ann.image_shape, ann.classes, ann.input_range, ann.arch)


class Hook(Defense[Params]):
    'Hands back a network whose logits a hook turns around.'

    name = "hook"

    def protect(self, ann, data, context):
        network = SpikingNetwork.from_ann(ann, SpikingConfig(context.timesteps))
        balance_thresholds(network, data.sample(16, context.generator)[0], context.seed())
        # not -logits alone: a network of few steps may be silent, and 0 turned around is 0
        network.register_forward_hook(lambda _module, _given, logits: 1 - logits)
        return network
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Subclass", "Hook"])
def test_no_other_network_is_measured_than_the_one_that_is_kept(warm: Warm, tmp_path: Path, name: str) -> None:
    """Weights are stored and no code: what a defence adds in code would be lost without a word."""
    file = tmp_path / "own.py"
    file.write_text(CODE_OF_ITS_OWN, encoding="utf-8")
    options = warm.tiny.options(defense=[f"{file}:{name}"], attack=["none"], controls=False, set={})
    cell = cell_of(run_here(options, warm.grown, tmp_path / "run"), name.lower())
    assert cell.status == "failed"
    assert "answers otherwise after it was stored and loaded" in cell.reason


# --- what no fence holds -----------------------------------------------------------------------------------------

DISHONEST = '''
import gc

import torch

from leakbench.contracts import Access, Attack, Defense, Params
from leakbench.data import Dataset
from leakbench.models.judges import Judge
from leakbench.snn import SpikingConfig, SpikingNetwork, balance_thresholds


class Searches(Attack[Params]):
    """Looks for the private data set among the process's objects and hands out its test images."""

    name = "searches"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        data = next(one for one in gc.get_objects() if isinstance(one, Dataset))
        own = [(data.test.labels == t).nonzero()[0, 0] for t in targets]
        return data.test.images[torch.stack(own)].float() / 255


class Asks(Attack[Params]):
    """Looks for a judge among the process's objects."""

    name = "asks"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        judge = next(one for one in gc.get_objects() if isinstance(one, Judge))
        context.finding("judge found", 1)
        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)


class Peeks(Defense[Params]):
    """Reads private images past the count, and resets it."""

    name = "peeks"

    def protect(self, ann, data, context):
        network = SpikingNetwork.from_ann(ann, SpikingConfig(context.timesteps))
        balance_thresholds(network, data._images[:16].float() / 255, context.seed())
        return network


class Forgets(Defense[Params]):
    """Reads private images and sets the count back."""

    name = "forgets"

    def protect(self, ann, data, context):
        network = SpikingNetwork.from_ann(ann, SpikingConfig(context.timesteps))
        balance_thresholds(network, data.sample(16, context.generator)[0], context.seed())
        data._seen.zero_()
        data._handed = 0
        return network
'''


@pytest.fixture
def dishonest(tmp_path: Path) -> Path:
    file = tmp_path / "dishonest.py"
    file.write_text(DISHONEST, encoding="utf-8")
    return file


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason="plugins run in the process that holds the private data and the judges")
@pytest.mark.parametrize("name", ["Searches", "Asks"])
def test_an_attack_reaches_nothing_that_it_was_not_given(
    warm: Warm, tmp_path: Path, dishonest: Path, name: str
) -> None:
    options = warm.tiny.options(attack=[f"{dishonest}:{name}"], controls=False, set={f"{OURS}.images": ["16"]})
    record = run_here(options, warm.grown, tmp_path / "run")
    assert cell_of(record, OURS, name.lower()).status == "failed"


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason="plugins run in the process that holds the private data and its count")
@pytest.mark.parametrize("name", ["Peeks", "Forgets"])
def test_a_defence_can_read_no_image_that_is_not_counted(
    warm: Warm, tmp_path: Path, dishonest: Path, name: str
) -> None:
    options = warm.tiny.options(defense=[f"{dishonest}:{name}"], attack=["none"], controls=False, set={})
    cell = cell_of(run_here(options, warm.grown, tmp_path / "run"), name.lower())
    read = next((v.value for v in cell.values if v.metric == "training_images_read"), None)
    assert cell.status == "failed" or read == 16


def test_what_a_call_leaves_changed_is_named() -> None:
    with watched() as changed:
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_grad_enabled(not torch.is_grad_enabled())
        os.environ["LEAKBENCH_TEST_LEFT"] = "1"
        torch.rand(1)  # the fence seeds generators: draws are allowed
    assert changed == ["grad mode", "number of threads", "environment (LEAKBENCH_TEST_LEFT)"]


def test_what_importing_a_library_sets_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KMP_INIT_AT_FORK", raising=False)
    with watched() as changed:
        os.environ["KMP_INIT_AT_FORK"] = "FALSE"  # as scikit-learn does
    assert changed == []


def test_what_a_call_puts_back_itself_is_not_named() -> None:
    with watched() as changed, torch.no_grad(), threadpool_limits(1):
        torch.rand(1)
    assert changed == []
