"""The C++ that the examples for phones and boards share, compiled; and that their sources are complete."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

MOBILE = Path(__file__).resolve().parents[2] / "examples" / "mobile"
PROGRAM = """
#include "picture.h"
#include <cstdio>
int main(int, char **argv) try {
  Picture picture(argv[1]);
  write(argv[2], picture.planes.data(), picture.width, picture.height);
} catch (const std::exception &error) {
  std::fprintf(stderr, "%s\\n", error.what());
  return 2;
}
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_pictures_are_read_and_written_as_the_generators_take_them(tmp_path):
    (tmp_path / "main.cpp").write_text(PROGRAM)
    program = str(tmp_path / "copy")
    command = ["g++", "-std=c++17", "-O0", f"-I{MOBILE / 'cpp'}", str(tmp_path / "main.cpp"), "-o", program]
    subprocess.run(command, check=True)
    pixels = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3) * 4
    (tmp_path / "in.ppm").write_bytes(b"P6\n4 5\n255\n" + pixels.tobytes())
    subprocess.run([program, str(tmp_path / "in.ppm"), str(tmp_path / "out.ppm")], check=True)
    assert (tmp_path / "out.ppm").read_bytes() == (tmp_path / "in.ppm").read_bytes()
    (tmp_path / "short.ppm").write_bytes(b"P6\n4 5\n255\n" + pixels.tobytes()[:-1])
    for wrong, said in (("short.ppm", "ends too early"), ("main.cpp", "no PPM file")):
        done = subprocess.run([program, str(tmp_path / wrong), "x"], capture_output=True, text=True)
        assert done.returncode == 2 and said in done.stderr


def test_every_flavour_has_its_generator_and_the_readme_names_its_files():
    """The app is one; what runs the file differs, and is one class of the same name in each flavour."""
    android, text = MOBILE / "android" / "app", (MOBILE / "README.md").read_text()
    flavours = re.findall(r'create\("(\w+)"\)', (android / "build.gradle.kts").read_text())
    assert flavours == ["litert", "executorch", "ncnn"]
    for flavour in flavours:
        kotlin = (android / f"src/{flavour}/java/org/coronet/translate/Generator.kt").read_text()
        assert "fun run(planes: FloatArray, size: Int): FloatArray" in kotlin
        assert f"install{flavour.capitalize()}Debug" in text
        assert all(f"`{name}`" in text for name in re.findall(r'assetPath\("([\w.]+)"\)', kotlin))
