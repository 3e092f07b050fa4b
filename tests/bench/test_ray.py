"""Runs on Ray, on this machine: the same numbers, workers that die, two runs on one store, an interrupt."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from tiny_runs import CELLS, OURS, Quiet, Warm, copied, forget, numbers, run_here, start, wait_for

import leakbench
from leakbench.bench import backends
from leakbench.bench.backends import Backend, backend_named
from leakbench.bench.grid import make_config
from leakbench.bench.run_folder import records_in
from leakbench.bench.runner import run_grid
from leakbench.errors import LeakBenchError
from leakbench.records import RunRecord
from leakbench.runtime.isolation.confinement import what_is_lacking
from leakbench.runtime.workspace import Settings
from leakbench.session.run import isolated

backends._ask_for_a_token()  # as a command does, before Ray is imported: else Ray keeps a token in the user's home
ray = pytest.importorskip("ray")
from leakbench.bench import ray_cluster  # noqa: E402 - not without Ray
from leakbench.bench.ray_cluster import gpus_each  # noqa: E402

pytestmark = pytest.mark.slow

KILLED = '''
"""Attacks that kill the process they run in, as where memory runs out."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import torch

from leakbench.contracts import Access, Attack, Params


class Once(Attack[Params]):
    """Random images, from the third call on."""

    name = "once"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        for mark in (Path(__file__).with_name("first"), Path(__file__).with_name("second")):
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)


class Always(Once):
    """Never comes back."""

    name = "always"

    def run(self, victim, targets, context):
        os.kill(os.getpid(), signal.SIGKILL)


class Breaking(Once):
    """Leaves its process with a device that answers no more, as an index out of range on CUDA does."""

    name = "breaking"

    def run(self, victim, targets, context):
        from leakbench.bench import executors

        executors.device_answers = lambda device: False
        with Path(__file__).with_name("processes").open("a") as file:
            file.write(f"{os.getpid()}\\n")
        raise RuntimeError("CUDA error: device-side assert triggered")
'''
MADE_AGAIN = ("victim", "utility", "attack")
"""stages whose artifacts a test takes out of the store"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Backend]:
    """A cluster on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with backend_named("ray", None, "cpu") as backend:
            yield backend


@pytest.fixture
def address(cluster: Backend) -> str:
    assert cluster.device == "cpu"
    return str(ray.get_runtime_context().gcs_address)


def run_on(backend: Backend, options: dict[str, Any], cache: Path, out: Path, jobs: int | None = 2) -> RunRecord:
    settings = Settings(cache=str(cache), device=backend.device)
    config, reporter = make_config(options), Quiet()
    return run_grid(config, settings, out, jobs, "leakbench run", reporter, executor=backend.executor)


@pytest.fixture
def cache(warm: Warm, tmp_path: Path) -> Path:
    """A store in which evaluation models are, and no defence, no attack."""
    cache = copied(warm.cache, tmp_path / "cache")
    forget(cache, *MADE_AGAIN)
    return cache


def test_in_this_process_on_this_machine_and_on_ray_all_values_are_the_same(
    warm: Warm, cluster: Backend, cache: Path, tmp_path: Path
) -> None:
    local = run_here(warm.tiny.options(), copied(cache, tmp_path / "other"), tmp_path / "local", jobs=2)
    record = run_on(cluster, warm.tiny.options(), cache, tmp_path / "ray")
    assert record.complete and len(record.cells) == CELLS
    assert numbers(record) == numbers(local) == numbers(warm.record)
    assert sum(one.artifacts for one in record.environments) == sum(one.artifacts for one in local.environments)
    assert not list((cache / "locks").glob("*.part"))


def test_a_worker_that_is_killed_is_replaced_and_no_number_changes(
    warm: Warm, cluster: Backend, cache: Path, tmp_path: Path
) -> None:
    file = tmp_path / "plugins" / "killed.py"
    file.parent.mkdir()
    file.write_text(KILLED, encoding="utf-8")
    options = warm.tiny.options(attack=["direct", f"{file}:Once"])
    record = run_on(cluster, options, cache, tmp_path / "ray")
    assert {path.name for path in file.parent.iterdir()} >= {"first", "second"}
    assert {cell.status for cell in record.cells} == {"ok"}
    assert numbers(record) == numbers(run_here(options, copied(warm.cache, tmp_path / "calm"), tmp_path / "here"))


def test_a_worker_whose_device_answers_no_more_gets_no_other_task(
    warm: Warm, cluster: Backend, cache: Path, tmp_path: Path
) -> None:
    file = tmp_path / "killed.py"
    file.write_text(KILLED, encoding="utf-8")
    options = warm.tiny.options(attack=["direct", f"{file}:Breaking"])
    record = run_on(cluster, options, cache, tmp_path / "ray", jobs=1)
    broken = [cell for cell in record.cells if cell.status != "ok"]
    assert {cell.attack for cell in broken} == {"breaking"} and len(broken) > 1
    processes = file.with_name("processes").read_text().split()
    assert len(set(processes)) == len(processes) == len(broken)


def test_a_cell_whose_workers_are_always_killed_fails_alone(
    warm: Warm, cluster: Backend, cache: Path, tmp_path: Path
) -> None:
    file = tmp_path / "killed.py"
    file.write_text(KILLED, encoding="utf-8")
    options = warm.tiny.options(attack=["direct", f"{file}:Always"], controls=False)
    record = run_on(cluster, options, cache, tmp_path / "ray", jobs=1)
    failed = {cell.attack: cell.reason for cell in record.cells if cell.status != "ok"}
    ended = "3 worker processes ended before its result was there (killed, out of memory, os._exit?)"
    assert failed == {"always": ended}


@pytest.mark.skipif(bool(what_is_lacking()), reason="this system can't isolate")
def test_plugins_are_isolated_as_on_one_machine(warm: Warm, cluster: Backend, cache: Path, tmp_path: Path) -> None:
    """A worker lives on where an isolated plugin kills its process."""
    file = tmp_path / "plugins" / "killed.py"
    file.parent.mkdir()
    file.write_text(KILLED, encoding="utf-8")
    (file.parent / "first").touch()
    (file.parent / "second").touch()
    config = make_config(warm.tiny.options(attack=["direct", f"{file}:Once", f"{file}:Always"], controls=False))
    with isolated(True, config, Settings(cache=str(cache), device=cluster.device), tmp_path / "run") as settings:
        record = run_grid(config, settings, tmp_path / "run", 1, "", Quiet(), executor=cluster.executor)
    assert {cell.attack_ran for cell in record.cells if cell.attack_name in ("once", "always")} == {"isolated"}
    (killed,) = [cell for cell in record.cells if cell.status != "ok"]
    assert killed.attack == "always" and "SIGKILL" in killed.reason


def test_two_runs_on_one_store_compute_no_cell_twice(warm: Warm, address: str, cache: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    there = ["--executor", "ray", "--address", address, "--device", "cpu", "--jobs", "1", "-q"]
    drivers = [
        start([*warm.tiny.arguments(tmp_path / name), *there], cache, LEAKBENCH_TEST_CALLS=str(calls))
        for name in ("one", "two")
    ]
    said = [driver.communicate() for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    records = [RunRecord.model_validate_json((tmp_path / n / "results.json").read_bytes()) for n in ("one", "two")]
    assert [numbers(record) for record in records] == [numbers(warm.record)] * 2
    gated = {cell.artifacts["images"] for cell in records[0].cells if cell.attack_name == "gated"}
    assert len(calls.read_text().splitlines()) == len(gated)


def test_an_interrupt_ends_a_run_and_keeps_its_record(warm: Warm, address: str, cache: Path, tmp_path: Path) -> None:
    arguments = warm.tiny.arguments(
        tmp_path / "run", attack=[f"{warm.tiny.gated}:Gated"], controls=False, set={f"{OURS}.images": ["16"]}
    )
    there = ["--executor", "ray", "--address", address, "--device", "cpu", "--jobs", "1", "-q"]
    driver = start([*arguments, *there], cache, LEAKBENCH_TEST_GATE=str(tmp_path))
    wait_for(tmp_path / "reached", driver)
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate()
    assert driver.returncode == 130, err
    assert err == "leakbench: interrupted; what was computed is kept: the same command goes on from here\n"
    record = RunRecord.model_validate_json((tmp_path / "run" / records_in(tmp_path / "run")[0].record).read_bytes())
    assert not record.complete
    assert {cell.status for cell in record.cells if cell.defense_name == OURS} == {"ok"}


def test_another_version_of_leakbench_and_a_lost_module_end_the_run_in_one_line(
    warm: Warm, cluster: Backend, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(leakbench, "__version__", "0.0.1")
        with pytest.raises(LeakBenchError, match=r"^worker on .* is installed there and 0.0.1 here: install the same"):
            run_on(cluster, warm.tiny.options(), cache, tmp_path / "run")
    module = tmp_path / "modules" / "only_the_driver.py"
    module.parent.mkdir()
    module.write_text(KILLED, encoding="utf-8")
    monkeypatch.syspath_prepend(module.parent)
    leakbench.register("attack", "once", "only_the_driver:Once")
    with pytest.raises(LeakBenchError, match=r"^worker on .*: the attack 'once' is not there: .*only_the_driver"):
        run_on(cluster, warm.tiny.options(attack=["once"], set={f"{OURS}.images": ["16"]}), cache, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("address", "device", "line"),
    [
        ("127.0.0.1:1", "auto", "--address 127.0.0.1:1: nothing answers there (Connection refused)"),
        ("nowhere.invalid:6379", "auto", "--address nowhere.invalid:6379: nothing answers there ("),
        ("ray://127.0.0.1:1", "auto", "--address ray://127.0.0.1:1: Ray's client can't be used"),
        ("127.0.0.1", "auto", "--address must be HOST:PORT, as ray start --head prints it, or auto, got '127.0.0.1'"),
        ("127.0.0.1:70000", "auto", "--address 127.0.0.1:70000: nothing answers there ("),
        (None, "cuda:1", "--device cuda:1: with --executor ray it must be auto, cpu or cuda"),
    ],
)
def test_a_cluster_that_can_not_be_reached_is_said_in_one_line(address: str | None, device: str, line: str) -> None:
    with pytest.raises(LeakBenchError) as raised, backend_named("ray", address, device):
        pass
    assert str(raised.value).startswith(line) and "\n" not in str(raised.value)


def test_a_cluster_of_another_version_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*_: object, **__: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.52.0\n    Python: 3.12.1")

    with socket.create_server(("127.0.0.1", 0)) as answers:
        address = f"127.0.0.1:{answers.getsockname()[1]}"
        monkeypatch.setattr(ray, "init", init)
        with pytest.raises(LeakBenchError) as raised, backend_named("ray", address, "cpu"):
            pass
    started = "Version mismatch: The cluster was started with: Ray: 2.52.0 Python: 3.12.1"
    assert str(raised.value) == f"--address {address}: {started}"


def test_a_driver_without_a_gpu_asks_for_one_in_vain(cluster: Backend) -> None:
    assert cluster.device == "cpu"
    no_gpu = pytest.raises(LeakBenchError, match=r"^--device cuda: the Ray cluster has no GPU")
    with no_gpu, backend_named("ray", None, "cuda"):
        pass
    assert ray.is_initialized()  # it was connected before, and stays so


@pytest.mark.parametrize(
    ("jobs", "gpus", "each"),
    [(1, 8, 1), (8, 8, 1), (9, 8, 1 / 2), (16, 8, 1 / 2), (17, 8, 1 / 3), (64, 8, 1 / 8), (2, 0.5, 1 / 2)],
)
def test_more_workers_than_gpus_share_them(jobs: int, gpus: float, each: float) -> None:
    assert gpus_each(jobs, gpus) == each
    assert jobs <= max(1, int(gpus)) * round(1 / each)  # there is room for all of them


OWN = """
import sys
from leakbench.bench.backends import backend_named
with backend_named("ray", None, "cpu"):
    import ray
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""


def test_a_cluster_of_its_own_is_closed_to_others() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own = subprocess.Popen([sys.executable, "-c", OWN], stdin=PIPE, stdout=PIPE, text=True, env=environment)
    assert own.stdout is not None
    there = own.stdout.readline().strip()
    stranger = f"import ray; ray.init({there!r}, logging_level=50)"
    said = subprocess.run(
        [sys.executable, "-c", stranger], env=environment, capture_output=True, text=True, check=False
    )
    own.communicate()
    assert there and said.returncode != 0 and "Failed to connect to Ray cluster" in said.stderr
    assert own.returncode == 0


def test_nothing_is_told_to_anybody(cluster: Backend) -> None:
    assert cluster.device == "cpu"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize("searched", [False, True])
def test_workers_take_modules_from_the_current_folder_only_where_the_run_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, searched: bool
) -> None:
    """Ray has workers search the folder that it is started in."""
    here, seen = Path.cwd(), list[Path]()
    monkeypatch.setattr(sys, "path", [*(entry for entry in sys.path if entry), *([str(tmp_path)] if searched else [])])
    monkeypatch.chdir(tmp_path)
    with ray_cluster._unsearched():
        seen.append(Path.cwd())
    assert seen == [tmp_path if searched else Path(here.anchor)]
    assert Path.cwd() == tmp_path
