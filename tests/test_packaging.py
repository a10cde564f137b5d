"""The pip package: what is in it, that it installs beside anything, and that it leaves nothing behind."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from coronet_plugin import __version__

ROOT = Path(__file__).parent.parent
pytest.importorskip("setuptools", reason="the package is built with it")


def run(*words, **more):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The tracked files alone, so that a build leaves nothing in the working tree."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY_NOTICES.md"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    for path in ROOT.glob("coronet_plugin/**/*"):
        if path.is_file() and "__pycache__" not in path.parts:
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    for host in ("models", "options", "data", "util"):
        (folder / host).mkdir()
        (folder / host / "__init__.py").write_text("")
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", out, source)
    return next(out.glob("*.whl"))


def test_wheel_holds_the_package_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    info = f"coronet_plugin-{__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"coronet_plugin", info}
    modules = {str(path.relative_to(ROOT)) for path in ROOT.glob("coronet_plugin/**/*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    assert "coronet_plugin/py.typed" in names
    assets = {str(path.relative_to(ROOT)) for path in ROOT.glob("coronet_plugin/page/assets/**/*.*")}
    assert assets and assets <= set(names)
    licences = [Path(name).name for name in names if name.startswith(info)]
    assert "LICENSE" in licences and "THIRD_PARTY_NOTICES.md" in licences


def test_sdist_builds_the_same_wheel(source, wheel, tmp_path):
    """Whoever builds from the source archive gets the same files."""
    run(sys.executable, "setup.py", "-q", "sdist", "-d", tmp_path, cwd=source)
    archive = next(tmp_path.glob("*.tar.gz"))
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path)
    folder = next(path for path in tmp_path.iterdir() if path.is_dir())
    words = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path, folder]
    run(sys.executable, *words)
    rebuilt = zipfile.ZipFile(next(tmp_path.glob("*.whl")))
    kept = zipfile.ZipFile(wheel)
    assert sorted(rebuilt.namelist()) == sorted(kept.namelist())
    for name in kept.namelist():
        if name.startswith("coronet_plugin/"):
            assert rebuilt.read(name) == kept.read(name), name


def test_install_and_uninstall_in_an_environment_of_its_own(wheel, tmp_path):
    """``coronet --version`` works, with torch and NumPy lent; uninstalling leaves what was there before."""
    run(sys.executable, "-m", "venv", tmp_path / "env")
    python = next((tmp_path / "env").glob("*/python"))

    def files():
        return {p for p in (tmp_path / "env").rglob("*") if p.is_file() and p.suffix != ".pyc"}

    before = files()
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--ignore-installed", wheel)
    lent = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(Path(torch.__file__).parents[1])}}
    assert run(python.parent / "coronet", "--version", **lent) == f"coronet-plugin {__version__}\n"
    where = run(python, "-c", "import coronet_plugin; print(coronet_plugin.__file__)", **lent)
    assert str(tmp_path) in where
    run(python, "-m", "pip", "uninstall", "-q", "-y", "coronet-plugin")
    assert files() == before


def test_versions_agree():
    """The version stands in one place of the code; the citation and the changelog repeat it."""
    assert re.search(rf"^version: {re.escape(__version__)}$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
