"""Writes docs/results/speed.md: the engine against its peers, over T, layer by layer, and a training step's memory.

    pip install -e '.[peers]'
    python benchmarks/speed_table.py

Runs engine.py, kernels.py and training_step.py one after the other; processor time is measured, so that other work on
the machine disturbs little.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import result_page


@dataclass(frozen=True)
class Part:
    """A heading, what stands below it, and the commands whose output follows."""

    heading: str
    about: str
    commands: tuple[str, ...]


_ENGINE = "engine.py --allocator tuned --rounds 3 --markdown"
PARTS = (
    Part(
        "Against other engines",
        "One simulation of the same network with the same weights, thresholds and input spikes; `engine.py` says how. "
        "Small: three convolutions at 28x28; vgg16: the paper's network at 32x32. `naive` is a plain loop over steps, "
        "`ann` the ANN on as many images.",
        (_ENGINE,),
    ),
    Part(
        "Over T",
        "Time grows linearly with T, and memory does not once a chunk is full.",
        (f"{_ENGINE} --network small --mode infer --mode train --contender leakbench --timesteps 8,16,32,64,128,256",),
    ),
    Part(
        "Layer by layer",
        "Dense convolutions against tiles (Winograd, for gradients) and listed spikes, in processor milliseconds; G/s "
        "are billions of multiply-accumulates (dense) or additions (listed) a second; `kernels.py` says how.",
        ("kernels.py",),
    ),
    Part(
        "A training step: memory and time",
        "One step of encryption training of VGG16 at 32x32, in parts of the batch and in chunks of time.",
        ("training_step.py", "training_step.py --whole", "training_step.py --ratio --batch 16"),
    ),
)


def main() -> None:
    parts = []
    for part in PARTS:
        texts = [_output(command) for command in part.commands]
        commands = "; ".join(f"`python benchmarks/{command}`" for command in part.commands)
        parts += [f"## {part.heading}", part.about, f"{commands}:", "\n\n".join(texts)]
    result_page.write(
        "speed.md",
        "Speed, measured",
        "One thread, medians of several rounds. [Speed](../speed.md) says how a simulation runs.",
        result_page.of_now("pip install -e '.[peers]'", "python benchmarks/speed_table.py"),
        *parts,
    )


def _output(command: str) -> str:
    """What the benchmark prints, without blanks at the ends of lines and with single empty lines."""
    script, *arguments = command.split()
    print(command, file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script)), *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = "\n".join(line.strip() for line in done.stdout.splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip()


if __name__ == "__main__":
    main()
