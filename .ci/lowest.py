"""Prints the lowest release of each hard dependency and test tool that pyproject.toml admits, as pip takes them.

PyTorch's two packages are left out: their old releases are gigabytes.
"""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
for line in project["dependencies"] + project["optional-dependencies"]["test"]:
    requirement = Requirement(line)
    (bound,) = requirement.specifier
    assert bound.operator == ">=", line
    if requirement.name not in ("torch", "torchvision"):
        print(f"{requirement.name}=={bound.version}")
