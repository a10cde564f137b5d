"""Calls in turn by both clocks, with nothing left changed."""

from __future__ import annotations

import os
import time

import pytest
import torch
from torch import Tensor, nn

from coronet_plugin.errors import OptionError
from coronet_plugin.measure.timing import Stopwatch, Timing, inference, pinned, time_in_turn


def sleeper(*milliseconds: float):
    """Sleeps as told, call by call; the last number holds for all further calls."""
    left = list(milliseconds)
    return lambda: time.sleep((left.pop(0) if len(left) > 1 else left[0]) / 1e3)


# -- figures -------------------------------------------------------------------
def test_the_median_stands_for_the_calls():
    found = Timing.of([0.001, 0.003, 0.100])
    assert (found.median_ms, found.min_ms, found.calls) == pytest.approx((3, 1, 3))
    assert found.min_ms < found.p10_ms < found.median_ms < found.p90_ms < 100


def test_cpu_time_leaves_out_what_others_take():
    found = time_in_turn({"sleeps": sleeper(50)}, rounds=2, warmup=0)["sleeps"]
    assert found.wall.median_ms >= 50 and found.cpu.median_ms < 25


# -- calls in turn -------------------------------------------------------------
def test_calls_take_turns_and_warm_up_is_not_timed():
    calls = []
    timed = time_in_turn({key: lambda key=key: calls.append(key) for key in "abc"}, rounds=2, warmup=1)
    assert "".join(calls) == "cba" + "abc" + "cba"
    assert set(timed) == set("abc") and all(times.wall.calls == 2 for times in timed.values())
    with pytest.raises(OptionError, match="rounds"):
        time_in_turn({"a": int}, rounds=0)


def test_a_stopwatch_hands_on_what_calls_give_and_leaves_out_the_first():
    watch = Stopwatch()
    run = watch.wrap(lambda ms: time.sleep(ms / 1e3) or ms)
    assert [run(ms) for ms in (100, 5, 5)] == [100, 5, 5]
    assert watch.times(warmup=1).wall.p90_ms < 60 and watch.times(warmup=1).wall.calls == 2
    assert watch.times(warmup=3).wall.calls == 1  # the last one, rather than none


# -- circumstances -------------------------------------------------------------
@pytest.mark.parametrize("fails", [False, True])
def test_evaluation_mode_without_gradients_and_all_put_back(fails: bool):
    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)
            self.seen: list[tuple[bool, bool]] = []

        def forward(self, image: Tensor) -> Tensor:
            self.seen.append((self.training, torch.is_grad_enabled()))
            if fails:
                raise IndexError
            return self.norm(image)

    net = Watched().train()
    net.norm.eval()
    try:
        with inference(net):
            net(torch.zeros(1, 3, 8, 8))
    except IndexError:
        assert fails
    assert net.seen == [(False, False)]
    assert net.training and not net.norm.training and torch.is_grad_enabled()
    assert torch.equal(net.norm.running_mean, torch.zeros(3))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no such call here")
def test_pinned_for_as_long_as_it_lasts():
    before = os.sched_getaffinity(0)
    with pinned(1) as cpus:
        assert os.sched_getaffinity(0) == set(cpus) and len(cpus) == 1
    assert os.sched_getaffinity(0) == before
