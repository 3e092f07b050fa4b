"""What a plugin's process may read leaves out what is hidden, wherever it lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import sklearn

import leakbench
from leakbench.data import default_data_folder
from leakbench.modules import module_file
from leakbench.paths import default_cache
from leakbench.runtime.isolation.confinement import LIST, READ, WRITE
from leakbench.runtime.isolation.grants import grants, interpreter, package_of


def reads(given: list[tuple[str, str]], path: Path) -> bool:
    real = Path(os.path.realpath(path))
    return any(purpose in (READ, WRITE) and Path(one) in (real, *real.parents) for one, purpose in given)


def test_a_plugin_reads_itself_and_what_it_imports(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.touch()
    given = grants([plugin], [], [], [str(tmp_path / "scratch")])
    for path in (plugin, Path(os.__file__), Path(leakbench.__file__), Path(pytest.__file__), Path(sklearn.__file__)):
        assert reads(given, path), path
    assert (str(tmp_path / "scratch"), WRITE) in given
    assert [path for path, purpose in given if purpose == WRITE] == [str(tmp_path / "scratch"), "/dev/null"]


def test_nothing_else_of_the_user_is_read(tmp_path: Path) -> None:
    given = grants([tmp_path / "mine.py"], [tmp_path], [], [])
    own = [Path.home(), default_cache(), default_data_folder(), tmp_path, Path.cwd(), Path("/tmp"), Path("/")]
    datasets = [Path("/usr/share/datasets"), Path(sklearn.__file__).parent / "datasets" / "data" / "digits.csv.gz"]
    for path in (*own, *datasets, Path("/etc/passwd"), Path("/proc/1/environ"), Path("/dev/mem")):
        assert not reads(given, path), path
    assert (os.path.realpath(tmp_path), LIST) in given


def test_what_is_hidden_is_left_out_of_what_lies_around_it(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "deep" / "cache").mkdir(parents=True)
    for name in ("code.py", "deep/more.py", "deep/cache/secret"):
        (package / name).touch()
    (package / "link").symlink_to(package / "deep" / "cache")
    given = grants([package], [], [str(package / "deep" / "cache")], [])
    assert reads(given, package / "code.py") and reads(given, package / "deep" / "more.py")
    assert not reads(given, package / "deep" / "cache" / "secret")
    assert (str(package), LIST) in given and (str(package / "link"), READ) not in given
    assert not reads(grants([package], [], [str(tmp_path)], []), package / "code.py")
    named = grants([package / "code.py"], [], [str(tmp_path)], [])
    assert reads(named, package / "code.py") and not reads(named, package / "deep" / "more.py")


def test_folders_that_are_searched_for_modules_are_no_ground_to_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project's folder is on the path where it is worked in, and so may be its data."""
    monkeypatch.syspath_prepend(str(tmp_path))
    interpreter.cache_clear()
    assert tmp_path not in interpreter()
    interpreter.cache_clear()


def test_the_file_of_a_module_is_found_without_running_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostile" / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/__init__.py", "inner/plugin.py"):
        (tmp_path / "hostile" / name).write_text("raise SystemExit('it was run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert module_file("hostile.inner.plugin") == tmp_path / "hostile" / "inner" / "plugin.py"
    assert module_file("hostile.none") is None and module_file("no_such_package.none") is None
    assert package_of("hostile.inner.plugin") == [tmp_path / "hostile"]
