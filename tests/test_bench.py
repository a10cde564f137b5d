from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from coronet_plugin.errors import OptionError
from coronet_plugin.measure.latency import latency


class Sleeper(nn.Module):
    """Sleeps as told, call by call, and notes the circumstances."""

    def __init__(self, *milliseconds: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.left = list(milliseconds)
        self.seen: list[tuple[bool, bool, int]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append((self.training, torch.is_grad_enabled(), torch.get_num_threads()))
        time.sleep(self.left.pop(0) / 1e3)
        return self.norm(image)


EXAMPLE = torch.zeros(1, 3, 8, 8)


def test_warm_up_is_not_timed_and_the_median_is_robust() -> None:
    net = Sleeper(200, 10, 10, 10, 10, 150)
    found = latency(net, EXAMPLE, threads=1, repeats=5, warmup=1)
    assert net.left == []
    # sleeping never takes less than asked; the upper bounds leave room for a loaded machine
    assert 10 <= found.min_ms <= found.median_ms < 60
    assert found.p10_ms <= found.median_ms <= found.p90_ms < 150
    assert found.p90_ms > 60  # the slow call shows in the spread


def test_circumstances_are_stated() -> None:
    found = latency(Sleeper(0, 0, 0), EXAMPLE, threads=2, repeats=2, warmup=1)
    assert (found.threads, found.repeats, found.warmup, found.input_size) == (2, 2, 1, (1, 3, 8, 8))
    assert found.runtime == f"torch {torch.__version__}"


@pytest.mark.parametrize("fails", [False, True])
def test_evaluation_mode_without_gradients_and_all_put_back(fails: bool) -> None:
    net = Sleeper(*[0] * (1 if fails else 3))  # the second call of a failing one raises IndexError
    net.train()
    net.norm.eval()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if fails:
            with pytest.raises(IndexError):
                latency(net, EXAMPLE, threads=2, repeats=2, warmup=1)
        else:
            latency(net, EXAMPLE, threads=2, repeats=2, warmup=1)
        assert set(net.seen) == {(False, False, 2)}
        assert net.training and not net.norm.training
        assert torch.get_num_threads() == 1
        assert torch.is_grad_enabled()
        assert torch.equal(net.norm.running_mean, torch.zeros(3))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "bad", [{"threads": 0}, {"repeats": 0}, {"warmup": -1}], ids=["threads", "repeats", "warmup"]
)
def test_senseless_settings_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="at least"):
        latency(Sleeper(), EXAMPLE, **bad)
