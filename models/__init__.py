"""Model types: ``--model NAME`` is the class NameModel in ``models/NAME_model.py``.

To add one, put such a file here: subclass :class:`models.base_model.BaseModel` and
implement ``set_input``, ``forward`` and ``optimize_parameters``. Files written for an
upstream checkout work as they are.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable

from coronet_plugin.errors import OptionError
from models.base_model import BaseModel

Setter = Callable[[argparse.ArgumentParser, bool], argparse.ArgumentParser]


def find_model_using_name(model_name: str) -> type[BaseModel]:
    """The model class behind ``--model model_name``.

    Raises:
        OptionError: there is no such file, or no such class in it; lists those that exist.
    """
    module_name = f"{__name__}.{model_name}_model"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:  # the file is there but needs something that is not
            raise
        files = {m.name for m in pkgutil.iter_modules(__path__)} - {"base_model"}
        known = ", ".join(sorted(name[: -len("_model")] for name in files if name.endswith("_model")))
        raise OptionError(f"--model {model_name} is not known; there are {known}") from error
    wanted = model_name.replace("_", "").lower() + "model"
    for name, found in vars(module).items():
        if name.lower() == wanted and isinstance(found, type) and issubclass(found, BaseModel):
            return found
    raise OptionError(f"models/{model_name}_model.py has no subclass of BaseModel whose name is {wanted}")


def get_option_setter(model_name: str) -> Setter:
    """The function that adds the options of a model to a parser."""
    return find_model_using_name(model_name).modify_commandline_options


def create_model(opt: argparse.Namespace) -> BaseModel:
    """The model of ``opt.model``; call its ``setup(opt)`` next."""
    model = find_model_using_name(opt.model)(opt)
    print(f"model [{type(model).__name__}] was created")
    return model
