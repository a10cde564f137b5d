"""Checkouts of upstream on disk: which version one is, and the files put into it.

A checkout is read, never imported: its sources are parsed, and a version is recognised by
what it has (an option, a method), not by a commit, so that edited checkouts are recognised
too. The only files ever written, :data:`SHIM` and :data:`TEST_SHIM`, carry :data:`MARKER`, and nothing
without that line is overwritten or removed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coronet_plugin.checkout.source import (
    ModelType,
    Sources,
    assigned_in,
    called_in,
    mentions_imresize,
    names_of,
)
from coronet_plugin.errors import UserError

SHIM = "models/coronet_model.py"
MARKER = "# Written by `coronet install`, which also updates it; `coronet uninstall` removes it."
SHIM_TEXT = f'''{MARKER}
"""``--model coronet``: the door from this checkout to the package coronet_plugin, which does all else."""

import sys

from models.base_model import BaseModel

try:
    from coronet_plugin.errors import show_in_one_line
    from coronet_plugin.model import coronet_model
except ModuleNotFoundError as error:
    if error.name != "coronet_plugin":
        raise
    print(
        "--model coronet needs the package coronet_plugin, which " + sys.executable + " does not have; "
        "in a clone of coronet-plugin type: pip install -e .",
        file=sys.stderr,
    )
    sys.exit(2)

show_in_one_line()
CoronetModel = coronet_model(BaseModel)
'''

OWN_TEST = "models/test_model.py"
TEST_SHIM = "models/test_model/__init__.py"
"""Python prefers a folder to a file of the same name, so that the file itself stays as it is."""
TEST_SHIM_TEXT = f'''{MARKER}
"""``--model test``: the checkout's own, in ../test_model.py, for slim generators as well."""

import importlib.util
import sys
from pathlib import Path

_name = "models.test_model_of_the_checkout"
_file = Path(__file__).resolve().parents[1] / "test_model.py"
_spec = importlib.util.spec_from_file_location(_name, str(_file))
sys.modules[_name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules[_name])
TestModel = sys.modules[_name].TestModel

try:
    from coronet_plugin.errors import show_in_one_line
    from coronet_plugin.model import test_model
except ModuleNotFoundError as error:  # then it is the checkout's own
    if error.name != "coronet_plugin":
        raise
else:
    show_in_one_line()
    TestModel = test_model(TestModel)
'''

NEEDED = ("models/__init__.py", "models/base_model.py", "options/base_options.py")
ANY_LOOP = "use Compression in its own training loop (README, 'Use it in any training loop')"

KINDS = {
    "bundled": "bundled host of coronet-plugin (--model coronet is built in)",
    "classic": "classic, June to September 2018 (initialize(opt), which_model_netG)",
    "late-2018": "classic, September to December 2018 (initialize(opt), netG, loadSize)",
    "2019": "2019 (__init__(opt), niter)",
    "2020": "2020 to summer 2021 (n_epochs)",
    "2021": "autumn 2021 (wandb mandatory)",
    "2022": "late 2021 to July 2025 (n_epochs, wandb optional)",
    "2025-07": "end of July 2025 (no visdom, gpu_ids, torch.compile)",
    "2025-08": "August 2025 or later (DDP, opt.device)",
    "cut": "CUT, contrastive-unpaired-translation (data_dependent_initialize, parallelize)",
    "ganilla": "GANILLA (initialize(opt), netG, loadSize, fpn_weights)",
    "too-old": "too old, before June 2018 (no plug-in point)",
    "gan-compression": "gan-compression (distillers, supernets)",
    "deepliif": "DeepLIIF (deepliif.models)",
    "none": "not a checkout",
}
"""Names of the kinds of folder that are recognised."""


class CheckoutError(UserError):
    """A folder is not a checkout the plug-in fits, or a file in it is somebody else's."""


@dataclass(frozen=True)
class Checkout:
    """A checkout by its sources; ``why_not`` is empty where ``--model coronet`` can work."""

    root: Path
    kind: str
    why_not: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    """Option names (without dashes) of ``options/``, with their literal defaults."""
    features: frozenset[str] = frozenset()
    models: tuple[ModelType, ...] = ()
    methods: frozenset[str] = frozenset()
    """Methods of BaseModel."""
    called: frozenset[str] = frozenset()
    """Attributes that train.py calls, such as ``save_networks``."""
    required: frozenset[str] = frozenset()
    """Packages from outside that train.py and test.py import without condition."""
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The version in words."""
        return KINDS[self.kind]

    def has(self, *names: str) -> str:
        """The first of ``names`` that is an option here, or an empty string."""
        return next((name for name in names if name in self.options), "")


def read_checkout(path: str | Path) -> Checkout:
    """Recognise the checkout in the folder ``path``.

    Raises:
        CheckoutError: it is not a folder.
    """
    root = Path(path)
    if not root.is_dir():
        found = "a file" if root.exists() else "not there"
        raise CheckoutError(f"{path} is {found}; give the folder of a checkout, which holds train.py")
    if (root / "deepliif" / "models" / "__init__.py").is_file():
        return Checkout(root, "deepliif", f"it keeps its models in deepliif.models; {ANY_LOOP}")
    if (root / "distillers").is_dir() and (root / "supernets").is_dir():
        return Checkout(root, "gan-compression", f"its models have other methods; {ANY_LOOP}")
    missing = [name for name in NEEDED if not (root / name).is_file()]
    if missing:
        why = f"it has no {', '.join(missing)}; give the folder that holds train.py and models/"
        return Checkout(root, "none", why)
    return _read(Sources(root))


def _read(sources: Sources) -> Checkout:
    options, required = sources.options(), sources.required("train.py", "test.py")
    base = sources.base_model()
    features = frozenset(_features(sources, base, required))
    kind = _kind(features, options)
    why_not = ""
    if kind == "too-old":
        why_not = (
            "models/__init__.py has no find_model_using_name (upstream has it since June 2018), so that no "
            f"model type can be added; take a newer version, or {ANY_LOOP}"
        )
    return Checkout(
        root=sources.root,
        kind=kind,
        why_not=why_not,
        options=options,
        features=features,
        models=sources.model_types(),
        methods=frozenset(names_of(base)),
        called=frozenset(called_in(sources.tree("train.py"))),
        required=required,
        unreadable=dict(sources.unreadable),
    )


def _features(sources: Sources, base: ast.ClassDef | None, required: frozenset[str]) -> Iterator[str]:
    """Name what a version has or lacks beyond its options."""
    lookup, train, methods = sources.tree("models/__init__.py"), sources.tree("train.py"), names_of(base)
    if "find_model_using_name" in names_of(lookup):
        yield "lookup"
    bundled = any(isinstance(n, ast.ImportFrom) and n.module == "util.find" for n in lookup.body)
    if bundled:
        yield "bundled"
    if bundled or "import_module" in called_in(lookup):
        yield "by_name"
    if "initialize" in methods:
        yield "initialize"
    if {"data_dependent_initialize", "parallelize"} <= methods.keys():
        yield "data_dependent"
    if "compile" in called_in(sources.tree("models/base_model.py"), of="torch"):
        yield "compile"
    if "device" in assigned_in(train):
        yield "device"
    if _none_norm_is_none(sources.tree("models/networks.py")):
        yield "norm_none_broken"
    if mentions_imresize(sources.root):
        yield "imresize"
    if "wandb" in required:
        yield "wandb"


def _none_norm_is_none(networks: ast.Module) -> bool:
    """True if ``get_norm_layer`` gives None, which its callers call, for ``--norm none``."""
    function = names_of(networks).get("get_norm_layer")
    return function is not None and any(
        isinstance(n, ast.Assign) and isinstance(n.value, ast.Constant) and n.value.value is None
        for n in ast.walk(function)
    )


def _kind(features: frozenset[str], options: dict[str, Any]) -> str:
    """The first kind whose marks are all there; forks before the versions they come from."""
    marks = (
        ("bundled", "bundled" in features),
        ("too-old", "lookup" not in features),
        ("cut", "data_dependent" in features),
        ("ganilla", "fpn_weights" in options),
        ("classic", "initialize" in features and "which_model_netG" in options),
        ("late-2018", "initialize" in features),
        ("2019", "niter" in options),
        ("2025-08", "device" in features and "gpu_ids" not in options),
        ("2025-07", "display_id" not in options),
        ("2021", "wandb" in features),
        ("2022", "use_wandb" in options),
    )
    return next((kind for kind, there in marks if there), "2020")


def shim_state(root: Path) -> str:
    """``absent``, ``current``, ``outdated`` (ours), ``own`` (uses the plug-in, not ours) or ``foreign``."""
    state = _state(root / SHIM, SHIM_TEXT)
    lacks = [file for file, text in _texts(root).items() if _state(file, text) in ("absent", "outdated")]
    return "outdated" if state == "current" and lacks else state


def _texts(root: Path) -> dict[Path, str]:
    """Files written into a checkout: the model type, and what lets its ``test`` take slim generators."""
    texts = {root / SHIM: SHIM_TEXT}
    if (root / OWN_TEST).is_file():
        texts[root / TEST_SHIM] = TEST_SHIM_TEXT
    return texts


def _state(file: Path, wanted: str) -> str:
    if not file.exists() and not file.is_symlink():
        return "absent"
    if not file.is_file():
        return "foreign"
    text = file.read_text(encoding="utf-8", errors="replace")
    if MARKER in text.splitlines():
        return "current" if text == wanted else "outdated"
    return "own" if "coronet_plugin" in text else "foreign"


def install(path: str | Path) -> str:
    """Put the shim into the checkout ``path``; says what was done.

    Raises:
        CheckoutError: the plug-in does not fit, or the file's place is taken.
    """
    checkout = read_checkout(path)
    if checkout.why_not:
        raise CheckoutError(f"{path}: {checkout.label}: {checkout.why_not}")
    root, file = checkout.root, checkout.root / SHIM
    state = shim_state(root)
    if state == "foreign":
        raise CheckoutError(
            f"{file} exists and is not coronet-plugin's, and --model coronet would find it; rename it"
        )
    if state == "own":
        return f"{file} already uses coronet_plugin and was not written by `coronet install`: left as it is"
    if state == "current":
        return f"{file} is already there and current"
    try:
        for place, text in _texts(root).items():
            if _state(place, text) in ("absent", "outdated"):
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(text.encode())
    except OSError as error:
        raise CheckoutError(f"{error.filename} cannot be written: {error.strerror}") from error
    return f"{file} {'written' if state == 'absent' else 'updated'} ({checkout.label})"


def uninstall(path: str | Path) -> str:
    """Remove what :func:`install` wrote, and its compiled copies, from the checkout ``path``; says so.

    Raises:
        CheckoutError: there is no such folder, or the file is not ours.
    """
    root = Path(path)
    if not root.is_dir():
        raise CheckoutError(f"{path} is not a folder; give the folder of a checkout, which holds train.py")
    file, state = root / SHIM, shim_state(root)
    if state == "absent":
        return f"{file} is not there: nothing to remove"
    if state in ("own", "foreign"):
        raise CheckoutError(f"{file} was not written by `coronet install`; remove it yourself if you mean it")
    try:
        _remove(file)
        if _state(root / TEST_SHIM, TEST_SHIM_TEXT) in ("current", "outdated"):
            _remove(root / TEST_SHIM)
            for folder in ((root / TEST_SHIM).parent / "__pycache__", (root / TEST_SHIM).parent):
                if folder.is_dir():
                    folder.rmdir()
    except OSError as error:
        raise CheckoutError(f"{error.filename} cannot be removed: {error.strerror}") from error
    return f"{file} removed; trained runs are left as they are"


def _remove(file: Path) -> None:
    for old in (file, *(file.parent / "__pycache__").glob(f"{file.stem}.*.pyc")):
        old.unlink()
