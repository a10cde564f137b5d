"""Reading the sources of a checkout without importing them: options, model types, needed packages.

What is literal in the sources is found; what they compute is not. A file that cannot be
parsed counts as empty and is noted in :attr:`Sources.unreadable`.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

FOLDERS = ("", "data", "models", "options", "util", "utils")
Definition = Union[ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef]


@dataclass(frozen=True)
class ModelType:
    """A file ``models/NAME_model.py``, as far as it can be told without running it."""

    name: str
    problem: str = ""
    """Why ``--model NAME`` cannot work; empty if it can."""
    networks: tuple[str, ...] = ()
    """The literal entries of ``model_names``, such as G_A."""
    trains: bool = False
    """Whether it has optimizers; upstream's ``test`` has none."""
    architecture: str = ""
    """The generator its option setter chooses, by its name for ``--netG``."""

    @property
    def generators(self) -> tuple[str, ...]:
        """The networks that are compressed if the user names none."""
        return tuple(name for name in self.networks if name.startswith("G"))

    @property
    def compressible(self) -> bool:
        """True if ``--coronet_base NAME`` finds something to compress."""
        return not self.problem and self.trains and bool(self.generators)


class Sources:
    """The Python files of a checkout, parsed when asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.unreadable: dict[str, str] = {}
        self._trees: dict[str, ast.Module] = {}

    def tree(self, path: str) -> ast.Module:
        """The file ``path`` (with ``/``, from the root); empty if it is missing or cannot be parsed."""
        if path not in self._trees:
            self._trees[path] = self._parse(path)
        return self._trees[path]

    def _parse(self, path: str) -> ast.Module:
        file = self.root / path
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # old string escapes
                return ast.parse(file.read_bytes() if file.is_file() else b"")
        except (SyntaxError, ValueError, OSError) as error:
            line = getattr(error, "lineno", None)
            self.unreadable[path] = f"line {line}" if line else str(error)
            return ast.Module([], [])

    def base_model(self) -> ast.ClassDef | None:
        """The class BaseModel."""
        found = names_of(self.tree("models/base_model.py")).get("BaseModel")
        return found if isinstance(found, ast.ClassDef) else None

    def options(self) -> dict[str, Any]:
        """Names (without dashes) and literal defaults of the options declared in ``options/``."""
        found: dict[str, Any] = {}
        for file in sorted((self.root / "options").glob("*.py")):
            for call in _declarations(self.tree(f"options/{file.name}")):
                default = next((k.value for k in call.keywords if k.arg == "default"), None)
                for name in filter(None, map(_literal, call.args)):
                    if str(name).startswith("--"):
                        found.setdefault(name[2:], _literal(default))
        return found

    def model_types(self) -> tuple[ModelType, ...]:
        """Every ``models/NAME_model.py`` but ``base`` and ``coronet``."""
        files = sorted((self.root / "models").glob("*.py"))
        trees = {file.stem: self.tree(f"models/{file.name}") for file in files}
        classes = {c.name: c for tree in trees.values() for c in tree.body if isinstance(c, ast.ClassDef)}
        names = [stem[: -len("_model")] for stem in trees if stem.endswith("_model")]
        return tuple(
            self._model_type(name, trees[f"{name}_model"], classes)
            for name in names
            if name not in ("base", "coronet")
        )

    def _model_type(self, name: str, tree: ast.Module, classes: dict[str, ast.ClassDef]) -> ModelType:
        file, wanted = f"models/{name}_model.py", name.replace("_", "").lower() + "model"
        if file in self.unreadable:
            return ModelType(name, f"{file} cannot be parsed: {self.unreadable[file]}")
        at_top = {**{own: own for own in names_of(tree)}, **_bound(tree)}
        here = [origin for bound, origin in at_top.items() if bound.lower() == wanted]
        if not here:
            return ModelType(name, f"{file} has no class of the name {wanted} (in any case of letters)")
        line = _lineage(here[-1], classes)
        if not line:
            told = here[-1] in classes and not classes[here[-1]].bases  # otherwise made or derived elsewhere
            return ModelType(name, f"{here[-1]} in {file} is not a subclass of BaseModel" if told else "")
        return ModelType(
            name,
            problem=_takes_no_data(line[0], self.base_model()),
            networks=next((n for n in map(_networks, line) if n), ()),
            trains=any("optimizers" in assigned_in(c) | _owners(c) for c in line),
            architecture=next((a for a in map(_architecture, line) if a), ""),
        )

    def required(self, *scripts: str) -> frozenset[str]:
        """Packages from outside the checkout that ``scripts`` import without condition, directly or not."""
        outside, seen, left = set(), set(), list(scripts)
        while left:
            path = left.pop()
            if path in seen:
                continue
            seen.add(path)
            for module in _imported(self.tree(path), path):
                left += self._files(module)
                top = module.split(".")[0]
                if not self._files(top) and not any((self.root / top).glob("*.py")):
                    outside.add(top)
        return frozenset(outside)

    def _files(self, module: str) -> list[str]:
        """The files of the checkout that importing ``module`` runs."""
        parts = module.split(".")
        names = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        files = [file for name in names for file in (f"{name}.py", f"{name}/__init__.py")]
        return [file for file in files if (self.root / file).is_file()]


def names_of(node: ast.Module | ast.ClassDef | None) -> dict[str, Definition]:
    """The functions and classes defined directly in ``node``."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {n.name: n for n in (node.body if node else ()) if isinstance(n, kinds)}


def called_in(tree: ast.AST, of: str = "") -> set[str]:
    """Names of the methods called in ``tree``; with ``of``, only those of the variable ``of``."""
    functions = (n.func for n in ast.walk(tree) if isinstance(n, ast.Call))
    return {
        f.attr
        for f in functions
        if isinstance(f, ast.Attribute) and (not of or (isinstance(f.value, ast.Name) and f.value.id == of))
    }


def assigned_in(tree: ast.AST) -> set[str]:
    """Names of the attributes assigned in ``tree``."""
    nodes = ast.walk(tree)
    return {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}


def mentions_imresize(root: Path) -> bool:
    """True if a script in ``root``, or a file of the packages upstream has, uses ``scipy.misc.imresize``."""
    for file in (file for folder in FOLDERS for file in (root / folder).glob("*.py")):
        text = file.read_bytes() if file.is_file() else b""
        if re.search(rb"\bscipy\b", text) and re.search(rb"\bimresize\b", text):
            return True
    return False


def _calls(tree: ast.AST, method: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method:
            yield node


def _declarations(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls such as ``parser.add_argument("--name", default=...)``, by whatever name."""
    calls = (n for n in ast.walk(tree) if isinstance(n, ast.Call) and n.args and n.keywords)
    return (call for call in calls if str(_literal(call.args[0])).startswith("-"))


def _literal(node: ast.expr | None) -> Any:
    try:
        return None if node is None else ast.literal_eval(node)
    except (ValueError, TypeError):
        return None


def _bound(tree: ast.Module) -> dict[str, str]:
    """Names bound at the top of a module by importing or assigning, and what they are bound to."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            found.update({alias.asname or alias.name: alias.name for alias in node.names})
        elif isinstance(node, ast.Assign):
            found.update({t.id: t.id for t in node.targets if isinstance(t, ast.Name)})
    return found


def _lineage(
    name: str, classes: dict[str, ast.ClassDef], seen: frozenset[str] = frozenset()
) -> list[ast.ClassDef]:
    """The class and its ancestors below BaseModel, nearest first; empty if BaseModel is not among them."""
    if name not in classes or name in seen:
        return []
    for base in classes[name].bases:
        parent = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
        if parent == "BaseModel":
            return [classes[name]]
        above = _lineage(parent, classes, seen | {name})
        if above:
            return [classes[name], *above]
    return []


def _takes_no_data(model: ast.ClassDef, base: ast.ClassDef | None) -> str:
    """CUT's cycle_gan: the scripts pass data to a method that takes none."""
    method = "data_dependent_initialize"
    own = names_of(model).get(method)
    if method not in names_of(base) or not isinstance(own, ast.FunctionDef):
        return ""
    takes = len(own.args.args) > 1 or own.args.vararg
    return "" if takes else f"broken in this checkout itself: its {method} takes no data, but is given some"


def _owners(tree: ast.AST) -> set[str]:
    """Attributes of which an attribute is used, such as ``optimizers`` in ``self.optimizers.append``."""
    values = (n.value for n in ast.walk(tree) if isinstance(n, ast.Attribute))
    return {value.attr for value in values if isinstance(value, ast.Attribute)}


def _networks(model: ast.ClassDef) -> tuple[str, ...]:
    """The strings put into ``model_names``, in their order."""
    found: dict[str, None] = {}
    for node in ast.walk(model):
        if isinstance(node, ast.Assign):
            targets: list[ast.expr] = node.targets
        elif isinstance(node, ast.AugAssign):
            targets = [node.target]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            targets = [node.func.value]
        else:
            continue
        if any(isinstance(t, ast.Attribute) and t.attr == "model_names" for t in targets):
            values = node.args if isinstance(node, ast.Call) else [node.value]
            constants = (c.value for v in values for c in ast.walk(v) if isinstance(c, ast.Constant))
            found.update({c: None for c in constants if isinstance(c, str)})
    return tuple(found)


def _architecture(model: ast.ClassDef) -> str:
    given = (k for call in _calls(model, "set_defaults") for k in call.keywords)
    return next((str(_literal(k.value)) for k in given if k.arg in ("netG", "which_model_netG")), "")


def _imported(tree: ast.Module, path: str) -> Iterator[str]:
    """Modules the file imports at its top level, outside of ``try`` and functions, with dots."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = path.split("/")[: -node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ([module] if module else [])
            yield from (f"{module}.{alias.name}".lstrip(".") for alias in node.names if alias.name != "*")
