"""ONNX Runtime Web: where its two files are found, and how they come into a page.

One build serves all browsers: it runs on the graphics card (WebGPU) and on the CPU (WebAssembly, with threads
where the page may have them). It is compressed, because it is larger than any slim generator and static
servers send files as they are; the page unpacks it.
"""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

from coronet_plugin.errors import OptionError

VERSION = "1.30.0"
"""Of the npm package onnxruntime-web that pages were tried with."""
SCRIPT, BINARY = "ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"
PACKED = f"{BINARY}.gz"
NOTICES = ("LICENSE.txt", "ThirdPartyNotices.txt")
ASSETS = Path(__file__).parent / "assets"
_IN_NPM = Path("node_modules") / "onnxruntime-web" / "dist"
_IN_CHECKOUT = Path(__file__).parents[2] / "docs" / "browser" / "runtime"


def find_runtime(given: Path | None = None) -> Path:
    """The folder with the runtime's files: below ``given``, or below here where npm installs it, or a page's.

    Raises:
        OptionError: they are not there.
    """
    places = [given, given / "dist", given / "runtime", given / _IN_NPM] if given else [_IN_NPM, _IN_CHECKOUT]
    for place in places:
        if (place / SCRIPT).is_file() and ((place / PACKED).is_file() or (place / BINARY).is_file()):
            return place
    where = f"in {given}" if given else "here"
    raise OptionError(
        f"there is no {SCRIPT} with {BINARY} {where}; run `npm install onnxruntime-web@{VERSION}`, or give "
        "--runtime the folder of such a package, or of another page"
    )


def copy_runtime(found: Path, folder: Path) -> None:
    """The runtime in ``found``, packed, and what its licence asks for, to the new ``folder``."""
    folder.mkdir()
    shutil.copyfile(found / SCRIPT, folder / SCRIPT)
    if (found / PACKED).is_file():
        shutil.copyfile(found / PACKED, folder / PACKED)
    else:
        (folder / PACKED).write_bytes(gzip.compress((found / BINARY).read_bytes(), mtime=0))
    for name in NOTICES:
        shutil.copyfile(ASSETS / "runtime" / name, folder / name)
