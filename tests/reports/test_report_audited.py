"""The page of a run that audits a network: it says which, and calls it no defence."""

from __future__ import annotations

from pathlib import Path

from report_page import page
from report_samples import index, record, small, verdict

from leakbench.records import PluginInfo, RunRecord
from leakbench.reports.audited import LIMIT, audit_lines
from leakbench.reports.conclusion import settling

FILE = "network:/somewhere/networks/ab/privatesnn.safetensors"
DIGEST = "0123456789abcdef" * 4


def _audit(untrained: dict[str, str]) -> RunRecord:
    params = {"privatesnn": {"sha256": DIGEST}, "random": untrained}
    cells = [
        one.model_copy(update={"defense_params": params.get(one.defense, {}), "timesteps": 16}) for one in small().cells
    ]
    about = PluginInfo(kind="defense", name="privatesnn", version=1, summary="As it is deployed: 2 layers.")
    grid = {"defense": [FILE], "attack": ["auto"], "seeds": 1}
    return small().model_copy(update={"cells": cells, "plugins": [about], "grid": grid})


def test_the_first_screen_says_what_was_audited_and_what_one_network_can_show(tmp_path: Path) -> None:
    made = _audit({"sha256": DIGEST})
    of_it = "Controls: an ANN; the network with the weights of each layer in random order."
    audited = "Audited: privatesnn.safetensors, sha256 0123456789abcdef, T = 16. As it is deployed: 2 layers."
    assert audit_lines(made) == [audited, of_it, LIMIT]
    assert audit_lines(_audit({}))[1] == "Controls: an ANN; an untrained network."
    text = page(made, tmp_path).text
    assert all(line in text[: text.index("leakage index compares")] for line in audit_lines(made))
    assert audit_lines(small()) == [] and "Audited" not in page(small(), tmp_path).text


def test_its_rows_are_networks(tmp_path: Path) -> None:
    text = page(_audit({}), tmp_path).text
    for said, not_said in (
        ("A network that resists", "A defence that resists"),
        ("on every network", "on every defence"),
        ("Network inversion", "Defence inversion"),
        ("Grid Networks", "Grid Defences"),
    ):
        assert said in text and not_said not in text
        assert not_said in page(small(), tmp_path).text


def test_no_command_gives_one_file_more_seeds() -> None:
    made = _audit({}).model_copy(update={"command": "leakbench audit --snn net.nir -a direct"})
    grid = {**made.grid, "attack": ["direct"]}
    made = made.model_copy(update={"grid": grid})
    one = verdict("privatesnn", index=index(0.7), settle="--attack auto --seeds 4")
    assert settling(made, one) == "leakbench audit --snn net.nir --attack direct,auto"
    assert settling(made, one.model_copy(update={"settle": "--seeds 4"})) == ""
    assert settling(record([]), one).endswith("--seeds 4")
    ann = {"defense": ["privatesnn"], "attack": ["direct"], "ann": "mine.safetensors"}
    run = "leakbench run --ann mine.safetensors -d privatesnn -a direct"
    made = record([], command=run).model_copy(update={"grid": ann})
    assert settling(made, one) == "leakbench run --ann mine.safetensors -d privatesnn --attack direct,auto"


def test_a_module_is_audited_too() -> None:
    made = _audit({})
    named = 'module:{"forward":"step"} of nets/mine.py:build'
    lines = audit_lines(made.model_copy(update={"grid": {**made.grid, "defense": [named]}}))
    assert lines[0].startswith("Audited: mine.py:build, sha256 0123456789abcdef")
