"""The picture of a report in the documentation, docs/report.png: its first screen, with the first verdict's card.

    leakbench run --protocol leakbench-v2-digits -d privatesnn,datafree,han2020 --out runs/picture
    python benchmarks/report_picture.py runs/picture

Needs chromium on the path.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

WIDTH, HEIGHT = 1200, 4000
"""CSS pixels of the window; what stays empty below is cut off"""
MARGIN = 24
MAX_BYTES = 400_000
STYLE = """
nav, .skip, main > section:not(#verdicts), article.card ~ article.card, .about { display: none; }
.page { display: block; max-width: none; }
main { padding: 1.2rem 1.6rem; }
"""


def screenshot(report: Path, folder: Path, browser: str) -> Image.Image:
    """The report in light colours, reduced by STYLE; its own policy forbids other styles, so the copy has none."""
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", report.read_text(encoding="utf-8"))
    copy, shot = folder / "report.html", folder / "report.png"
    copy.write_text(page.replace("</head>", f"<style>{STYLE}</style></head>", 1), encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
    ]
    command = [browser, *flags, f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}", copy.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(shot) as opened:
        return opened.convert("RGB")


def trimmed(picture: Image.Image) -> Image.Image:
    """Without what is empty below, but for a margin."""
    blank = Image.new("RGB", picture.size, picture.getpixel((0, picture.height - 1)))
    box = ImageChops.difference(picture, blank).getbbox()
    return picture.crop((0, 0, picture.width, min(picture.height, box[3] + MARGIN))) if box else picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--out", type=Path, default=Path("docs/report.png"))
    given = parser.parse_args()
    browser, report = shutil.which("chromium"), given.run / "report.html"
    if browser is None:
        sys.exit("report_picture: no chromium on the path")
    if not report.is_file():
        sys.exit(f"report_picture: {given.run} has no report.html")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        picture = trimmed(screenshot(report, Path(folder), browser))
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(given.out, optimize=True)
    size = given.out.stat().st_size
    print(f"{given.out}: {picture.width} x {picture.height}, {size:,} bytes")
    if size > MAX_BYTES:
        sys.exit(f"report_picture: more than {MAX_BYTES:,} bytes; leave out more of the report")


if __name__ == "__main__":
    main()
