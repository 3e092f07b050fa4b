"""``python -m leakbench``."""

from leakbench.cli import main

main()
