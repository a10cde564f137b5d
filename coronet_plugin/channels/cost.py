"""The cost of a generator: multiply-adds (MACs) in both conventions, and parameters.

MACs are counted for convolutions and linear layers; normalisation, activations
and biases are left out, as in the literature on GAN compression. The two
conventions differ in transposed convolutions only:

* ``macs``: multiply-adds really done, that is, one per weight and *input*
  position (equals ``torch.utils.flop_counter.FlopCounterMode`` / 2);
* ``macs_literature``: counted at *output* positions, as in GAN Compression,
  torchprofile and thop, which overstates a transposed convolution by stride**2.

ResNet-9 at 256x256 has 49.55 G and 56.80 G, U-Net-256 6.05 G and 18.14 G. They are counted call by call,
by :meth:`coronet_plugin.channels.plan.ChannelPlan.macs_of` alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from coronet_plugin.errors import BudgetError


@dataclass(frozen=True)
class Cost:
    """Cost of one forward pass for one image. Plain counts, no prefixes."""

    macs: int
    macs_literature: int
    parameters: int

    def of_kind(self, kind: str) -> int:
        """The figure a budget of ``kind`` (``"macs"`` or ``"params"``) is about.

        Raises:
            BudgetError: nothing is counted for that kind, as for a latency, which is measured.
        """
        counted = {"macs": self.macs, "params": self.parameters}
        if kind not in counted:
            raise BudgetError(f"nothing is counted for the budget kind {kind!r}, only {', '.join(counted)}")
        return counted[kind]

    def as_dict(self) -> dict[str, int]:
        return {
            "macs": self.macs,
            "macs_literature": self.macs_literature,
            "parameters": self.parameters,
        }


def human(count: float) -> str:
    """``count`` with a decimal prefix: ``6.05 G``, ``340 k``."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= factor:
            return f"{count / factor:.4g} {prefix}"
    return f"{count:.4g}"
