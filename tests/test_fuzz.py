"""Options, specs and checkpoints at random: whatever they are, an error is one that the user is told in a line.

Some hundred cases by default; ``pytest -m slow tests/test_fuzz.py`` runs ten thousand.
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUIET, TINY, paired_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coronet_plugin import Compression, example_input, load_generator
from coronet_plugin.checkpoint.tensors import read_tensors
from coronet_plugin.errors import UserError
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.training import state as training_state
from coronet_plugin.training.options import TrainingOptions
from options.test_options import TestOptions
from options.train_options import TrainOptions

ARCHITECTURE = dict(netG="resnet_6blocks", input_nc=3, output_nc=3, ngf=8, norm="instance", use_dropout=False)


def many(quick: int, slow: int):
    """Runs a test with few cases, and with many when slow tests are asked for."""
    return pytest.mark.parametrize("cases", [quick, pytest.param(slow, marks=pytest.mark.slow)])


def fuzz(cases: int, check: Callable[[Any], None], strategy: st.SearchStrategy[Any]) -> int:
    """Calls ``check`` that often; returns how many cases were errors that the user is told."""
    told, ran = [], []

    @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def one(value: Any) -> None:
        ran.append(1)
        try:
            check(value)
        except UserError as error:
            assert str(error).strip() and "\n" not in str(error)
            told.append(error)

    one()
    assert len(ran) >= cases
    return len(told)


# -- options ------------------------------------------------------------------
TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "nan",
            "inf",
            "-inf",
            "-1",
            "0",
            "1",
            "1e99",
            "99999999999999999999",
            "..",
            "../x",
            "/",
            "a,b",
            "G",
            "{ngf}",
            "{",
            "%s",
            "\u202e",
            "💥",
            "resnet_6blocks",
            "unet_256",
            "batch",
            "20ms",
            "2.6G",
            "0.1",
        ]
    ),  # fmt: skip
    st.text(max_size=12).filter(lambda text: "\x00" not in text),
    st.integers(-(10**12), 10**12).map(str),
    st.floats().map(str),
)


def known_options(options: type, model: str) -> list[str]:
    from options.parser import Parser

    made = options()
    parser = made._gather(made.initialize(Parser(["--model", model, "--dataroot", "x"])))
    names = {action.option_strings[-1] for action in parser._actions if action.option_strings}
    return sorted(names - {"--checkpoints_dir"})  # where it says files are written, wherever that is


@many(60, 5000)
def test_options(cases, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    phases = [
        (TrainOptions, "pix2pix"),
        (TrainOptions, "coronet"),
        (TestOptions, "coronet"),
        (TestOptions, "test"),
    ]
    kinds = [(options, model, known_options(options, model)) for options, model in phases]

    def words(kind):
        options, model, names = kind
        pair = st.tuples(st.sampled_from([*names, "--nothing", "word"]), st.none() | TEXTS)
        return st.tuples(st.just(options), st.just(model), st.lists(pair, max_size=5))

    def check(case) -> None:
        options, model, pairs = case
        given_words = [word for pair in pairs for word in pair if word is not None]
        arguments = [
            "--dataroot",
            "x",
            "--checkpoints_dir",
            str(tmp_path / "c"),
            "--model",
            model,
            *given_words,
        ]
        errors = io.StringIO()
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(errors):
                opt = options().parse(arguments)
        except SystemExit as left:
            assert left.code == 0 or (left.code == 2 and len(errors.getvalue().splitlines()) == 1)
            return
        if hasattr(opt, "coronet_budget"):
            TrainingOptions.of(opt)

    fuzz(cases, check, st.sampled_from(kinds).flatmap(words))
    assert not list(Path("/").glob("*_opt.txt"))
    assert {path.name for path in tmp_path.iterdir()} <= {"c"}


# -- specs --------------------------------------------------------------------
@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    generator = build_generator(**ARCHITECTURE)
    compression = Compression(
        generator, example_input(generator, 16), search_steps=1, budget=0.5, architecture=ARCHITECTURE
    )
    compression.slim()
    path = tmp_path_factory.mktemp("fuzz") / "latest_net_G.pth"
    compression.save(path)
    return path


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-2, 10) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def replaced(value: Any, steps: list[int], new: Any) -> Any:
    """``value`` with the part that ``steps`` lead to replaced by ``new``, or dropped if that is ``...``."""
    value = copy.copy(value)
    keys = (
        list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    )
    if not keys:
        return new
    key = keys[steps[0] % len(keys)]
    if len(steps) == 1 and new is ...:
        del value[key]
    elif len(steps) == 1:
        value[key] = new
    else:
        value[key] = replaced(value[key], steps[1:], None if new is ... else new)
    return value


PATHS = st.lists(st.integers(0, 10**6), min_size=1, max_size=4)


@many(40, 2500)
def test_specs(cases, saved):
    good = json.loads(saved.with_suffix(".json").read_text())

    def check(case) -> None:
        steps, new = case
        text = json.dumps(replaced(good, steps, new))
        saved.with_suffix(".json").write_text(text)
        load_generator(saved)

    try:
        assert fuzz(cases, check, st.tuples(PATHS, JSON | st.just(...))) > cases / 4
    finally:
        saved.with_suffix(".json").write_text(json.dumps(good))


@many(20, 1000)
def test_texts_of_specs(cases, saved):
    good = saved.with_suffix(".json").read_bytes()

    def check(case) -> None:
        saved.with_suffix(".json").write_bytes(damaged(good, *case))
        load_generator(saved)

    try:
        fuzz(cases, check, DAMAGE)
    finally:
        saved.with_suffix(".json").write_bytes(good)


# -- weights ------------------------------------------------------------------
DAMAGE = st.tuples(
    st.sampled_from(["cut", "flip", "insert", "zero"]),
    st.floats(0, 1, exclude_max=True),
    st.binary(min_size=1, max_size=64),
)


def damaged(data: bytes, how: str, where: float, what: bytes) -> bytes:
    at = int(where * len(data))
    if how == "cut":
        return data[:at]
    if how == "flip":
        return data[:at] + bytes([data[at] ^ what[0]]) + data[at + 1 :]
    if how == "insert":
        return data[:at] + what + data[at:]
    return data[:at] + bytes(len(what)) + data[at + len(what) :]


@many(20, 1000)
def test_bytes_of_weights(cases, saved):
    """A changed byte within a tensor's values is not noticed, and is no error."""
    good = saved.read_bytes()

    def check(case) -> None:
        saved.write_bytes(damaged(good, *case))
        load_generator(saved)

    try:
        fuzz(cases, check, DAMAGE)
    finally:
        saved.write_bytes(good)


TENSORS = st.builds(
    torch.zeros,
    st.lists(st.integers(0, 9), max_size=5),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.int64, torch.bool, torch.complex64]),
)
VALUES = TENSORS | JSON | st.just(...)


@many(20, 1000)
def test_tensors_of_weights(cases, saved):
    good = torch.load(saved)
    names = list(good)

    def check(case) -> None:
        number, name, new = case
        state = dict(good)
        value = state.pop(names[number % len(names)])
        if new is not ...:
            state[name or names[number % len(names)]] = new if name is None else value
        torch.save(state, saved)
        load_generator(saved)

    try:
        fuzz(cases, check, st.tuples(st.integers(0, 10**6), st.none() | st.text(max_size=20), VALUES))
    finally:
        torch.save(good, saved)


# -- training states ----------------------------------------------------------
@many(6, 500)
def test_training_states(cases, tmp_path):
    """A state in which anything is replaced is either taken up or refused."""
    from models import create_model

    words = ["--dataroot", paired_folder(tmp_path, 1, 32), "--checkpoints_dir", tmp_path / "c", "--name", "a"]
    words += ["--model", "coronet", "--coronet_base", "pix2pix", "--coronet_budget", 0.5, "--pool_size", 2]
    with redirect_stdout(io.StringIO()):
        opt = TrainOptions().parse([str(word) for word in [*words, *TINY, *QUIET, "--ngf", 8]])
        model = create_model(opt)
        model.setup(opt)
    image = torch.rand(1, 3, 32, 32)
    model.set_input({"A": image, "B": image, "A_paths": ["a"], "B_paths": ["a"]})
    model.optimize_parameters()
    model.guard.stop()
    model.save_networks("latest")
    for name in [name for name, value in vars(model).items() if isinstance(value, torch.Tensor)]:
        delattr(model, name)  # a step's images and losses hold its graph, which cannot be copied
    path = tmp_path / "c" / "a" / "latest_coronet_state.pth"
    good = read_tensors(path)

    def check(case) -> None:
        steps, new = case
        torch.save(replaced(good, steps, new), path)
        state = training_state.read(path)
        taker = copy.deepcopy(model)
        with training_state.explain_misfit(path):
            taker.take_up_(state, path)
            training_state.restore_(taker, taker.place, state)

    assert fuzz(cases, check, st.tuples(PATHS, VALUES)) > 0
