"""What audits say of networks that were trained in other frameworks, each read as a module and as a NIR file.

Needs the frameworks (`make test-frameworks` installs them into .venv-frameworks), what the examples write, and the
audits of both in runs/audit/NAME-module and runs/audit/NAME-nir.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from result_page import of_runs, table, write

from leakbench import registry
from leakbench.data import load_dataset
from leakbench.records import CellRecord, RunRecord
from leakbench.reports.audited import LIMIT
from leakbench.reports.conclusion import p_text
from leakbench.reports.files import read_record
from leakbench.reports.vocabulary import index_text
from leakbench.session.audits import read_any
from leakbench.snn import SpikingNetwork

FRAMEWORKS = {"spikingjelly": "SpikingJelly", "snntorch": "snnTorch", "norse": "Norse", "sinabs": "sinabs"}
EXAMPLES, RUNS = Path("examples/audit"), Path("runs/audit")
_ABOUT = """\
A small convolutional network of each framework (`examples/audit`), trained on the digits and
audited as [Audit your network](../audit.md) has it: once as a module, once as the NIR file that its framework wrote."""


def compared(framework: str) -> list[str]:
    """The framework's accuracy, and how far the logits of both readings are from its own on the same input spikes."""
    script = EXAMPLES / f"{framework}_digits.py"
    module, data = registry.from_file(f"{script}:build")().eval(), load_dataset("digits")
    steps, run = (registry.from_file(f"{script}:{name}") for name in ("STEPS", "run"))
    images, generator = data.test.images / 255, torch.Generator().manual_seed(1)
    encoded = (torch.rand(steps, *images.shape, generator=generator) < images).float()
    with torch.no_grad():
        theirs = run(module, encoded)
    differences = []
    for snn, settings in ((f"{script}:build", RUNS / "module.json"), (str(RUNS / f"{framework}_digits.nir"), None)):
        network = read_any(snn, settings, "digits", None)
        assert isinstance(network, SpikingNetwork)
        differences.append(f"{float((network.respond(encoded).logits - theirs).abs().max()):.1g}")
    right = float((theirs.argmax(1) == data.test.labels).float().mean())
    return [f"{right:.3f}".lstrip("0"), *differences]


def _audited(record: RunRecord) -> CellRecord:
    return next(cell for cell in record.cells if not cell.control and cell.defense and not cell.attack)


def _rows(framework: str, by: str, record: RunRecord) -> list[str]:
    cell, (verdict,) = _audited(record), record.verdicts
    (accuracy,) = (value for value in cell.values if value.metric == "accuracy")
    worst = {row.defense: row for row in record.rows if row.attack == verdict.attack}
    controls = [
        index_text(next(iter(worst[name].indices), None)) if name in worst else "–" for name in ("ann", "random")
    ]
    share = f"{accuracy.value:.3f}".lstrip("0")
    p = p_text(verdict.p) if verdict.p is not None else "–"
    digest = str(cell.defense_params["sha256"])[:8]
    found = [verdict.outcome, p, verdict.attack, index_text(verdict.index)]
    return [FRAMEWORKS[framework], {"nir": "NIR"}.get(by, by), f"`{digest}`", share, *found, *controls]


def main() -> None:
    """Write docs/results/framework-audits.md."""
    folders = {(name, by): RUNS / f"{name}-{by}" for name in FRAMEWORKS for by in ("module", "nir")}
    records = {key: read_record(folder) for key, folder in folders.items()}
    measurement = of_runs(
        {str(folders[key]): record for key, record in records.items()}, "python benchmarks/framework_audits.py"
    )
    trained = [f"python {EXAMPLES / name}_digits.py" for name in FRAMEWORKS]
    measurement = replace(measurement, commands=[*trained, *measurement.commands])
    readings = table(
        ("framework", "accuracy there", "largest difference of logits, module", "NIR"),
        [[title, *compared(name)] for name, title in FRAMEWORKS.items()],
    )
    audits = table(
        (
            "framework", "read as", "sha256", "accuracy here", "outcome", "that no class leaks", "worst case", "index",
            "ANN", "untrained",
        ),
        [_rows(name, by, record) for (name, by), record in records.items()],
    )  # fmt: skip
    write(
        "framework-audits.md", "Audits of networks trained in four frameworks", _ABOUT, measurement,
        "## The same network\n\nLogits are sums of spikes over T = 16; both got the same input spikes of the 360 test "
        "images.",
        readings,
        "## The audits\n\nAccuracy here is by LeakBench's own noise. ANN and untrained: the index of the worst case's "
        "attack on these controls. Where both readings have one sha256, they are one network, which was attacked once: "
        "the second audit found everything in the store. Norse writes time constants as float32 quotients, so that the "
        "leaks of its file are rounded, and its file and its module are two networks to the store.",
        audits,
        LIMIT,
    )  # fmt: skip


if __name__ == "__main__":
    main()
