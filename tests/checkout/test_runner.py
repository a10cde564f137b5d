"""Running a host's script: as Python would, with the model type at hand, also in spawned workers."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from test_checkout import make_checkout

from coronet_plugin import __main__ as entry
from coronet_plugin.checkout import runner
from coronet_plugin.checkout.runner import MODULE, ModelTypeFinder, imresize, prepare, supply_imresize


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    """Undo what running a script changes in this process."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", [*sys.argv])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setenv(runner.SCRIPT_VARIABLE, "")
    monkeypatch.delenv("CORONET_DEBUG", raising=False)


def python(*words: object, cwd: Path) -> subprocess.CompletedProcess:
    """A new Python that can import the package."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env=env, capture_output=True, text=True, timeout=120
    )


SHOW = """
import json, os, sys
def annotated(x: int): pass
here = os.getcwd() in sys.path  # not what python -m puts there
print(json.dumps([sys.argv, sys.path[0], here, __name__, __file__, annotated.__annotations__["x"] is int]))
sys.exit(int(sys.argv[-1]))
"""


def test_a_script_sees_what_it_would_see_under_python(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "show.py").write_text(SHOW)
    words = ("folder/show.py", "--name", "a b", 3)
    plain, ours = python(*words, cwd=tmp_path), python("-m", "coronet_plugin", *words, cwd=tmp_path)
    assert json.loads(ours.stdout) == json.loads(plain.stdout)
    assert ours.returncode == plain.returncode == 3


WORKERS = """
import sys
from scipy.misc import imresize  # gone from scipy since long
from torch.utils.data import DataLoader, Dataset


class Pictures(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        import models

        return f"{models.find_model_using_name('coronet').__name__} {imresize.__name__} {__name__}"


if __name__ == "__main__":
    loader = DataLoader(Pictures(), num_workers=1, multiprocessing_context="spawn")
    print(*next(iter(loader)))
"""


def test_spawned_workers_find_the_model_type_and_the_stand_in(tmp_path):
    (make_checkout(tmp_path, "2019") / "train.py").write_text(WORKERS)
    done = python("-m", "coronet_plugin", "train.py", cwd=tmp_path)
    assert done.stdout.split() == ["CoronetModel", "imresize", "__mp_main__"], done.stderr
    assert done.stderr.count("stand-in") == 1


def test_a_clone_that_is_not_installed(tmp_path):
    text = "import importlib.util, sys; del sys.modules['coronet_plugin']; print(sys.path[0], importlib.util.find_spec('coronet_plugin'))"
    (tmp_path / "show.py").write_text(text)
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    words = [sys.executable, "-m", "coronet_plugin", str(tmp_path / "show.py")]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout.startswith(f"{tmp_path} ModuleSpec"), done.stderr


def test_the_finder_knows_one_name_and_is_asked_last(tmp_path, monkeypatch):
    prepare(tmp_path)
    prepare(tmp_path)
    assert [type(finder) for finder in sys.meta_path].count(ModelTypeFinder) == 1
    assert isinstance(sys.meta_path[-1], ModelTypeFinder)
    assert ModelTypeFinder().find_spec("models.coronet") is None
    assert importlib.util.find_spec(MODULE).origin == str(
        ROOT / "models" / "coronet_model.py"
    )  # a real file wins
    monkeypatch.setattr(sys.modules["models"], "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    importlib.invalidate_caches()
    assert isinstance(importlib.util.find_spec(MODULE).loader, ModelTypeFinder)


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "script.py"
    path.write_text(text)
    return str(path)


FAIL = "from coronet_plugin import BudgetError\nraise BudgetError('too small; take more')"


def test_a_users_error_is_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch):
    from coronet_plugin import BudgetError

    path, before = script(tmp_path, FAIL), sys.modules["__main__"]
    assert runner.main([path]) == 2
    assert capsys.readouterr().err == "coronet: too small; take more\n"
    assert sys.modules["__main__"] is before
    monkeypatch.setenv("CORONET_DEBUG", "1")
    with pytest.raises(BudgetError):
        runner.main([path])


def test_other_errors_and_exits_pass(tmp_path):
    with pytest.raises(ZeroDivisionError):
        runner.main([script(tmp_path, "1 / 0")])
    with pytest.raises(SystemExit) as left:
        runner.main([script(tmp_path, "raise SystemExit('bye')")])
    assert left.value.code == "bye"


def test_a_script_that_is_not_there(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert runner.main(["trian.py", "--name", "x"]) == 2
    error = capsys.readouterr().err
    assert "no trian.py in" in error and str(tmp_path) in error and len(error.splitlines()) == 1


PARSE = (
    "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--own')\nparser.parse_args()"
)


def test_help_shows_our_options_after_the_scripts(tmp_path, capsys, monkeypatch):
    make_checkout(tmp_path, "2022")
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(SystemExit) as left:
        runner.main([script(tmp_path, PARSE), "--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert out.index("--own") < out.index("with --model coronet") < out.index("--coronet_budget")


def test_help_is_the_scripts_own_where_ours_is_not_wanted(tmp_path, capsys, monkeypatch):
    path = script(tmp_path, PARSE)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(SystemExit):
        runner.main([path, "-h"])  # no host
    make_checkout(tmp_path, "2022")
    monkeypatch.setitem(sys.modules, MODULE, types.ModuleType(MODULE))
    with pytest.raises(SystemExit):
        runner.main([path, "-h"])  # the host has loaded the model type, and shows its options
    assert "--coronet_budget" not in capsys.readouterr().out


def test_all_but_scripts_are_the_command(capsys, tmp_path):
    with pytest.raises(SystemExit):
        entry.main(["--version"])
    assert "coronet-plugin" in capsys.readouterr().out
    assert entry.main([script(tmp_path, "print('ran')")]) == 0
    assert capsys.readouterr().out == "ran\n"


@pytest.mark.parametrize("age", ["2019", "2020"])
def test_the_stand_in_is_supplied_only_where_it_is_imported(tmp_path, monkeypatch, age):
    called = []
    monkeypatch.setattr(runner, "supply_imresize", lambda: called.append(age))
    prepare(make_checkout(tmp_path, age))
    assert called == (["2019"] if age == "2019" else [])


def modules(monkeypatch, scipy: object, misc: object) -> None:
    monkeypatch.setitem(sys.modules, "scipy", scipy)
    monkeypatch.setitem(sys.modules, "scipy.misc", misc)


def test_a_scipy_that_has_imresize_keeps_it(monkeypatch):
    misc = types.ModuleType("scipy.misc")
    misc.imresize = "theirs"
    modules(monkeypatch, types.ModuleType("scipy"), misc)
    assert not supply_imresize() and misc.imresize == "theirs"


def test_a_scipy_without_it_gets_it(monkeypatch):
    scipy, misc = types.ModuleType("scipy"), types.ModuleType("scipy.misc")
    modules(monkeypatch, scipy, misc)
    assert supply_imresize() and misc.imresize is imresize and scipy.misc is misc


def test_no_scipy_at_all(monkeypatch):
    modules(monkeypatch, None, None)  # both imports fail
    assert supply_imresize()
    from scipy.misc import imresize as found

    assert found is imresize
    assert importlib.util.find_spec("scipy") is not None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("scipy.no_such_part")


PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "shape"),
    [((10, 60), (10, 60)), (0.5, (10, 15)), (150, (30, 45)), (np.int64(50), (10, 15)), (1.0, (20, 30))],
)
def test_imresize_sizes_are_height_first_fraction_or_percent(size, shape):
    assert imresize(PICTURE, size).shape == (*shape, 3)
    assert imresize(PICTURE[..., 0], size).shape == shape


@pytest.mark.parametrize(
    ("interp", "method"), [("nearest", 0), ("bilinear", 2), ("bicubic", 3), ("cubic", 3), ("lanczos", 1)]
)
def test_imresize_is_pillows(interp, method):
    wanted = Image.fromarray(PICTURE).resize((60, 10), method)
    assert np.array_equal(imresize(PICTURE, (10, 60), interp=interp), np.array(wanted))


def test_imresize_stretches_other_numbers_to_bytes():
    ramp = np.linspace(-1, 1, 256).reshape(16, 16)
    assert np.array_equal(imresize(ramp, 1.0), np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert imresize(np.full((4, 4), 7.0), 1.0).max() == 0
    assert imresize(PICTURE, 1.0, mode="L").shape == (20, 30)
