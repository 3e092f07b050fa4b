"""Third parties' plugins: a package that is really installed, one that is broken, and a single file."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_said import Leakbench, record_in
from safetensors.torch import load_file
from tiny_runs import OURS, Warm, cell_of, copied, value_of

from leakbench import registry
from leakbench.bench.grid import make_config
from leakbench.bench.runner import open_run
from leakbench.data import load_dataset
from leakbench.records import RunRecord

pytestmark = pytest.mark.slow

PACKAGE = Path(__file__).parents[1] / "plugin_package"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the package is installed in, as pip does it."""
    base = tmp_path_factory.mktemp("plugins")
    source = copied(PACKAGE, base / "source")  # a build leaves folders beside the sources
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    pip += ["--disable-pip-version-check", "--target", str(base / "site"), str(source)]
    ended = subprocess.run(pip, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return base / "site"


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installed package that raises when it is imported: its files and its entry points."""
    site = tmp_path_factory.mktemp("broken")
    (site / "broken_plugins").mkdir()
    (site / "broken_plugins" / "__init__.py").write_text('raise ImportError("broken on purpose,\\nin two lines")\n')
    (site / "broken_plugins" / "parts.py").write_text('class Part:\n    """Never seen."""\n')
    info = site / "broken_plugins-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugins\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(
        "[leakbench.attacks]\nbroken-attack = broken_plugins.parts:Part\n"
        "[leakbench.defenses]\nbroken-defense = broken_plugins.parts:Part\n"
    )
    return site


def run(*arguments: str, sites: list[Path], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "leakbench", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sites)), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


def test_list_shows_both_with_their_origin(installed: Path) -> None:
    ended = run("list", sites=[installed])
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = {line.split()[0]: line for line in ended.stdout.splitlines() if line.startswith("  ")}
    assert lines["weight-noise"].endswith(
        "Gaussian noise on every weight, then a conversion with thresholds from training images. [noise-plugins]"
    )
    assert lines["random-search"].endswith("(needs SCORES) [noise-plugins]")
    assert "pixels, from 0 to 1, to the nearest" in lines["training_distance"]
    assert lines["wide-stem"].endswith("One convolution of 5x5, pooled by four. [noise-plugins]")
    assert "bar at one of four places. [noise-plugins]" in ended.stdout
    assert "[" not in lines[OURS].replace("[0, 1]", "")
    assert "weight-noise" not in run("list", sites=[]).stdout  # gone with their package


def test_info_shows_a_third_party_s_parameters(installed: Path) -> None:
    ended = run("info", "weight-noise", sites=[installed])
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("weight-noise  defense, version 1")
    assert "source: folklore" in ended.stdout
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("  sigma")]
    assert ">= 0, <= 10" in line and "standard deviations" in line
    assert any(line.startswith("  quantize") for line in ended.stdout.splitlines())  # of every defence


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "first", "doc"),
    [
        ("wide-stem", "wide-stem  model, noise-plugins", "One convolution of 5x5, pooled by four."),
        ("bars", "bars  dataset, noise-plugins", "Grey images of 8x8 pixels with a bar at one of four places."),
    ],
)
def test_info_shows_a_third_party_s_model_and_data_set(installed: Path, name: str, first: str, doc: str) -> None:
    ended = run("info", name, sites=[installed])
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [first, "", doc]


@pytest.mark.long
def test_their_model_and_data_set_run_by_name(installed: Path, tmp_path: Path) -> None:
    """In a worker process, and a second time from the store alone."""
    arguments = [
        "run", "-d", "han2020", "-a", "loss_threshold", "--dataset", "bars:half", "--model", "wide-stem",
        "--preset", "quick", "--no-controls", "-j", "1", "-q",
    ]  # fmt: skip
    records = []
    for out in ("first", "second"):
        ended = run(
            *arguments, "--out", str(tmp_path / out), sites=[installed], LEAKBENCH_CACHE=str(tmp_path / "cache")
        )
        assert ended.returncode == 0, ended.stderr
        records.append(RunRecord.model_validate_json((tmp_path / out / "results.json").read_bytes()))
    assert records[0].datasets[0].source.startswith("drawn by noise-plugins")
    for record in records:
        assert {(cell.dataset, cell.model) for cell in record.cells} == {("bars:half", "wide-stem")}
        assert {cell.status for cell in record.cells} == {"ok"}
    keys = [{key for cell in record.cells for key in cell.artifacts.values()} for record in records]
    assert keys[0] == keys[1]


@pytest.fixture(scope="session")
def their_run(installed: Path, broken: Path, warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their attack, their defence and their metric end to end, beside the broken package."""
    base = tmp_path_factory.mktemp("theirs")
    settings = {"weight-noise.images": ["16"], "random-search.steps": ["1", "40"]}
    arguments = warm.tiny.arguments(
        base / "run",
        defense=["weight-noise", "ann"],
        attack=["random-search"],
        metric=["training_distance"],
        set=settings,
        controls=False,
        jobs=1,
    )
    empty = base / "home"
    ended = run(
        *arguments,
        "--isolate",
        "--quiet",
        sites=[installed, broken],
        LEAKBENCH_CACHE=str(warm.grown),
        TORCH_HOME=str(empty),
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    return base / "run"


@pytest.fixture(scope="session")
def theirs(their_run: Path) -> RunRecord:
    return record_in(their_run)


def test_their_defence_and_attack_run_end_to_end(theirs: RunRecord) -> None:
    assert len(theirs.cells) == 4 + 2 + 4  # anchors, defences, two variants of an attack that names no effort to halve
    assert {cell.status for cell in theirs.cells} == {"ok"}
    assert {one.name: one.ran for one in theirs.plugins if one.kind in ("attack", "defense")} == {
        "weight-noise": "isolated",
        "ann": "built-in",
        "random-search": "isolated",
    }
    protected = cell_of(theirs, "weight-noise")
    assert value_of(protected, "training_images_read") == 16
    # noise of .1 standard deviations on every weight: cosine 1/sqrt(1.01) where a layer's mean is 0, and so near it
    assert 0.98 < value_of(protected, "weight_cosine") < 0.9995
    for defense in ("ann", "weight-noise"):
        for steps in (1, 40):
            cell = cell_of(theirs, defense, f"random-search[steps={steps}]")
            assert value_of(cell, "gradient_steps") == steps
            assert value_of(cell, "queries") == 6 * (steps + 1)  # the start and every step ask once an image
    # on the ANN, which answers without noise, a longer search can only grow surer
    short, long = (cell_of(theirs, "ann", f"random-search[steps={steps}]") for steps in (1, 40))
    assert value_of(long, "victim_confidence") > value_of(short, "victim_confidence") + 0.1


def test_their_metric_is_measured_of_every_attack_and_anchor(theirs: RunRecord, warm: Warm) -> None:
    private = load_dataset(warm.tiny.dataset).train
    attacked = [cell for cell in theirs.cells if cell.attack and not cell.of]
    assert len(attacked) == 2 + 4
    for cell in attacked:
        assert not cell.warnings and value_of(cell, "training_distance") > 0
        if not cell.defense:
            continue  # the mean over an anchor's draws
        key = cell.artifacts["images"]
        drawn = load_file(warm.grown / "objects" / key[:2] / key / "tensors.safetensors")
        images, targets = drawn["images"].float(), drawn["targets"].tolist()
        nearest: dict[int, list[float]] = {}
        for image, target in zip(images, targets, strict=True):
            of_class = private.images[private.labels == target].float()
            nearest.setdefault(target, []).append(min(float((image - one).abs().mean()) for one in of_class) / 255)
        classes = {score.target: score.value for score in cell.classes if score.metric == "training_distance"}
        assert classes == pytest.approx({target: sum(each) / len(each) for target, each in nearest.items()}, rel=1e-5)
        assert value_of(cell, "training_distance") == pytest.approx(sum(classes.values()) / len(classes))


def test_their_metric_has_an_index_and_stands_in_every_output(theirs: RunRecord, their_run: Path) -> None:
    (declared,) = [metric for metric in theirs.metrics if metric.name == "training_distance"]
    assert (declared.unit, declared.leaks, declared.per, declared.scale) == ("share", "less", "class", "anchors")
    indices = [index for row in theirs.rows for index in row.indices if index.metric == "training_distance"]
    assert len(indices) == 4 and all(index.value is not None for index in indices)
    assert all({found.target for found in index.classes} == {0, 1, 2} for index in indices)
    said = {name: (their_run / f"results.{name}").read_text() for name in ("csv", "md")}
    for metric in ("training_distance", "class: training_distance", "index_training_distance"):
        assert f",{metric}," in said["csv"]
    assert r"### Distance to the nearest \<training\> image" in said["md"]
    page = (their_run / "report.html").read_text()
    assert "Distance to the nearest &lt;training&gt; image <code>training_distance</code>" in page
    assert "Leakage index, Distance to the nearest &lt;training&gt; image" in page
    assert "Mean absolute difference of the pixels, from 0 to 1," in page
    assert "<training>" not in page.partition("<body")[2].partition("application/gzip")[0]


def test_the_record_names_their_package(theirs: RunRecord) -> None:
    found = {(plugin.kind, plugin.name): plugin for plugin in theirs.plugins}
    assert found["defense", "weight-noise"].origin == "noise-plugins"
    assert found["attack", "random-search"].origin == "noise-plugins"
    assert found["metric", "training_distance"].origin == "noise-plugins"
    assert found["attack", "random-search"].needs == "SCORES"
    assert found["defense", "ann"].origin == "built-in"


def test_a_broken_package_is_reported_and_the_rest_is_listed(installed: Path, broken: Path) -> None:
    ended = run("list", sites=[installed, broken])
    assert (ended.returncode, ended.stderr) == (0, "")
    items = [line for line in ended.stdout.splitlines() if line.startswith("  ") and line[2] != " "]
    lines = {line.split()[0]: line for line in items}
    for name in ("broken-attack", "broken-defense"):
        assert "can't be loaded: ImportError: broken on purpose" in lines[name]
        assert "[broken-plugins]" in ended.stdout
    assert "[noise-plugins]" in lines["weight-noise"]
    without = run("list", sites=[]).stdout.splitlines()
    assert len(lines) == sum(line.startswith("  ") and line[2] != " " for line in without) + 7
    assert not [line for line in ended.stdout.splitlines() if line.startswith("in two lines")]


def test_doctor_reports_both_packages(installed: Path, broken: Path) -> None:
    ended = run("doctor", "--json", sites=[installed, broken])
    assert (ended.returncode, ended.stderr) == (0, "")
    rows = {row["name"]: row for row in json.loads(ended.stdout) if row["kind"] == "plugin"}
    good = {name for name, row in rows.items() if row["ok"]}
    assert good == {"weight-noise", "random-search", "training_distance", "wide-stem", "bars"}
    assert "noise-plugins" in rows["weight-noise"]["detail"]
    for name in ("broken-attack", "broken-defense"):
        assert "broken on purpose" in rows[name]["detail"]
        assert "broken-plugins" in rows[name]["detail"]
        assert len(rows[name]["detail"].splitlines()) == 1


def test_a_broken_plugin_by_name_is_one_line(
    leakbench: Leakbench, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(broken))
    line = leakbench("run", "-d", OURS, "-a", "broken-attack").line
    assert "broken-attack" in line and "broken-plugins" in line and "broken on purpose" in line
    assert "broken on purpose" in leakbench("info", "broken-defense").line


def test_all_leaves_a_broken_attack_out_and_says_so(
    leakbench: Leakbench, warm: Warm, broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(broken))
    # two built-in ones stand for all of them
    two = {name: registry.BUILT_IN["attack"][name] for name in ("direct", "reconversion")}
    monkeypatch.setitem(registry.BUILT_IN, "attack", two)
    settings = {f"{name}.iterations": ["1"] for name in two}
    arguments = warm.tiny.arguments(tmp_path / "run", attack=["all"], controls=False, set=settings)
    said = leakbench(*arguments, "--cache", warm.grown)
    assert said.status == 0
    warnings = [line for line in said.err.splitlines() if "broken-attack" in line]
    assert len(warnings) == 1
    assert "broken on purpose" in warnings[0]
    record = RunRecord.model_validate_json((tmp_path / "run" / "results.json").read_bytes())
    assert {cell.attack_name for cell in record.cells if cell.defense} == {"", *two}
    assert {cell.status for cell in record.cells} == {"ok"}


PROGRAM = """
from pathlib import Path
Path("ran").touch()
raise ImportError("seen")
"""


@pytest.fixture
def foreign_run(tmp_path: Path) -> Path:
    """The folder of a run whose grid names a plugin file that leaves a trace when it is imported."""
    (tmp_path / "evil\x1b.py").write_text(PROGRAM)
    open_run(tmp_path / "theirs", make_config({"defense": OURS, "attack": ["direct", "evil\x1b.py:Evil"]}))
    return tmp_path / "theirs"


def test_a_folder_s_plugin_files_are_not_run_unasked(leakbench: Leakbench, foreign_run: Path) -> None:
    line = leakbench("run", "--resume", "--out", foreign_run).line
    assert "evil\\x1b.py:Evil" in line and "grid.json" in line and "--trust-plugins" in line
    assert "direct" not in line
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("option", "before"),
    [
        *((option, "") for option in ("metric", "model", "dataset", "public", "ann")),
        *((option, "folder:x/../") for option in ("metric", "model", "ann", "defense", "attack")),
    ],
)
def test_nor_are_its_metrics_models_and_data_sets(
    leakbench: Leakbench, tmp_path: Path, option: str, before: str
) -> None:
    """Also of a name that would be a folder of images where it is a data set's."""
    (tmp_path / "evil.py").write_text(PROGRAM)
    named = f"{before}evil.py:build"
    open_run(tmp_path / "theirs", make_config({"defense": OURS, "attack": "direct", option: named}))
    line = leakbench("run", "--resume", "--out", tmp_path / "theirs").line
    assert named in line and "--trust-plugins" in line
    assert not Path("ran").exists()


def test_a_folder_s_plugin_files_run_with_the_user_s_word(leakbench: Leakbench, foreign_run: Path) -> None:
    line = leakbench("run", "--resume", "--out", foreign_run, "--trust-plugins").line
    assert "can't be imported: ImportError: seen" in line
    assert not Path("ran").exists()  # isolated, it leaves no traces here
    leakbench("run", "--resume", "--out", foreign_run, "--trust-plugins", "--no-isolate")
    assert Path("ran").exists()


@pytest.mark.parametrize(("answer", "runs"), [("y", True), ("n", False), ("", False)])
def test_on_a_terminal_the_user_is_asked(
    leakbench: Leakbench, foreign_run: Path, monkeypatch: pytest.MonkeyPatch, answer: str, runs: bool
) -> None:
    typed = io.StringIO(f"{answer}\n")
    monkeypatch.setattr(typed, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", typed)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    said = leakbench("run", "--resume", "--out", foreign_run, "-q")
    assert said.status == 2
    question, *_, last = said.err.splitlines()
    assert "evil\\x1b.py:Evil" in question
    assert ("ImportError: seen" if runs else "--trust-plugins") in last


@pytest.mark.long
@pytest.mark.parametrize("where", ["options", "configuration file"])
def test_plugin_files_that_the_user_names_need_no_such_word(leakbench: Leakbench, tmp_path: Path, where: str) -> None:
    (tmp_path / "mine.py").write_text(PROGRAM)
    (tmp_path / "grid.toml").write_text(f"defense = '{OURS}'\nattack = 'mine.py:Mine'")
    named = ["-d", OURS, "-a", "mine.py:Mine"] if where == "options" else ["--config", "grid.toml"]
    assert "ImportError: seen" in leakbench("run", *named).line


def test_a_report_imports_no_plugin(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    out = copied(warm.out, tmp_path / "theirs")
    (tmp_path / "evil.py").write_text(PROGRAM)
    for name in ("results.json", "grid.json"):
        text = (out / name).read_text()
        assert f"{warm.tiny.gated}:Gated" in text
        (out / name).write_text(text.replace(f"{warm.tiny.gated}:Gated", "evil.py:Evil"))
    assert leakbench("report", out).status == 0
    assert not Path("ran").exists()


def test_a_file_runs_as_it_is(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    """``--attack path/to/file.py:MyAttack`` and the same for a defence, without any package."""
    (tmp_path / "mine").mkdir()
    for name in ("attack", "defense"):
        (tmp_path / "mine" / f"{name}.py").write_bytes((PACKAGE / "noise_plugins" / f"{name}.py").read_bytes())
    arguments = warm.tiny.arguments(
        tmp_path / "run",
        defense=["mine/defense.py:WeightNoise"],
        attack=["mine/attack.py:RandomSearch"],
        set={"weight-noise.images": ["16"], "random-search.steps": ["3"]},
        controls=False,
    )
    said = leakbench(*arguments, "--cache", warm.grown, "--quiet")
    assert (said.status, said.err) == (0, "")
    record = RunRecord.model_validate_json((tmp_path / "run" / "results.json").read_bytes())
    assert value_of(cell_of(record, "weight-noise", "random-search"), "queries") == 6 * 4
    assert {p.name: p.origin for p in record.plugins} == {
        "weight-noise": "mine/defense.py:WeightNoise",
        "random-search": "mine/attack.py:RandomSearch",
    }
