"""docs/browser, made again: ``coronet page`` for the emoji model, with test outlines to start from.

    python scripts/make_browser_page.py openmoji_slim --dense openmoji_dense --epoch latest_average
    python scripts/try_browser.py docs/browser --screenshots docs/browser

The first argument is a run, its folder, or a weight file; options of ``coronet page`` go to it.
docs/browser.md says how the two were trained.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin.cli import main as coronet  # noqa: E402
from coronet_plugin.pictures.reading import halves, open_picture  # noqa: E402

PAGE = ROOT / "docs" / "browser"
TEST = ROOT / "datasets" / "openmoji" / "test"
OUTLINES = "1F604 1F335 1F98B 1F419 1F935-200D-2640-FE0F E0C8 2764-FE0F-200D-1F525 1F307 1F6CE 1FA99 E20B"
OUTLINES += " 1F33E"
TITLE = "Draw an emoji, and two pix2pix generators colour it"
CREDIT = (
    "Trained on emoji of OpenMoji (openmoji.org), CC BY-SA 4.0, which the examples are from as well; the "
    "models and pictures of this page are shared under the same licence."
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", metavar="RUN_OR_FILE", help="the slim model")
    parser.add_argument("--dense", metavar="RUN_OR_FILE", help="the dense one (default: its figures alone)")
    parser.add_argument("--note", default="", help="what else the page should say of them")
    parser.add_argument("--output", type=Path, default=PAGE, help="(default: docs/browser)")
    options, others = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        (work / "outlines").mkdir()
        for number, name in enumerate(OUTLINES.split()):
            pair = open_picture(TEST / f"{name}.png")
            halves(pair, name)[0].save(work / "outlines" / f"{number:02d}.png")
        words = ["page", options.weights, "--title", TITLE, "--credit", f"{CREDIT} {options.note}".strip()]
        words += ["--dense", options.dense] if options.dense else []
        words += ["--images", str(work / "outlines"), "--output", str(work / "page")]
        if code := coronet([*words, *others]):
            return code
        for part in ("models", "examples"):  # what an earlier page had
            shutil.rmtree(options.output / part, ignore_errors=True)
        shutil.copytree(work / "page", options.output, dirs_exist_ok=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
