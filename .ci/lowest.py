"""Prints the lowest release of each hard dependency and test tool that pyproject.toml admits, as pip takes them.

PyTorch's two packages are left out: their old releases are gigabytes.
"""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
for line in project["dependencies"] + project["optional-dependencies"]["test"]:
    bound = re.fullmatch(r"([\w-]+) ?>= ?([\d.]+)", line)
    assert bound, line
    if bound[1] not in ("torch", "torchvision"):
        print(f"{bound[1]}=={bound[2]}")
