"""Compare what coronet_plugin and Torch-Pruning make of many styles of generator.

Every style of ``tests/styles`` is pruned by both; both are judged by the same rule,
see :func:`difference`. Writes a page of Markdown.

    pip install torch-pruning==1.6.1
    python scripts/compare_channel_tools.py --output docs/generators.md
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import platform
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from generator_styles import STYLES, Style, shake  # noqa: E402

from coronet_plugin import ChannelPlan, find_channels, slim  # noqa: E402

NOTHING = 1e-18
"""What is removed becomes in the reference: a weight under weight norm must not have length zero."""
WRONG = 1e-3
"""From this relative difference on, a pruned generator computes something else."""

FAMILIES = {
    "plain": "Encoders and decoders",
    "skips": "Skips, pyramids, branches",
    "mobile": "Cheap blocks",
    "attentive": "Attention",
    "conditioned": "Conditioned by a second input",
    "diffusion": "Diffusion, autoencoders, transformers",
    "libraries": "Classes of diffusers",
    "unusual": "Easily followed wrongly",
}

INTRO = """\
# Generators

What `find_channels` makes of {count} styles of generator, and what
[Torch-Pruning](https://github.com/VainF/Torch-Pruning) {tp} makes of them. Written by

```
python scripts/compare_channel_tools.py --output docs/generators.md
```

with Python {python}, torch {torch}, on one CPU thread. The styles are in `tests/styles/`, made small: 4 to
16 channels in the first layer, most of them 32x32 pixels. `tests/channels/test_generator_styles.py` keeps
what is prunable from shrinking.

**Columns.** *sets*: channel sets that can be pruned + hidden sets that are pinned, that is, never pruned
(the reasons are below each table). *channels*: part of the hidden channels that can be pruned. *MACs*: part
of the multiply-adds in layers with a prunable axis. *seconds*: to find the channels, with the proof that is
part of it. The last two columns: what came out of pruning a random half of the channels, with the largest
difference and how many parameters were removed.

**How both are judged.** Removing channels that are zero everywhere must not change the output. A tool
prunes a copy; what it removed is then set to zero in the full generator (filters, biases, scales, running
means, and the slices of whatever reads them; to 1e-18, for a weight under weight norm has a length), and the
two must agree. The difference is the largest of all
outputs, relative to the largest output; *silently wrong* is more than {wrong:g}. Both get the same random
weights and statistics (a branch that starts at zero would hide every mistake in it), in eval mode and
single precision.

**Fairness.** Torch-Pruning promises a smaller network that runs and can be fine-tuned, not an equal one.
Where it prunes below a layer norm or a group norm, or where scores are divided by a width, other statistics
are what is to be expected; the column says that they are there. It gets `BasePruner(pruning_ratio=0.5)`
with random importance, the layers that make the output as `ignored_layers`, and no further hint, although
it knows some (`num_heads`, `in_channel_groups`, `unwrapped_parameters`). `find_channels` gets no hint
either, and what it pins it does not prune: *right* is about the rest, so read it with the column
*channels*. Both get spectral norm as it is written; after `coronet_plugin.bake_(generator)` all hidden
channels of those styles are prunable, which the tests check. Classes of diffusers are in the table where that
is installed (here {diffusers}).
"""


@dataclass(frozen=True)
class Judged:
    """Outcome of pruning: ``error`` in one line, or the difference and the fraction of parameters removed."""

    difference: float = 0.0
    removed: float = 0.0
    error: str = ""

    @property
    def right(self) -> bool:
        return not self.error and self.difference <= WRONG

    def __str__(self) -> str:
        if self.error:
            return self.error
        if self.removed == 0:
            return "prunes nothing"
        word = "right" if self.right else "**silently wrong**"
        size = f"{self.difference:.0e}" if self.difference else "0"
        return f"{word} ({size}), {self.removed:.0%} fewer"


@dataclass(frozen=True)
class Row:
    """One style's line of the table; no plan if :func:`find_channels` fails."""

    style: Style
    plan: ChannelPlan | None
    seconds: float
    ours: Judged
    theirs: Judged


# -- judging -------------------------------------------------------------
def difference(
    build: Callable[[], nn.Module],
    prune: Callable[[nn.Module], nn.Module],
    inputs: tuple[Any, ...],
    cut: Callable[[nn.Module], nn.Module] | None = None,
) -> Judged:
    """Prune a generator; compare with another whose removed elements are zero.

    What was removed is read off the result: ``prune`` replaces every element by its own
    number (:func:`number_`) before it cuts. That needs no help of the tool. ``cut`` does the same with the
    weights there are, for a tool that multiplies some of those that stay.
    """
    dense, pruned = build(), prune(build())
    with torch.no_grad():
        pruned(*inputs)  # whatever is wrong with its shapes shows here
    reference, found = dict(tensors(dense)), dict(tensors(pruned))
    if reference.keys() != found.keys():
        raise ValueError("the pruned generator has other parameters than before")
    with torch.no_grad():
        for name, value in reference.items():
            survivors = found[name].long()
            if not is_numbering(survivors, value.numel()) or not torch.equal(survivors.float(), found[name]):
                raise ValueError(f"{name} was changed, not cut")
            if cut is None:
                found[name].copy_(value.flatten()[survivors])
            if not name.endswith("running_var"):
                dead = torch.ones(value.numel(), dtype=torch.bool)
                dead[survivors.flatten()] = False
                value.masked_fill_(dead.view(value.shape), NOTHING)
        pruned = pruned if cut is None else cut(build())
        outputs = []
        for net in (dense, pruned):  # with the same noise inside
            torch.manual_seed(0)
            outputs.append(flat(net(*inputs)))
        expected, got = outputs
    if expected.shape != got.shape:
        raise ValueError("the output has another shape")
    before, after = (sum(p.numel() for p in net.parameters()) for net in (dense, pruned))
    return Judged(float((expected - got).abs().max() / expected.abs().max()), 1 - after / before)


def tensors(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and floating point buffers."""
    yield from net.named_parameters()
    yield from ((name, b) for name, b in net.named_buffers() if b.is_floating_point() and b.ndim > 0)


def number_(net: nn.Module) -> None:
    """Replace every element by its index in its tensor; exact in single precision up to 2**24."""
    with torch.no_grad():
        for _, tensor in tensors(net):
            tensor.copy_(torch.arange(tensor.numel(), dtype=tensor.dtype).view(tensor.shape))


def is_numbering(survivors: Tensor, count: int) -> bool:
    flat = survivors.flatten()
    return bool((flat >= 0).all() and (flat < count).all()) and flat.unique().numel() == flat.numel()


def flat(value: Any) -> Tensor:
    """All outputs of a generator in one row."""
    values = value if isinstance(value, (tuple, list)) else [value]
    return torch.cat([v.detach().flatten() for v in values])


def one_line(error: Exception) -> str:
    """An exception as it fits in a cell of a table."""
    lines = str(error).strip().splitlines() or [""]
    text = f"{type(error).__name__}: {lines[0]}".replace("|", "/").replace("`", "'")
    return f"raises: `{text if len(text) <= 110 else text[:107] + '...'}`"


def guarded(judge: Callable[[], Judged], limit: int) -> Judged:
    """``judge()``, its failure in one line, silent and within ``limit`` seconds."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"not done after {limit} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(limit)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return judge()
    except TimeoutError as error:
        return Judged(error=str(error))
    except Exception as error:
        return Judged(error=one_line(error))
    finally:
        signal.alarm(0)


# -- the two tools -------------------------------------------------------
def by_plan(plan: ChannelPlan, numbered: bool) -> Callable[[nn.Module], nn.Module]:
    """Removes a random half of every channel set, by slim; ``numbered``: numbers, not multiplied."""
    if numbered:
        plan = replace(plan, corrections=())
    alive = np.ones(plan.units, dtype=bool)
    random = np.random.default_rng(0)
    for channel_set in plan.prunable:
        dead = random.permutation(channel_set.units)[: channel_set.units // 2]
        alive[channel_set.start + dead] = False

    def prune(net: nn.Module) -> nn.Module:
        if numbered:
            number_(net)
        return slim(net, plan, alive)

    return prune


def by_torch_pruning(style: Style) -> Callable[[nn.Module], nn.Module]:
    """Removes half of the channels of every group, chosen at random."""
    import torch_pruning as tp

    def prune(net: nn.Module) -> nn.Module:
        inputs = tuple(x.clone() for x in style.inputs())
        layers = [module for name, module in net.named_modules() if style.is_last(name)]
        torch.manual_seed(0)
        pruner = tp.pruner.BasePruner(
            net, inputs, tp.importance.RandomImportance(), pruning_ratio=0.5, ignored_layers=layers
        )
        number_(net)
        pruner.step()
        return net

    return prune


def compare(style: Style, limit: int) -> Row:
    """Both tools on one style."""
    inputs = style.inputs()
    style.build()  # what it imports is not part of any time

    def judge(prune: Callable[[nn.Module], nn.Module], cut: Any = None) -> Judged:
        return guarded(lambda: difference(lambda: shake(style.build()).eval(), prune, inputs, cut), limit)

    theirs = judge(by_torch_pruning(style))
    start = time.perf_counter()
    try:
        plan = find_channels(style.build(), inputs)
    except Exception as error:
        return Row(style, None, time.perf_counter() - start, Judged(error=one_line(error)), theirs)
    seconds = time.perf_counter() - start
    ours = judge(by_plan(plan, True), by_plan(plan, False))
    return Row(style, plan, seconds, ours, theirs)


# -- the page ------------------------------------------------------------
def line(row: Row) -> str:
    style, plan = row.style, row.plan
    if plan is None:
        return f"| **{style.name}**: {style.note} | | | | {row.seconds:.2f} | {row.ours} | {row.theirs} |"
    pinned = sum(1 for s in style.hidden(plan) if s.pinned)
    cells = [
        f"**{style.name}**: {style.note}",
        f"{len(plan.prunable)} + {pinned}",
        f"{style.prunable_channels(plan):.0%}",
        f"{plan.coverage():.0%}",
        f"{row.seconds:.2f}",
        str(row.ours),
        str(row.theirs),
    ]
    return "| " + " | ".join(cells) + " |"


def reasons(row: Row) -> list[str]:
    """Why hidden sets of a style are pinned, each reason once."""
    found: dict[str, list[str]] = {}
    for channel_set in row.style.hidden(row.plan) if row.plan else ():
        if channel_set.pinned:
            reason = re.sub(r" \(in [^()]*\)$", "", channel_set.pinned)
            found.setdefault(reason, []).append(f"`{channel_set.name}`")
    return [f"- **{row.style.name}**, {', '.join(names)}: {reason}" for reason, names in found.items()]


def summary(rows: list[Row]) -> str:
    def count(judged: list[Judged]) -> str:
        right = sum(j.right and j.removed > 0 for j in judged)
        wrong = sum(not j.error and not j.right for j in judged)
        nothing = sum(not j.error and j.removed == 0 for j in judged)
        raised = sum(bool(j.error) for j in judged)
        return f"| {right} | {wrong} | {raised} | {nothing} |"

    return "\n".join(
        (
            "| styles | right | silently wrong | raises or does not end | prunes nothing |",
            "|---|---|---|---|---|",
            f"| coronet_plugin {count([row.ours for row in rows])}",
            f"| Torch-Pruning {count([row.theirs for row in rows])}",
        )
    )


def page(rows: list[Row]) -> str:
    tp = version("torch-pruning")
    parts = [
        INTRO.format(
            count=len(rows),
            tp=tp,
            python=platform.python_version(),
            torch=torch.__version__,
            wrong=WRONG,
            diffusers=version("diffusers") if importlib.util.find_spec("diffusers") else "it is not",
        ),
        summary(rows),
    ]
    head = ("style", "sets", "channels", "MACs", "seconds", "coronet_plugin", f"Torch-Pruning {tp}")
    for family, title in FAMILIES.items():
        members = [row for row in rows if row.style.family == family]
        if not members:
            continue
        table = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *map(line, members)]
        parts += [f"\n## {title}\n", "\n".join(table)]
        pins = [reason for row in members for reason in reasons(row)]
        if pins:
            parts += ["\nPinned:\n", "\n".join(pins)]
    return "\n".join(parts) + "\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="where to write the page; printed if left out")
    parser.add_argument("--styles", nargs="*", metavar="STYLE", help="only these styles")
    parser.add_argument("--limit", type=int, default=20, help="seconds for one tool and style")
    options = parser.parse_args(argv)
    if importlib.util.find_spec("torch_pruning") is None:
        parser.error("Torch-Pruning is not installed: pip install torch-pruning==1.6.1")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for name in options.styles or STYLES:
        rows.append(compare(STYLES[name], options.limit))
        print(f"{name:32} {rows[-1].ours!s:40} {rows[-1].theirs}", file=sys.stderr)
    text = page(rows)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
