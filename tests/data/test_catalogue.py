from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from platformdirs import user_data_path

from leakbench.data import availability, dataset_names, default_data_folder, load_dataset
from leakbench.errors import UnknownName, UsageError
from leakbench.paths import default_cache, default_local_cache


def test_the_names() -> None:
    assert dataset_names() == ("digits", "fashion-mnist", "mnist", "faces", "cifar10", "cifar100", "tinyimagenet")


@pytest.mark.parametrize(("given", "near"), [("cifar-10", "cifar10"), ("mnits", "mnist"), ("folder", "folder:PATH")])
def test_an_unknown_name_gets_the_nearest_one(given: str, near: str) -> None:
    with pytest.raises(UnknownName, match=f"unknown dataset '{given}': did you mean '{near}'") as caught:
        load_dataset(given)
    for name in (*dataset_names(), "folder:PATH"):
        assert name in str(caught.value)


def test_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKBENCH_DATA", str(tmp_path / "mine"))
    assert default_data_folder() == tmp_path / "mine"
    monkeypatch.setenv("LEAKBENCH_DATA", "~/mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_data_folder() == tmp_path / "mine"
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("LEAKBENCH_DATA")
        else:
            monkeypatch.setenv("LEAKBENCH_DATA", unset)
        assert default_data_folder() == user_data_path("leakbench") / "datasets"


@pytest.mark.parametrize(
    ("variable", "folder"),
    [
        ("LEAKBENCH_DATA", default_data_folder),
        ("LEAKBENCH_CACHE", default_cache),
        ("LEAKBENCH_LOCAL_CACHE", default_local_cache),
    ],
)
def test_a_folder_of_no_known_user_is_refused(
    variable: str, folder: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "~no such user/x")
    with pytest.raises(UsageError, match=rf"^\${variable}: '~no such user/x' can't be used: .+$"):
        folder()


def test_availability_of_an_empty_folder(tmp_path: Path) -> None:
    found = {entry.name: entry for entry in availability(tmp_path / "none")}
    assert tuple(found) == dataset_names()
    assert found["digits"].available
    for name in ("mnist", "faces", "cifar10", "cifar100", "tinyimagenet"):
        assert not found[name].available
        assert str(tmp_path / "none") in found[name].detail
        assert "\n" not in found[name].detail
    assert not (tmp_path / "none").exists()


def test_availability_looks_into_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKBENCH_DATA", str(tmp_path))
    (tmp_path / "cifar-10-binary.tar.gz").touch()
    (tmp_path / "faces.tar").touch()
    found = {entry.name: entry.available for entry in availability()}
    assert found["cifar10"] and found["faces"]
    assert not found["cifar100"]


@pytest.mark.slow
def test_listing_imports_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys; from leakbench.data import availability, dataset_names; availability(); "
        "print([name for name in ('torch', 'torchvision', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
