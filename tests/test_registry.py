"""Name -> plugin: built-in, registered, from a file, from another package; right, wrong and broken."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import leakbench
from leakbench import registry
from leakbench.contracts import Access, BaseAttack, Defense
from leakbench.errors import LeakBenchError, PluginError, UnknownName, UsageError

PLUGIN = '''
"""A plugin of one's own."""
import torch
from leakbench.contracts import Access, Attack, Params

class Grey(Attack[Params]):
    """Grey images.

    And more about them.
    """

    name = "grey"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        return torch.full((len(targets), *victim.image_shape), 0.5)

class NoPlugin:
    pass

text = "no class"
'''


OTHERS = '''
class Brightness:
    """Mean brightness."""

    kind = "metric"
    name = "brightness"
    version = 1

def build(image_shape, classes, generator):
    """A tiny model."""

class Dots:
    def __call__(self, folder):
        return None

DOTS = Dots()
"""Dots on paper."""
'''


@pytest.fixture
def plugin_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(registry, "_registered", {})
    yield


def message(kind: Any, name: str, error: type[LeakBenchError]) -> str:
    """The one line with which a name is refused."""
    with pytest.raises(LeakBenchError) as found:
        registry.load(kind, name)
    assert type(found.value) is error
    assert "\n" not in str(found.value)
    return str(found.value)


# --- built-ins -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "base"), [("attack", BaseAttack), ("defense", Defense)])
def test_every_built_in_loads_under_its_own_name_and_says_what_it_is(kind: Any, base: Any) -> None:
    for name, entry in registry.entries(kind).items():
        if entry.origin != "built-in":
            continue
        plugin = registry.load(kind, name)
        assert issubclass(plugin, base)
        assert plugin.name == name
        assert plugin.version >= 1
        # read off the source without importing it: the same as what the class says
        found = registry.summary(entry)
        assert plugin.__doc__ is not None and found.line == registry.first_sentence(plugin.__doc__)
        assert found.line.endswith(".")
        assert found.needs == (plugin.needs.name if kind == "attack" else "")
        for use in registry.USES:
            assert getattr(found, use) == (kind == "attack" and getattr(plugin, use, False))


@pytest.mark.parametrize(
    ("doc", "sentence"),
    [
        ("Images of white.\n\n    More on it.", "Images of white."),
        ("Share of images that\n    are white. Low means\n    that they are not.", "Share of images that are white."),
        (
            "After Doe et al. (2020), and Roe et al. Images in white! Or grey.",
            "After Doe et al. (2020), and Roe et al. Images in white!",
        ),
        ("No end at .5\n    of it\n\n    Rest.", "No end at .5 of it"),
        ("\n    Below the quotes.\n", "Below the quotes."),
        (None, ""),
    ],
)
def test_a_summary_is_the_first_sentence(doc: str | None, sentence: str) -> None:
    assert registry.first_sentence(doc) == sentence


def test_a_summary_ends_with_its_sentence_wherever_the_line_ends() -> None:
    lines = {name: registry.summary(entry).line for name, entry in registry.entries("metric").items()}
    cut = {name: line for name, line in lines.items() if not line.endswith((".", ")"))}
    assert not cut
    assert lines["judge_accuracy"].endswith("averaged over small shifts and blurs.")


def test_an_unknown_name_lists_what_is_there_and_the_nearest() -> None:
    assert message("attack", "invertion", UnknownName).startswith(
        "unknown attack 'invertion': did you mean 'inversion'?"
    )
    text = message("defense", "private-snn", UnknownName)
    assert "did you mean 'privatesnn'?" in text
    assert all(name in text for name in ("ann", "random", "sengupta2019", "han2020", "datafree", "privatesnn"))
    assert "did you mean" not in message("attack", "zzzzzz", UnknownName)
    # an attack is no defence
    assert "unknown defense 'inversion'" in message("defense", "inversion", UnknownName)
    assert message("attack", "", UnknownName).startswith("unknown attack ''")


# --- from a file -----------------------------------------------------------------------------------------------------


def test_a_class_in_a_file(plugin_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = registry.load("attack", f"{plugin_file}:Grey")
    assert (plugin.name, plugin.needs) == ("grey", Access.LABELS)
    assert registry.load("attack", f"{plugin_file}:Grey") is plugin  # imported once
    monkeypatch.chdir(plugin_file.parent)
    assert registry.load("attack", "mine.py:Grey") is plugin


def test_an_edited_file_is_read_anew(plugin_file: Path) -> None:
    first = registry.load("attack", f"{plugin_file}:Grey")
    plugin_file.write_text(PLUGIN.replace('name = "grey"', 'name = "gray"'))
    second = registry.load("attack", f"{plugin_file}:Grey")
    assert (first.name, second.name) == ("grey", "gray")


def test_files_of_one_name_in_two_folders_are_two_plugins(plugin_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "mine.py"
    other.parent.mkdir()
    other.write_text(PLUGIN.replace('name = "grey"', 'name = "other"'))
    assert registry.load("attack", f"{plugin_file}:Grey").name == "grey"
    assert registry.load("attack", f"{other}:Grey").name == "other"


def test_a_file_that_may_not_be_read(plugin_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert "mine.py' can't be read: Permission denied" in message("attack", f"{plugin_file}:Grey", UsageError)


def test_what_a_file_may_lack(plugin_file: Path) -> None:
    assert "no such plugin file" in message("attack", f"{plugin_file.parent}/none.py:Grey", UsageError)
    assert "has no class or function 'Gray'" in message("attack", f"{plugin_file}:Gray", UsageError)
    assert "has no class or function ''" in message("attack", f"{plugin_file}:", UsageError)
    for name in ("NoPlugin", "text", "torch"):
        text = message("attack", f"{plugin_file}:{name}", PluginError)
        assert "is no attack: it must derive from leakbench.contracts.Attack" in text
    # an attack where a defence is wanted
    text = message("defense", f"{plugin_file}:Grey", PluginError)
    assert "is no defense: it must derive from leakbench.contracts.Defense" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("def broken(:\n  pass", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise ValueError('two\\nlines')", "ValueError: two"),
    ],
)
def test_a_file_that_can_not_be_imported(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(content)
    for _ in range(2):  # a failed import leaves nothing behind that would be taken for the module
        text = message("attack", f"{path}:Grey", PluginError)
        assert "broken.py can't be imported: " in text and said in text
    assert not [name for name in sys.modules if name.startswith("leakbench_plugin_broken")]


# --- registered ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("clean")
def test_a_registered_class_and_a_lazy_string(plugin_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = registry.load("attack", f"{plugin_file}:Grey")
    leakbench.register("attack", "mine", grey)
    assert registry.load("attack", "mine") is grey
    monkeypatch.syspath_prepend(str(plugin_file.parent))
    leakbench.register("attack", "lazy", "mine:Grey")
    assert "mine" not in sys.modules
    entries = registry.entries("attack")
    assert (entries["mine"].origin, entries["lazy"].origin) == ("registered", "registered")
    assert registry.summary(entries["lazy"]) == registry.Summary("Grey images.", "LABELS")
    assert "mine" not in sys.modules  # listed without being imported
    assert registry.load("attack", "lazy").name == "grey"
    sys.modules.pop("mine", None)
    assert "did you mean 'lazy'?" in message("attack", "lasy", UnknownName)
    # it is an attack and no defence
    assert "lazy" not in registry.entries("defense")


@pytest.mark.usefixtures("clean")
def test_a_module_that_a_plugin_s_imports_is_part_of_it(
    plugin_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package_of_a_test").mkdir()
    (tmp_path / "package_of_a_test" / "__init__.py").write_text("from .grey import Grey\n")
    (tmp_path / "package_of_a_test" / "grey.py").write_text("from . import shade\n" + plugin_file.read_text())
    shade = tmp_path / "package_of_a_test" / "shade.py"
    shade.write_text("SHADE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    leakbench.register("attack", "mine", "package_of_a_test:Grey")
    before = registry.source("attack", "mine")
    shade.write_text("SHADE = 2\n")
    after = registry.source("attack", "mine")
    assert before.origin == after.origin == "registered" and before.digest != after.digest
    for name in [name for name in sys.modules if name.startswith("package_of_a_test")]:
        del sys.modules[name]


@pytest.mark.usefixtures("clean")
def test_a_registered_class_is_listed_with_its_own_words(plugin_file: Path) -> None:
    """Wherever it was defined: in a script, in a function, in a notebook."""
    grey = registry.load("attack", f"{plugin_file}:Grey")
    grey.__module__ = "__main__"
    leakbench.register("attack", "mine", grey)

    class Local(grey):  # type: ignore[misc,valid-type]
        """Local images."""

        needs = Access.SCORES
        uses_public = True

    leakbench.register("attack", "local", Local)
    entries = registry.entries("attack")
    assert registry.summary(entries["mine"]) == registry.Summary("Grey images.", "LABELS")
    assert registry.summary(entries["local"]) == registry.Summary("Local images.", "SCORES", True)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("line", "uses"),
    [("uses_public = True", True), ("uses_public: bool = True", True), ("uses_public = False", False), ("", False)],
)
def test_whether_public_images_are_needed_is_read_off_the_source(
    line: str, uses: bool, plugin_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_file.write_text(PLUGIN.replace("    needs = Access.LABELS\n", f"    needs = Access.LABELS\n    {line}\n"))
    monkeypatch.syspath_prepend(str(plugin_file.parent))
    leakbench.register("attack", "lazy", "mine:Grey")
    assert registry.summary(registry.entries("attack")["lazy"]) == registry.Summary("Grey images.", "LABELS", uses)
    assert "mine" not in sys.modules


@pytest.mark.usefixtures("clean")
def test_what_can_not_be_registered() -> None:
    with pytest.raises(UsageError, match="the attack 'direct' is built in: register yours under another name"):
        leakbench.register("attack", "direct", "mine:Grey")
    kinds = "'attack', 'defense', 'metric', 'model', 'dataset' are known"
    with pytest.raises(UsageError, match=f"unknown kind of plugin 'judge': {kinds}"):
        leakbench.register("judge", "mine", "mine:Grey")  # type: ignore[arg-type]
    for kind in ("model", "dataset"):
        with pytest.raises(UsageError, match=f"a {kind}'s name must be without , : \\+ and @, and is 'a\\+b'"):
            leakbench.register(kind, "a+b", "mine:build")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the attack 'mine' must be a class, a function or a text"):
        leakbench.register("attack", "mine", 3)  # type: ignore[arg-type]
    leakbench.register("defense", "wrong", registry.load("attack", "direct"))
    assert "'wrong' is no defense" in message("defense", "wrong", PluginError)
    leakbench.register("attack", "gone", "no_such_module:Grey")
    text = message("attack", "gone", PluginError)
    assert text.startswith(
        "the attack 'gone' (registered) can't be loaded from 'no_such_module:Grey': ModuleNotFoundError"
    )
    leakbench.register("attack", "bare", "leakbench.attacks.direct:Nothing")
    assert "AttributeError" in message("attack", "bare", PluginError)


# --- from other packages ---------------------------------------------------------------------------------------------


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with a good plugin, a broken one, one that is missing, and one that takes a taken name."""
    site = tmp_path / "site"
    info = site / "leaky_extras-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: leaky-extras\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        textwrap.dedent("""
        [leakbench.attacks]
        grey = leaky_extras_good:Grey
        broken = leaky_extras_broken:Grey
        syntax = leaky_extras_syntax:Grey
        missing = leaky_extras_missing:Grey
        nameless = leaky_extras_good:Nothing
        package = leaky_extras_package.plugin:Grey
        direct = leaky_extras_good:Grey
        [leakbench.metrics]
        brightness = leaky_extras_good:Brightness
        [leakbench.models]
        tiny = leaky_extras_good:build
        vgg4 = leaky_extras_good:build
        [leakbench.datasets]
        dots = leaky_extras_good:DOTS
        """)
    )
    (site / "leaky_extras_good.py").write_text(PLUGIN + OTHERS)
    (site / "leaky_extras_broken.py").write_text("raise RuntimeError('at import')\n" + PLUGIN)
    (site / "leaky_extras_syntax.py").write_text("class Grey(:")
    (site / "leaky_extras_package").mkdir()
    (site / "leaky_extras_package" / "__init__.py").write_text("raise RuntimeError('in the package')")
    (site / "leaky_extras_package" / "plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(site))
    return site


@pytest.mark.usefixtures("third_party")
def test_a_good_plugin_of_another_package() -> None:
    entry = registry.entries("attack")["grey"]
    assert (entry.origin, entry.target) == ("leaky-extras", "leaky_extras_good:Grey")
    assert registry.summary(entry) == registry.Summary("Grey images.", "LABELS")
    assert registry.load("attack", "grey").needs == Access.LABELS
    sys.modules.pop("leaky_extras_good", None)


@pytest.mark.usefixtures("third_party")
def test_every_kind_has_its_entry_points() -> None:
    wanted = {
        ("metric", "brightness"): "Mean brightness.",
        ("model", "tiny"): "A tiny model.",
        ("dataset", "dots"): "Dots on paper.",
    }
    for (kind, name), line in wanted.items():
        entry = registry.entries(kind)[name]  # type: ignore[index]
        assert (entry.origin, registry.summary(entry)) == ("leaky-extras", registry.Summary(line))
        assert "leaky_extras_good" not in sys.modules
    for kind, name in wanted:
        registry.load(kind, name)  # type: ignore[arg-type]
        source = registry.source(kind, name)  # type: ignore[arg-type]
        assert (source.origin, len(source.digest)) == ("leaky-extras 1.0", 64)
    assert registry.entries("model")["vgg4"].origin == "built-in"
    assert registry.source("model", "vgg4") == registry.source("dataset", "digits") == registry.Source()
    sys.modules.pop("leaky_extras_good", None)


@pytest.mark.usefixtures("clean")
def test_metrics_are_classes_of_their_own_kind(plugin_file: Path) -> None:
    plugin_file.write_text(PLUGIN + OTHERS)
    assert registry.load("metric", f"{plugin_file}:Brightness").name == "brightness"
    for name in ("Grey", "build", "NoPlugin"):
        text = message("metric", f"{plugin_file}:{name}", PluginError)
        assert "is no metric: it must derive from leakbench.metrics.metric.Metric" in text
    assert "is no attack" in message("attack", f"{plugin_file}:Brightness", PluginError)
    plugin_file.write_text(PLUGIN + OTHERS.replace("version = 1", "version = None"))
    assert "its version must be a whole number" in message("metric", f"{plugin_file}:Brightness", PluginError)


@pytest.mark.usefixtures("clean")
def test_functions_are_registered_from_python(plugin_file: Path) -> None:
    plugin_file.write_text(PLUGIN + OTHERS)
    build = registry.load("model", f"{plugin_file}:build")
    leakbench.register("model", "mine", build)
    assert registry.load("model", "mine") is build
    assert registry.summary(registry.entries("model")["mine"]) == registry.Summary("A tiny model.")
    assert registry.source("model", "mine").origin == "registered"
    made: dict[str, Any] = {}
    exec("def build(image_shape, classes, generator): return 1", made)
    leakbench.register("model", "noted", made["build"])
    first = registry.source("model", "noted").digest
    exec("def build(image_shape, classes, generator): return 2", made)
    leakbench.register("model", "noted", made["build"])
    assert registry.source("model", "noted").digest != first  # of a notebook, too


@pytest.mark.usefixtures("third_party")
def test_broken_plugins_are_listed_and_break_nothing_else() -> None:
    entries = registry.entries("attack")
    assert {"broken", "syntax", "missing", "nameless", "package"} <= entries.keys()
    lines = {name: registry.summary(entry).line for name, entry in entries.items()}
    assert "not installed" in lines["missing"]
    assert "can't be loaded: SyntaxError" in lines["syntax"]
    assert "can't be loaded: no class or function Nothing" in lines["nameless"]
    assert "can't be loaded: RuntimeError: in the package" in lines["package"]
    assert all("\n" not in line for line in lines.values())
    for name, said in (
        ("broken", "RuntimeError: at import"),
        ("syntax", "SyntaxError"),
        ("missing", "ModuleNotFoundError"),
        ("nameless", "AttributeError"),
        ("package", "RuntimeError: in the package"),
    ):
        text = message("attack", name, PluginError)
        assert text.startswith(f"the attack {name!r} (leaky-extras) can't be loaded from") and said in text
    # the rest works, and nobody takes a built-in's name
    assert registry.load("attack", "direct").__module__ == "leakbench.attacks.direct"
    assert entries["direct"].origin == "built-in"
    for module in ("leaky_extras_good", "leaky_extras_broken", "leaky_extras_syntax"):
        sys.modules.pop(module, None)


def run_python(code: str, *arguments: str, path: Path | None = None) -> str:
    where = f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else "import sys\n"
    done = subprocess.run(
        [sys.executable, "-c", where + code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["defenses", "attacks", "models"])
def test_listing_plugins_imports_no_torch_and_no_plugin(kind: str, third_party: Path) -> None:
    code = """
from leakbench.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = [m for m in ("torch", "numpy", "sklearn", "leakbench.contracts", "leaky_extras_good") if m in sys.modules]
plugins = [m for m in sys.modules if m.startswith(("leakbench.attacks.", "leakbench.defenses."))]
print("imported:", heavy + plugins)
"""
    out = run_python(code, "list", kind, path=third_party)
    assert out.splitlines()[-1] == "imported: []"
    wanted = {"attacks": ("reconversion", "grey"), "defenses": ("privatesnn", "han2020"), "models": ("vgg16", "tiny")}
    assert all(name in out for name in wanted[kind])


@pytest.mark.slow
def test_importing_leakbench_imports_no_torch() -> None:
    out = run_python("import leakbench, leakbench.registry; print('torch' in sys.modules)")
    assert out.strip() == "False"
