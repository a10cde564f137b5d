"""``coronet install``, ``uninstall`` and ``doctor``: the plug-in in a checkout of upstream."""

from __future__ import annotations

import argparse
import json
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from coronet_plugin.command import Command
from coronet_plugin.errors import OptionError

if TYPE_CHECKING:
    from coronet_plugin.checkout.doctor import Check, Environment
    from coronet_plugin.checkout.install import Checkout

RUNNERS = {"shim": "python", "runner": "python -m coronet_plugin"}
"""How a script is started where the shim is installed, and anywhere."""


def _path_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", nargs="?", default=".", metavar="PATH", help="folder that holds train.py (default: this one)"
    )


def _doctor_options(parser: argparse.ArgumentParser) -> None:
    _path_option(parser)
    parser.add_argument(
        "--base", default="", help="model type to compress in the commands (default: the checkout's own)"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def _install(options: argparse.Namespace) -> int:
    from coronet_plugin.checkout.install import install

    print(install(options.path))
    return 0


def _uninstall(options: argparse.Namespace) -> int:
    from coronet_plugin.checkout.install import uninstall

    print(uninstall(options.path))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from coronet_plugin.checkout import doctor
    from coronet_plugin.checkout.install import read_checkout

    checkout = read_checkout(options.path)
    env = doctor.environment(checkout.required)
    checks = doctor.examine(checkout, env)
    works = all(check.status != "no" for check in checks)
    typed = {} if checkout.why_not else commands(checkout, env, options.base)
    if options.json:
        print(json.dumps(_facts(checkout, env, checks, typed, works), indent=1, default=str))
    else:
        print(_text(checkout, checks, typed, works))
    return 0 if works else 1


def _facts(
    checkout: Checkout, env: Environment, checks: list[Check], typed: dict[str, dict[str, str]], works: bool
) -> dict[str, Any]:
    return {
        "path": checkout.root,
        "kind": checkout.kind,
        "version": checkout.label,
        "works": works,
        "checks": [asdict(check) for check in checks],
        "environment": {**asdict(env), "absent": sorted(env.absent)},
        "features": sorted(checkout.features),
        "options": checkout.options,
        "models": [{**asdict(m), "compressible": m.compressible} for m in checkout.models],
        "commands": typed,
    }


def _text(checkout: Checkout, checks: list[Check], typed: dict[str, dict[str, str]], works: bool) -> str:
    width = max(len(check.name) for check in checks)
    lines = [str(checkout.root.resolve())]
    for check in checks:
        lead = f"  {check.status:<5}{check.name:<{width}}  "
        text = textwrap.wrap(check.text, 110 - len(lead), break_long_words=False, break_on_hyphens=False)
        lines.append(lead + f"\n{' ' * len(lead)}".join(text))
    lines += _advice(checkout, typed)
    if not works:
        lines += ["", "It does not work yet: see the lines that begin with no."]
    return "\n".join(lines)


def _advice(checkout: Checkout, typed: dict[str, dict[str, str]]) -> list[str]:
    """The commands of the way that works as things are, and how the other one differs."""
    from coronet_plugin.checkout.install import shim_state

    if not typed:
        return []
    way = "shim" if "shim" in typed and shim_state(checkout.root) in ("current", "own") else [*typed][-1]
    lines = ["", f"Type, in that folder ({WAYS[way]}):"]
    lines += [f"  # {step}\n{_shell(line)}" for step, line in typed[way].items()]
    others = {"shim": f"without the shim: {RUNNERS['runner']} train.py ...", "runner": AFTER_INSTALL}
    return lines + (["", f"The same {others[way]}"] if len(typed) > 1 else [])


WAYS = {
    "shim": "the shim is installed",
    "runner": "with the runner, nothing is installed in the checkout",
    "host": "the model type is built in",
}
AFTER_INSTALL = f"after `coronet install`: {RUNNERS['shim']} train.py ..."


def _shell(line: str) -> str:
    """One command over as many lines as it needs."""
    first, *options = line.split(" --")
    lines = [first]
    for option in options:
        if len(lines[-1]) + len(option) > 92:
            lines.append(f"--{option}")
        else:
            lines[-1] += f" --{option}"
    return "  " + " \\\n      ".join(lines)


def commands(checkout: Checkout, env: Environment, base: str = "") -> dict[str, dict[str, str]]:
    """Commands to type: for each way of starting, training, continuing, testing in this version's options."""
    names = [model.name for model in checkout.models if model.trains or not model.networks]
    if base and base not in names:
        raise OptionError(f"--base {base}: this checkout has {', '.join(names)}")
    steps = _steps(checkout, env, base or default_base(checkout))
    if checkout.kind == "bundled":
        ways = {"host": RUNNERS["shim"]}
    elif "imresize" in checkout.features and not env.imresize:
        ways = {"runner": RUNNERS["runner"]}  # the scripts stop before they look for a model type
    else:
        ways = RUNNERS
    return {way: {step: f"{start} {line}" for step, line in steps.items()} for way, start in ways.items()}


def default_base(checkout: Checkout) -> str:
    """The checkout's own default of ``--model`` if it can be compressed, otherwise the first that can."""
    good = [model.name for model in checkout.models if model.compressible]
    own = str(checkout.options.get("model"))
    return own if own in good or not good else good[0]


def _steps(checkout: Checkout, env: Environment, base: str) -> dict[str, str]:
    from coronet_plugin.checkout.doctor import needs_no_display

    common = ["--dataroot DATA", "--name RUN", "--model coronet"]
    if checkout.has("gpu_ids") and not env.cuda and checkout.kind != "bundled":
        common.append("--gpu_ids -1")
    epoch = checkout.has("epoch", "which_epoch")
    newest = [f"--{epoch} latest"] if epoch and checkout.options[epoch] != "latest" else []
    train = [*common, f"--coronet_base {base}", "--coronet_budget 0.1", *_usual(checkout, base)]
    if needs_no_display(checkout, env):
        train.append("--display_id -1")
    counted = (
        ["--epoch_count NEXT_EPOCH"] if checkout.kind == "cut" else []
    )  # it begins to count before it loads
    return {
        "train": " ".join(["train.py", *train]),
        "continue": " ".join(["train.py", *train, "--continue_train", *newest, *counted]),
        "test": " ".join(["test.py", *common, *newest]),
    }


def _usual(checkout: Checkout, base: str) -> list[str]:
    """The options of a training that are usually given, with this version's names and defaults."""
    chosen = next((model.architecture for model in checkout.models if model.name == base), "")
    names = (("netG", "which_model_netG"), ("n_epochs", "niter"), ("n_epochs_decay", "niter_decay"))
    found = [checkout.has(*pair) for pair in names]
    values = {name: checkout.options[name] for name in found if name}
    if chosen and found[0]:
        values[found[0]] = chosen
    return [f"--{name} {value}" for name, value in values.items() if value is not None]


COMMANDS = (
    Command("install", "put the model type into a checkout: two small files", _path_option, _install),
    Command("uninstall", "remove those files again", _path_option, _uninstall),
    Command(
        "doctor",
        "say what will work in a checkout of upstream, what will not and why, and what to type",
        _doctor_options,
        _doctor,
    ),
)
