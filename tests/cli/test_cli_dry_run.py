"""``run --dry-run``, and what a run says of its length before it starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_said import Leakbench
from tiny_runs import CELLS, Warm, artifacts, copied, forget

from leakbench.bench import costs, speed
from leakbench.bench.costs import SAID_ABOVE, CostTable, Network
from leakbench.bench.grid import make_config
from leakbench.bench.speed import Speed
from leakbench.bench.suites import cells_of
from leakbench.runtime.workspace import Settings
from leakbench.session.estimate import say_if_long

UNIT = Speed(ann=1.0, spiking=1.0, other=1.0)
Weights = tuple[float, float, float, float, float, float, float]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, Weights]:
    """The weights of the table that the command reads: a test sets what stages take."""
    weights: dict[str, Weights] = {}

    def read() -> CostTable:
        return CostTable(
            command="by hand", date="2026-01-01", version="0",
            networks=(Network(machine="abacus", dataset="d", model="m", speed=UNIT),), within_twice=0.5, shares={},
            weights=weights, rows=(),
        )  # fmt: skip

    monkeypatch.setattr(costs, "read_costs", read)
    monkeypatch.setattr(speed, "measured_speed", lambda *_: UNIT)
    return weights


def taking(seconds: float) -> Weights:
    return seconds, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0


def files() -> list[Path]:
    return sorted(Path.cwd().rglob("*"))


def test_a_dry_run_prints_the_estimate_and_computes_nothing(leakbench: Leakbench, table: dict[str, Weights]) -> None:
    table |= {"attack direct": taking(3600), "ANN training": taking(60), "defense bu2022": taking(30)}
    table |= dict.fromkeys(("metrics of inversion", "check of inversion"), taking(0))
    before = files()
    said = leakbench(
        "run", "-d", "bu2022", "-a", "direct,spsa", "--no-controls", "--dry-run", "--out", "out", "-j", "1"
    )
    assert (said.status, said.err) == (0, "")
    assert files() == before
    lines = said.out.splitlines()
    assert lines[0] == "digits, vgg4, T = 32, preset standard"
    assert lines[1].startswith("9 cells, none of them in the store, nothing computed")
    (training,) = [line for line in lines if line.startswith("training of ANNs ")]
    assert training.split()[3:8] == ["1", "60", "s", "60", "s"]
    (direct,) = [line for line in lines if line.startswith("attack direct ")]
    assert "60 min" in direct
    (spsa,) = [line for line in lines if line.startswith("attack spsa ")]
    assert spsa.count("unknown") == 3
    assert any("about 2 h on one thread" in line for line in lines)
    assert any("no measured cost" in line and "1 of attack spsa" in line for line in lines)
    assert any("abacus" in line and "50%" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("given", [False, True])
def test_evaluation_models_that_are_given_are_not_trained(
    leakbench: Leakbench, table: dict[str, Weights], warm: Warm, given: bool
) -> None:
    table["evaluation of inversion"] = taking(3600)
    assert leakbench("export", warm.out, "--judges", "--cache", warm.cache, "--out", "judges").status == 0
    judges = ["--judges", "judges"] if given else []
    said = leakbench(*warm.tiny.arguments("out"), "--cache", "empty", "--dry-run", *judges)
    assert ("evaluation models" in said.out) is not given


def test_an_estimate_is_for_the_speed_of_this_machine_in_the_precision_of_the_run(
    leakbench: Leakbench,
    table: dict[str, Weights],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table["accuracy and energy"] = (0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0)
    seconds = []
    for precision, taken in (("float32", 1.0), ("bfloat16", 0.5)):
        measured = {("vgg4", precision): Speed(ann=100.0, spiking=taken, other=100.0)}
        monkeypatch.setattr(speed, "measured_speed", lambda model, _, precision, of=measured: of[model, precision])
        said = leakbench("run", "-d", "bu2022", "-a", "none", "--precision", precision, "--dry-run", "--out", "out")
        told = re.search(r"about ([0-9.]+) s on one thread", said.out)
        assert told is not None, said.out
        seconds.append(float(told[1]))
    assert seconds[0] == pytest.approx(2 * seconds[1], rel=0.05)


def test_the_settings_of_a_sweep_have_one_line(leakbench: Leakbench, table: dict[str, Weights]) -> None:
    table |= dict.fromkeys(("ANN training", "defense bu2022", "defense han2020", "accuracy and energy"), taking(30))

    def lines(*timesteps: int) -> list[str]:
        steps = ",".join(map(str, timesteps))
        asked = "run", "-d", "bu2022,han2020", "-a", "none", "-T", steps, "--no-controls", "--dry-run", "-j", "1"
        said = leakbench(*asked)
        assert (said.status, said.err) == (0, "")
        return [line for line in said.out.splitlines() if line.startswith("defence ")]

    assert [line.split()[1] for line in lines(4, 8, 12)] == [
        *(f"bu2022[T={steps}]" for steps in (4, 8, 12)),
        *(f"han2020[T={steps}]" for steps in (4, 8, 12)),
    ]
    assert [line.split("  ")[0] for line in lines(4, 8, 12, 16)] == [
        "defence bu2022, 4 settings",
        "defence han2020, 4 settings",
    ]


@pytest.mark.slow
def test_cells_that_are_in_the_store_count_as_nothing(
    leakbench: Leakbench, warm: Warm, table: dict[str, Weights], tmp_path: Path
) -> None:
    """All of them; then without metrics; then without a network, and so with nothing that stands on it."""
    table |= {"attack direct": taking(600), "accuracy and energy": taking(10)}
    cache = copied(warm.cache, tmp_path / "cache")
    arguments = [*warm.tiny.arguments(tmp_path / "out"), "--cache", cache, "--dry-run"]
    before = artifacts(cache)

    def said() -> list[str]:
        out = leakbench(*arguments)
        assert (out.status, out.err) == (0, "")
        networks, *lines = out.out.splitlines()
        assert networks.endswith(", vgg4, T = 4, preset quick")
        return lines

    (line,) = said()
    assert line == f"{CELLS} cells, all of them in the store: there is nothing to compute"
    forget(cache, "metric")
    metrics = said()
    # of a network alone nothing is missing; of attacks and anchors the metrics are
    assert metrics[0].startswith(f"{CELLS} cells, 4 of them in the store")
    # four attacks and one at half its effort, as if nothing of them were there
    assert "at most" in metrics[0] and any("about 50 min on one thread" in line for line in metrics)
    assert not any(line.startswith(("defence", "training")) for line in metrics)
    forget(cache, "victim")
    assert said()[0].startswith(f"{CELLS} cells, none of them in the store")
    assert artifacts(cache).items() <= before.items()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_dry_run_refuses_what_a_run_refuses(leakbench: Leakbench) -> None:
    options = ("--dataset digit", "--set bu2022.no=1", "-j 100000", "--fail-if x", "--json", "-d privatesn")
    for wrong in (*options, *(f"--{weights} nothere" for weights in ("ann", "judges", "features", "inception"))):
        said = leakbench("run", "-d", "bu2022", "-a", "direct", *wrong.split(), "--dry-run")
        assert (said.status, said.out) == (2, "")
        assert len(said.err.splitlines()) == 1
    assert not files()


@pytest.mark.slow
def test_a_dry_run_of_a_configuration_file_with_suite_seeds_and_several_data_sets(
    leakbench: Leakbench, tmp_path: Path
) -> None:
    (tmp_path / "grid.toml").write_text("suite = 'paper'\nseeds = 2\npreset = 'quick'\ndataset = ['digits', 'mnist']\n")
    said = leakbench("run", "--config", "grid.toml", "--dry-run")
    assert said.status == 0, said.err
    assert "not available, and not downloaded for an estimate: mnist" in said.out
    assert "attack auto-v2" in said.out and "attack pruned" in said.out
    assert [path.name for path in files()] == ["grid.toml"]


@pytest.mark.long
@pytest.mark.slow
def test_a_long_run_says_so_before_it_starts(
    leakbench: Leakbench, warm: Warm, table: dict[str, Weights], tmp_path: Path
) -> None:
    table |= {"accuracy and energy": taking(1000)}
    cache = copied(warm.cache, tmp_path / "cache")
    forget(cache, "utility")
    arguments = warm.tiny.arguments(tmp_path / "out")
    assert "one thread" not in leakbench(*arguments, "--quiet", "--cache", copied(cache, tmp_path / "quiet")).err
    long = leakbench(*arguments, "--cache", cache)
    assert "about 67 min on one thread" in long.err
    assert f"the {CELLS - 4} of {CELLS} cells that are in the store" in " ".join(long.err.split())
    assert "about" not in long.out
    assert "one thread" not in leakbench(*arguments, "--cache", cache).err  # all of it is in the store now


@pytest.mark.slow
def test_networks_are_timed_before_all_but_short_runs(
    table: dict[str, Weights], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    timed: list[str] = []

    def measured(model: str, *_: object) -> Speed:
        timed.append(model)
        return Speed(ann=0.5, spiking=0.5, other=0.5)

    monkeypatch.setattr(speed, "measured_speed", measured)
    cells = cells_of(make_config({"dataset": "digits", "defense": ["han2020"], "attack": "none", "controls": False}))
    settings = Settings(str(tmp_path / "cache"))
    for each in (1.0, 1e9):  # of multiply-accumulates of the ANN's training
        table["ANN training"] = (0.0, 0.0, each, 0.0, 0.0, 0.0, 0.0)
        told = sum(filter(None, say_if_long(cells, settings, 1)))
        assert (told > 0.4 * SAID_ABOVE) is bool(timed)
    assert timed == ["vgg4"]
    assert "on one thread" in capsys.readouterr().err
