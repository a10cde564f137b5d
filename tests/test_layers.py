"""The plan of the house: which room may use which, no circles, one of each; and how docstrings begin.

Imports inside functions and for type checking alone count as well. What is loaded by name
(:func:`importlib.import_module`), such as the targets of export, is not seen.
"""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

import coronet_plugin

PACKAGE = "coronet_plugin"
FACADE = ""
"""The package itself, from which users import and no module does."""
LAYERS = (
    # From top to bottom: what stands in a layer uses those below it, and not its neighbours.
    {FACADE, "__main__", "model"},
    {"cli"},
    {"checkout", "sweep", "benchmark", "page"},
    {"comparison", "packing", "translation", "sampling"},
    {"inspection", "export"},
    {"standalone"},
    {"evaluation"},
    {"training"},
    {"compression"},
    {"runs"},
    {"pictures", "methods"},
    {"checkpoint", "command"},
    {"generators"},
    {"budget"},
    {"measure"},
    {"channels"},
    {"distributed", "drawing", "fake_quantization", "files", "interruption"},
    {"settings", "sizes", "user_code", "versions", "wrappers"},
    {"errors", "_version"},
)


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """By module, all modules of the package that it imports."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def room(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def test_every_room_has_its_place(imports):
    placed = [name for layer in LAYERS for name in layer]
    assert len(placed) == len(set(placed)) and {room(module) for module in imports} == set(placed)


def test_no_arrow_points_back(imports):
    depth = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    back = {
        (module, used)
        for module, found in imports.items()
        for used in found
        if room(used) != room(module) and depth[room(used)] <= depth[room(module)]
    }
    assert not back


def test_there_is_no_circle_of_modules(imports):
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, which names the modules


ONE_OF_EACH = {
    "InferenceSession(": "measure/onnx.py",
    "torch.onnx.export(": "measure/onnx.py",
    "process_time(": "measure/timing.py",
    "VmHWM": "measure/memory.py",
    "/proc/cpuinfo": "measure/machine.py",
    "metadata.version(": "versions.py",
    "counted.positions": "channels/plan.py",
}
"""Tools by what only they contain, and the one module that is theirs."""
TRAVELS = "benchmark/time_table.py"
"""A script that is copied to devices and runs there without the package: it has its own of each."""


@pytest.mark.parametrize(("text", "home"), ONE_OF_EACH.items(), ids=ONE_OF_EACH.values())
def test_there_is_one_of_each(text, home):
    root = Path(coronet_plugin.__file__).parent
    found = {
        file.relative_to(root).as_posix() for file in root.rglob("*.py") if text in file.read_text("utf-8")
    }
    assert found - {TRAVELS} == {home}


def docstrings() -> Iterator[tuple[str, str]]:
    """Place and text of every docstring of the package, those of attributes among them."""
    root = Path(coronet_plugin.__file__).parent
    for file in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                yield f"{file.relative_to(root)}:{node.lineno}", str(node.value.value)


def test_docstrings_begin_with_the_thing_itself():
    """'Give the inputs', 'Cost of the generator'; not 'What it takes', 'What it costs'."""
    found = dict(docstrings())
    assert len(found) > 500
    assert not [place for place, text in found.items() if text.lstrip().startswith("What ")]
