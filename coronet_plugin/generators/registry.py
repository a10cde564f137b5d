"""Families of generators: how each is built, run and recognised, by the name that ``--netG`` and specs have.

A family registers itself with :func:`family`: those of this package in modules beside this one, those of
installed packages through the entry-point group ``coronet.families``, the user's own in a module named by
``--coronet_family``. A spec holds the name and a config; nothing it says is ever imported.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from coronet_plugin.errors import DataError, OptionError
from coronet_plugin.generators.config import PLAIN, checked, fields_of, from_text, shorten
from coronet_plugin.sizes import wrong_size
from coronet_plugin.user_code import load_entry_points

GROUP = "coronet.families"


@dataclass(frozen=True)
class Standalone:
    """Parts of a file that rebuilds a generator with torch alone (:mod:`coronet_plugin.standalone`).

    ``classes``: copied as text, using torch and each other alone; ``call``: the expression that builds the
    generator from the file's constants, which are ``INPUT_NC``, ``OUTPUT_NC``, ``settings`` (Python text by
    name) and what ``widths(generator)`` gives (channels by name), under the line ``comment``.
    """

    classes: tuple[type[nn.Module], ...]
    call: str
    settings: Mapping[str, str]
    widths: Callable[[nn.Module], Mapping[str, int | tuple[int, ...]]]
    comment: str


class Family:
    """Generators that one function builds; subclass it, with a docstring that says in a line what they are.

    ``config``: a frozen dataclass of bool, int, float and str, the architecture in the spec. Entries named as
    a host's option (``input_nc``, ``output_nc``, ``ngf``, ``norm``, ``use_dropout``) are filled from it.
    ``inputs``: how many tensors ``forward`` takes. ``output_range``: lowest and highest value it gives.
    ``untold``: entries of the config that leave no trace in the tensors.
    """

    name: str = ""
    config: ClassVar[type]
    inputs: int = 1
    output_range: tuple[float, float] = (-1.0, 1.0)
    untold: tuple[str, ...] = ()
    rounds_up: bool = False
    """Whether pictures of other sides run too, and come out with sides rounded up to the multiple."""

    def build(self, config: Any) -> nn.Module:
        """Make the dense generator, with torch's random weights."""
        raise NotImplementedError

    @property
    def about(self) -> str:
        """The generators described in a line."""
        return (type(self).__doc__ or "").strip().partition("\n")[0]

    def default_config(self) -> Any:
        """Make the config that is meant where only the family's name is given."""
        return self.config()

    def example(self, config: Any, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Make random inputs of (H, W) ``size`` on the CPU, the same every time.

        Here one image (1, input_nc, H, W) in [-1, 1]; a family of several inputs overrides it.
        """
        noise = torch.Generator().manual_seed(0)
        image = torch.rand(1, getattr(config, "input_nc", 3), max(size), max(size), generator=noise) * 2 - 1
        return (image[..., : size[0], : size[1]].contiguous(),)

    def check_one_image(self) -> None:
        """Raises OptionError unless the generators take one image."""
        if self.inputs != 1:
            raise OptionError(
                f"generators of the family {self.name} take {self.inputs} inputs, this command is for those "
                "of one image; coronet inspect and coronet_plugin.load_generator take them"
            )

    def side_multiple(self, config: Any) -> int:
        """Number that height and width of the input must be multiples of."""
        return 1

    def deduce(self, state: Mapping[str, Tensor]) -> Any:
        """Guess the config of the dense generator with the tensors ``state``, or None if it is none.

        Whoever asks builds the guess and compares all tensors.
        """
        return self.default_config()

    def sample(
        self, generator: nn.Module, config: Any, count: int, noise: torch.Generator, steps: int
    ) -> Tensor:
        """Make ``count`` pictures (count, C, H, W) in :attr:`output_range` of nothing but ``noise``.

        Called without gradients, in eval mode. ``steps``: how often a generator that works step by step
        runs. For families of generators that take no picture; others refuse with OptionError.
        """
        raise OptionError(
            f"generators of the family {self.name} make pictures of pictures, not of noise; coronet "
            "translate runs them"
        )

    @property
    def draws(self) -> bool:
        """Whether the generators make pictures of noise alone, by a :meth:`sample` of their own."""
        return type(self).sample is not Family.sample

    def taps(self, config: Any) -> tuple[str, ...]:
        """Names of a few layers, first to last, by whose outputs a student is taught; or none."""
        return ()

    def standalone(self, config: Any) -> Standalone | None:
        """Parts of a file without the package, or None where no such file can be written."""
        return None

    def describe(self, config: Any) -> str:
        """Say the config in a line."""
        return ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(config).items())

    def from_options(self, options: Mapping[str, str]) -> Any:
        """Make the config of a host's options (text by name); what they do not say is as by default."""
        return from_text(self.config, options, dataclasses.asdict(self.default_config()))

    def architecture(self, config: Any) -> dict[str, Any]:
        """Give what a spec says of the generator: the name and the config."""
        return {"netG": self.name, **dataclasses.asdict(config)}


FAMILIES: dict[str, Family] = {}
"""Every family by its name; :func:`families` adds those of installed packages."""


def family(name: str) -> Callable[[type[Family]], type[Family]]:
    """Register a :class:`Family` under ``name``, an identifier such as ``sketch``.

    Raises:
        OptionError: the name is none, is taken, or the config is no frozen dataclass of plain values.
    """

    def register(kind: type[Family]) -> type[Family]:
        if not name.isidentifier():
            raise OptionError(f"{name!r} is no name of a family; give an identifier such as sketch")
        taken = FAMILIES.get(name)
        if taken is not None and _origin(type(taken)) != _origin(kind):  # a module may be imported again
            raise OptionError(f"two families are named {name}: {_origin(type(taken))} and {_origin(kind)}")
        try:
            fields_of(kind.config)
        except (AttributeError, TypeError) as error:
            plain = ", ".join(t.__name__ for t in PLAIN)
            raise OptionError(f"the family {name} needs a config of {plain}: {error}") from error
        FAMILIES[name] = kind()
        FAMILIES[name].name = name
        return kind

    return register


def _origin(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


@functools.cache
def _load_installed() -> None:
    load_entry_points(GROUP)


def families() -> dict[str, Family]:
    """All registered families by name, those of installed packages included."""
    _load_installed()
    return dict(FAMILIES)


def find_family(name: str) -> Family | None:
    """The family registered under ``name``, or None."""
    return FAMILIES.get(name) or families().get(name)


def family_named(name: str) -> Family:
    """The family registered under ``name``.

    Raises:
        OptionError: there is none; lists those there are.
    """
    found = find_family(name)
    if found is None:
        named = name if name.isidentifier() and len(name) < 50 else shorten(name)
        raise OptionError(
            f"--netG {named} is not known; choose one of {', '.join(families())}, or name the module that "
            "registers it with --coronet_family"
        )
    return found


def check_size(name: str, size: tuple[int, int], exactly: bool = False, where: str = "") -> None:
    """Refuse pictures of (width, height) ``size`` that generators of the family ``name`` cannot take.

    ``exactly``: also those that come out larger than they were. ``where``: a file of that size.

    Raises:
        DataError: names the nearest sizes that work.
    """
    found = find_family(name)
    if found is None or (found.rounds_up and not exactly):
        return
    multiple = found.side_multiple(found.default_config())
    if any(side % multiple for side in size):
        file = f" ({where})" if where else ""
        raise DataError(
            f"{wrong_size(f'--netG {name}', multiple, size)}{file}; set --load_size and --crop_size with "
            "--preprocess resize_and_crop, or choose another --netG"
        )


def read_architecture(architecture: Mapping[str, Any]) -> tuple[Family, Any]:
    """The family and the checked config that a spec's architecture speaks of. Nothing is imported for it.

    Raises:
        OptionError: the family is not registered, or its config is not like that.
    """
    values = dict(architecture)
    found = family_named(values.pop("netG"))
    return found, checked(found.config, values)


def is_registered(architecture: Mapping[str, Any]) -> bool:
    """True if the architecture of a spec can be built: it names a registered family, not a class."""
    name = architecture.get("netG")
    return isinstance(name, str) and find_family(name) is not None
