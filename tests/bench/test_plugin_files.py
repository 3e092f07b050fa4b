"""Plugins of files and of Python: their code is in the keys, and what they share is whoever's asks first."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from tiny_runs import (
    OURS,
    Warm,
    cell_of,
    copied,
    numbers,
    run_here,
)

from leakbench import registry
from leakbench.records import RunRecord


@pytest.mark.slow
def test_the_code_of_a_plugin_file_is_in_the_key(warm: Warm, tmp_path: Path) -> None:
    """An author who edits a file and runs it again must not be shown what the old code made."""
    cache, plugin = warm.grown, tmp_path / "grey.py"
    seen = []
    for brightness in (0.2, 0.8):
        plugin.write_text(
            "import torch\n"
            "from leakbench.contracts import Access, Attack, Params\n"
            "class Grey(Attack[Params]):\n"
            '    """Grey images."""\n'
            '    name = "grey"\n'
            "    needs = Access.LABELS\n"
            "    def run(self, victim, targets, context):\n"
            f"        return torch.full((len(targets), *victim.image_shape), {brightness})\n",
            encoding="utf-8",
        )
        out = tmp_path / f"run-{brightness}"
        options = warm.tiny.options(attack=[f"{plugin}:Grey"], controls=False, set={f"{OURS}.images": ["16"]})
        record = run_here(options, cache, out)
        with Image.open(out / cell_of(record, OURS, "grey").pictures[0].path) as image:
            seen.append(image.getpixel((0, 0)))
    assert seen == [51, 204]


GREYS = '''
import torch
from leakbench.contracts import Access, Attack, Params


class Dark(Attack[Params]):
    """Grey images."""

    name = "grey"
    needs = Access.LABELS
    brightness = 0.2

    def run(self, victim, targets, context):
        return torch.full((len(targets), *victim.image_shape), self.brightness)


class Light(Dark):
    brightness = 0.8


class Edited(Dark):
    name = "edited"

    def run(self, victim, targets, context):
        with open(__file__, "a") as file:
            file.write("\\n")
        return super().run(victim, targets, context)


class Shares(Dark):
    name = "shares"
    uses_public = True

    def run(self, victim, targets, context):
        shared = context.shared("draw", 1, {}, lambda own: {"draw": torch.rand(1)})["draw"]
        context.finding("shared", float(shared))
        context.finding("own", float(torch.rand(1)))
        return super().run(victim, targets, context)


class Surrogate(Dark):
    name = "surrogate"

    def run(self, victim, targets, context):
        raise OSError("no file \\udcff")
'''


@pytest.mark.slow
def test_two_classes_of_one_file_and_name_are_two_attacks(warm: Warm, tmp_path: Path) -> None:
    """A variant that inherits its name, too, must not be shown what the other class made."""
    plugin = tmp_path / "greys.py"
    plugin.write_text(GREYS, encoding="utf-8")
    seen = []
    for name in ("Dark", "Light"):
        options = warm.tiny.options(attack=[f"{plugin}:{name}"], controls=False, set={f"{OURS}.images": ["16"]})
        record = run_here(options, warm.grown, tmp_path / name)
        with Image.open(tmp_path / name / cell_of(record, OURS, "grey").pictures[0].path) as image:
            seen.append(image.getpixel((0, 0)))
    assert seen == [51, 204]


@pytest.mark.slow
def test_a_plugin_that_is_edited_under_way_is_not_kept_as_what_it_was(warm: Warm, tmp_path: Path) -> None:
    plugin = tmp_path / "greys.py"
    plugin.write_text(GREYS, encoding="utf-8")
    options = warm.tiny.options(defense=["ann", "han2020"], attack=[f"{plugin}:Edited"], controls=False, set={})
    record = run_here(options, warm.grown, tmp_path / "run")
    assert cell_of(record, "ann", "edited").status == "ok"
    late = cell_of(record, "han2020", "edited")
    assert late.status == "failed"
    assert "was edited while the run was under way" in late.reason


@pytest.mark.long
@pytest.mark.slow
def test_what_is_shared_does_not_depend_on_who_asks_first(warm: Warm, tmp_path: Path) -> None:
    """Layers of torch draw their weights from the global generator."""
    plugin = tmp_path / "greys.py"
    plugin.write_text(GREYS, encoding="utf-8")
    found = []
    for order in (["ann", "random"], ["random", "ann"]):
        cache = copied(warm.cache, tmp_path / f"cache-{order[0]}")
        options = warm.tiny.options(defense=order, attack=[f"{plugin}:Shares"], controls=False, set={})
        record = run_here(options, cache, tmp_path / order[0])
        cells = {name: cell_of(record, name, "shares").findings for name in order}
        assert all(len(findings) == 2 for findings in cells.values())
        found.append(cells)
    assert found[0] == found[1]


@pytest.mark.slow
def test_words_that_utf8_cannot_hold_are_recorded_as_escapes(warm: Warm, tmp_path: Path) -> None:
    plugin = tmp_path / "greys.py"
    plugin.write_text(GREYS, encoding="utf-8")
    options = warm.tiny.options(defense=["ann"], attack=[f"{plugin}:Surrogate"], controls=False, set={})
    run_here(options, warm.grown, tmp_path / "run")
    record = RunRecord.model_validate_json((tmp_path / "run" / "results.json").read_bytes())
    assert cell_of(record, "ann", "surrogate").reason == "OSError: no file \\udcff"


@pytest.mark.slow
def test_a_plugin_registered_from_python_runs(warm: Warm, tmp_path: Path) -> None:
    registry.register("attack", "mine", registry.load("attack", f"{warm.tiny.gated}:Gated"))
    options = warm.tiny.options(attack=["mine"], controls=False, set={f"{OURS}.images": ["16"]})
    record = run_here(options, warm.grown, tmp_path / "run")
    cell, of_the_file = cell_of(record, OURS, "gated"), cell_of(warm.record, OURS, "gated")  # named by the class
    assert (cell.status, cell.artifacts["victim"]) == ("ok", of_the_file.artifacts["victim"])
    # of the same source, and still another plugin: where it is from is part of the key
    assert cell.artifacts["images"] != of_the_file.artifacts["images"]
    assert numbers(record, OURS).keys() < numbers(warm.record).keys()
