"""Execute ``notebooks/coronet.ipynb`` from top to bottom and keep its output, so that it reads anywhere.

``python scripts/run_notebook.py`` with the extra ``notebook`` installed. Settings can be changed for one
execution, such as ``EPOCHS=1``; then the notebook is written where ``--output`` says, by default nowhere.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks/coronet.ipynb"


def execute(settings: Mapping[str, str], folder: Path = NOTEBOOK.parent) -> Any:
    """The executed notebook; ``settings``: Python text by name, put after its own.

    Raises what a cell does.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    own = notebook.cells[place].source
    notebook.cells[place].source = "\n".join([own, *(f"{key} = {value}" for key, value in settings.items())])
    place_of_kernel = {"metadata": {"path": str(folder)}}
    options = {"timeout": None, "record_timing": False, "coalesce_streams": True}
    NotebookClient(notebook, resources=place_of_kernel, **options).execute()
    notebook.cells[place].source = own
    return notebook


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="such as EPOCHS=1")
    parser.add_argument("--output", type=Path, help="where to write it")
    options = parser.parse_args(argv)
    settings = dict(text.split("=", 1) for text in options.settings)
    began = time.monotonic()
    notebook = execute(settings)
    output = options.output or (None if settings else NOTEBOOK)
    if output:
        nbformat.write(notebook, output)
    print(f"{time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
