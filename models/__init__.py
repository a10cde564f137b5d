"""Model types: ``--model NAME`` is the class NameModel in ``models/NAME_model.py``.

To add one, put such a file here: subclass :class:`models.base_model.BaseModel` and
implement ``set_input``, ``forward`` and ``optimize_parameters``. Files written for an
upstream checkout work as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from models.base_model import BaseModel
from util.find import find_class

Setter = Callable[[argparse.ArgumentParser, bool], argparse.ArgumentParser]


def find_model_using_name(model_name: str) -> type[BaseModel]:
    """The model class behind ``--model model_name``.

    Raises:
        OptionError: there is no such file, or no such class in it; lists those that exist.
    """
    return find_class(model_name, __name__, "model", BaseModel, "--model")


def get_option_setter(model_name: str) -> Setter:
    """The function that adds the options of a model to a parser."""
    return find_model_using_name(model_name).modify_commandline_options


def create_model(opt: argparse.Namespace) -> BaseModel:
    """The model of ``opt.model``; call its ``setup(opt)`` next."""
    model = find_model_using_name(opt.model)(opt)
    print(f"model [{type(model).__name__}] was created")
    return model
