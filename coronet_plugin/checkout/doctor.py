"""Tell what will work in a checkout and what will not, and why: a list of :class:`Check`.

The checkout is only read (:mod:`coronet_plugin.checkout.install`); the environment is the one
this runs in. ``no`` means that training is impossible until it is mended, ``warn`` that
one way of using it is, or that an option is needed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import platform
import shutil
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from coronet_plugin.checkout.install import SHIM, Checkout, shim_state
from coronet_plugin.checkout.source import ModelType

METHODS = ("setup", "test", "save_networks", "load_networks", "update_learning_rate", "optimize_parameters")
"""Methods of BaseModel that the model type builds on."""
CALLS = ("setup", "set_input", "optimize_parameters", "save_networks", "update_learning_rate")
"""Methods that train.py must call for a search to run and to be kept."""


@dataclass(frozen=True)
class Check:
    """One finding; ``status`` is ``ok``, ``warn`` or ``no``."""

    status: str
    name: str
    text: str


@dataclass(frozen=True)
class Environment:
    """The Python that runs this, and its packages."""

    python: str
    torch: str
    cuda: bool
    torchvision: str = ""
    """Why torchvision cannot be imported; empty if it can."""
    imresize: bool = False
    """Whether scipy still has ``scipy.misc.imresize``."""
    compiler: bool = True
    """Whether there is a C++ compiler, which torch.compile needs on CPU."""
    absent: frozenset[str] = field(default_factory=frozenset)
    """Packages asked for that are not installed."""


def environment(packages: Iterable[str] = ()) -> Environment:
    """Look at this Python; ``packages`` are those to look for, besides visdom."""
    import torch

    return Environment(
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.cuda.is_available(),
        torchvision=_why_not_importable("torchvision"),
        imresize=has_imresize(),
        compiler=any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")),
        absent=frozenset(name for name in {"visdom", *packages} if not _installed(name)),
    )


def _installed(name: str) -> bool:
    """True if the package is there; a mere folder of that name, such as wandb's of its runs, is not it."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def _why_not_importable(name: str) -> str:
    """Builds that do not fit each other are found by importing only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def has_imresize() -> bool:
    """True if ``from scipy.misc import imresize`` works here (scipy before 1.3)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return hasattr(importlib.import_module("scipy.misc"), "imresize")
    except ImportError:
        return False


def examine(checkout: Checkout, env: Environment) -> list[Check]:
    """All checks, the version first."""
    if checkout.why_not:
        return [Check("no", "version", f"{checkout.label}: {checkout.why_not}")]
    parts = (_version, _shim, _options, _models, _base_model, _scripts, _python, _packages, _visdom, _known)
    return [check for part in parts for check in part(checkout, env)]


def _version(checkout: Checkout, env: Environment) -> Iterator[Check]:
    yield Check("ok", "version", checkout.label)
    if "by_name" in checkout.features:
        yield Check("ok", "plug-in point", "models/__init__.py imports models/NAME_model.py for --model NAME")
    else:
        text = "find_model_using_name in models/__init__.py is not upstream's; it must import by name"
        yield Check("warn", "plug-in point", text)


def _shim(checkout: Checkout, env: Environment) -> Iterator[Check]:
    found = {
        "absent": ("warn", "not installed: `coronet install` writes it; the runner needs none"),
        "current": ("ok", "installed and current"),
        "outdated": ("warn", "installed by another version: `coronet install` updates it"),
        "own": ("ok", f"{SHIM} uses coronet_plugin; not written by `coronet install`"),
        "foreign": ("no", f"{SHIM} exists and is not coronet-plugin's: --model coronet finds it; rename it"),
    }
    yield Check(found[shim_state(checkout.root)][0], "shim", found[shim_state(checkout.root)][1])


def _options(checkout: Checkout, env: Environment) -> Iterator[Check]:
    from coronet_plugin.training.options import add_coronet_options

    ours = argparse.ArgumentParser(add_help=False)
    add_coronet_options(ours)
    taken = sorted({f"--{name}" for name in checkout.options} & set(ours._option_string_actions))
    if taken:
        yield Check("no", "options", f"options/ declares {', '.join(taken)} itself; rename them there")
        return
    names = (
        *(checkout.has("netG", "which_model_netG"), checkout.has("direction", "which_direction")),
        *(checkout.has("n_epochs", "niter"), checkout.has("n_epochs_decay", "niter_decay")),
        *(checkout.has("batch_size", "batchSize"), checkout.has("crop_size", "fineSize")),
        *(checkout.has("norm", "normG"), checkout.has("gan_mode", "no_lsgan"), checkout.has("gpu_ids")),
    )
    yield Check("ok", "options", "of this version: " + " ".join(f"--{name}" for name in names if name))


def _models(checkout: Checkout, env: Environment) -> Iterator[Check]:
    good = [m for m in checkout.models if m.compressible]
    if good:
        text = ", ".join(f"{m.name} ({', '.join(m.generators)})" for m in good)
        yield Check("ok", "model types", f"--coronet_base can be {text}")
    else:
        yield Check("warn", "model types", "none in models/ shows optimizers and networks named G...")
    for model in checkout.models:
        if model.problem:
            yield Check("warn", f"--model {model.name}", model.problem)
        elif not model.compressible:
            yield Check("ok" if model.networks else "warn", f"--model {model.name}", _not_compressible(model))


def _not_compressible(model: ModelType) -> str:
    if not model.networks:
        return "its networks are not told by its source; it may still be a --coronet_base"
    if not model.trains:
        return "for testing only (no optimizers); with the shim or the runner it takes slim runs, too"
    return f"has {', '.join(model.networks)}: say which to compress with --coronet_networks"


def _base_model(checkout: Checkout, env: Environment) -> Iterator[Check]:
    missing = [name for name in METHODS if name not in checkout.methods]
    if missing:
        yield Check("no", "BaseModel", f"models/base_model.py has no {', '.join(missing)}; put them back")


def _scripts(checkout: Checkout, env: Environment) -> Iterator[Check]:
    for file, where in checkout.unreadable.items():
        if not file.endswith("_model.py") or file == "models/base_model.py":  # others are model types
            yield Check("no", file, f"cannot be parsed by Python {env.python} ({where}); mend it")
    for script in ("train.py", "test.py"):
        if not (checkout.root / script).is_file():
            yield Check("warn", script, "not there; start your own script instead")
    missing = [name for name in CALLS if name not in checkout.called]
    if missing and checkout.called:
        yield Check("warn", "train.py", f"does not call {', '.join(missing)} itself; see that it happens")


def _python(checkout: Checkout, env: Environment) -> Iterator[Check]:
    old = tuple(int(part) for part in env.torch.split("+")[0].split(".")[:2]) < (2, 1)
    text = f"{env.python}, torch {env.torch}, CUDA {'yes' if env.cuda else 'no'}"
    yield Check("no" if old else "ok", "Python", text + ("; torch 2.1 or newer is needed" if old else ""))
    if checkout.has("gpu_ids") and not env.cuda:
        if checkout.kind == "bundled":
            yield Check("ok", "device", "no CUDA: the CPU is taken")
        else:
            yield Check("warn", "device", "no CUDA: --gpu_ids -1 is needed")


def _packages(checkout: Checkout, env: Environment) -> Iterator[Check]:
    if env.torchvision and "torchvision" in checkout.required:
        text = f"cannot be imported ({env.torchvision}); install the build for this torch"
        yield Check("no", "torchvision", text)
    old_scipy = "imresize" in checkout.features
    lacking = (checkout.required & env.absent) - {"torchvision", "wandb", *(["scipy"] if old_scipy else [])}
    if lacking:
        known = [PIP[name] for name in sorted(lacking) if name in PIP]
        text = f"train.py or test.py imports {', '.join(sorted(lacking))}, not installed here"
        yield Check("no", "packages", text + (f": pip install {' '.join(known)}" if known else ""))
    if "wandb" in checkout.features:
        there = "wandb" not in env.absent
        text = "imported by this version even without --use_wandb; "
        text += "installed" if there else "not installed: pip install wandb (no account is needed)"
        yield Check("ok" if there else "no", "wandb", text)
    if old_scipy and env.imresize:
        yield Check("ok", "imresize", "this scipy has it")
    elif old_scipy:
        text = "`python train.py` stops at `from scipy.misc import imresize` (gone since scipy 1.3); "
        yield Check("warn", "imresize", text + "the runner supplies a stand-in")


PIP = {
    **{name: name for name in ("dominate", "numpy", "packaging", "scipy", "visdom")},
    **{"PIL": "pillow", "GPUtil": "gputil", "cv2": "opencv-python", "skimage": "scikit-image"},
}
"""Packages that upstream and its forks import, by pip's names; none is guessed."""


def needs_no_display(checkout: Checkout, env: Environment) -> bool:
    """True if training without ``--display_id -1`` would import a visdom that is not there."""
    asks = "display_id" in checkout.options and checkout.options["display_id"] not in (0, -1)
    return asks and checkout.kind != "bundled" and "visdom" in env.absent


def _visdom(checkout: Checkout, env: Environment) -> Iterator[Check]:
    if needs_no_display(checkout, env):
        yield Check("warn", "visdom", "not installed, but used by default: --display_id -1 is needed")


def _known(checkout: Checkout, env: Environment) -> Iterator[Check]:
    """Give the known faults of a version itself."""
    if "norm_none_broken" in checkout.features:
        yield Check("warn", "--norm none", "broken in this version (None is called); take instance or batch")
    if "compile" in checkout.features:
        yield from _compile(env)
    if checkout.kind == "cut":
        text = "CUT's own saving and testing fails on CPU (module. in the keys); --model coronet's does not"
        yield Check("warn", "checkpoints", text)
    if checkout.kind == "2021":
        yield Check("warn", "--use_wandb", "needs visdom as well in this version (display_id above 0)")
    if checkout.kind == "2025-08":
        yield Check("warn", "torchrun", "this version needs CUDA (NCCL) and two or more processes for it")
        yield Check("warn", "--norm syncbatch", "refused by this version when there are several processes")


def _compile(env: Environment) -> Iterator[Check]:
    yield Check(
        "warn",
        "checkpoints",
        "this version's own runs cannot be tested or continued by it (torch.compile puts _orig_mod. into the "
        "keys); --model coronet writes plain keys and reads both",
    )
    if not env.cuda and not env.compiler:
        yield Check("no", "torch.compile", "this version compiles its networks; install a C++ compiler")
