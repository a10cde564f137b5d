"""The four generators of pytorch-CycleGAN-and-pix2pix: two ResNets and two U-Nets.

Written anew, with the same state_dict keys and shapes, so that weights move both ways.
Used by the bundled host and by whoever loads a compressed generator with the package
alone; needs nothing but torch. ``forward`` never reads a width, so channels may be
removed later by replacing parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from coronet_plugin.errors import DataError, OptionError

NormLayer = Callable[[int], nn.Module]

RESNET_BLOCKS = {"resnet_9blocks": 9, "resnet_6blocks": 6}
"""Number of residual blocks by ``--netG``."""
UNET_DOWNS = {"unet_128": 7, "unet_256": 8}
"""Number of halvings by ``--netG``; height and width must be multiples of 2 to this power."""
PADDINGS = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d, "zero": None}


def sides(netG: str) -> int:
    """What height and width must be multiples of for ``--netG`` to give the same size back; 1 if unknown."""
    return 4 if netG in RESNET_BLOCKS else 2 ** UNET_DOWNS.get(netG, 0)


def wrong_size(what: str, multiple: int, size: tuple[int, int]) -> str:
    """The one message about (width, height) ``size`` for ``what``, which takes sides of multiples."""
    fitting = [
        "x".join(str(max(1, side // multiple + up) * multiple if side % multiple else side) for side in size)
        for up in (0, 1)
    ]
    nearest = " or ".join(dict.fromkeys(fitting))
    return (
        f"{what} takes images with sides of multiples of {multiple} pixels, and got {size[0]}x{size[1]}; the "
        f"nearest that work: {nearest}"
    )


def check_size(netG: str, size: tuple[int, int], exactly: bool = False, where: str = "") -> None:
    """Refuse images of (width, height) ``size`` that the U-Net ``--netG`` cannot halve to its bottleneck.

    ``exactly``: also those that a ResNet gives back larger than they were. ``where``: a file of that size.

    Raises:
        DataError: names the nearest sizes that work.
    """
    multiple = sides(netG)
    if (exactly or netG in UNET_DOWNS) and any(side % multiple for side in size):
        found = f" ({where})" if where else ""
        raise DataError(
            f"{wrong_size(f'--netG {netG}', multiple, size)}{found}; set --load_size and --crop_size with "
            "--preprocess resize_and_crop, or choose another --netG"
        )


def get_norm_layer(norm_type: str = "instance") -> NormLayer:
    """A function from a number of channels to a norm layer: ``batch``, ``instance`` or ``none``.

    Batch norm has scale, shift and running statistics; instance norm has none of them.

    Raises:
        OptionError: there is no such norm.
    """
    layers: dict[str, NormLayer] = {
        "batch": functools.partial(nn.BatchNorm2d, affine=True, track_running_stats=True),
        "instance": functools.partial(nn.InstanceNorm2d, affine=False, track_running_stats=False),
        "none": nn.Identity,
    }
    if norm_type not in layers:
        raise OptionError(f"--norm {norm_type} is not known; choose one of {', '.join(layers)}")
    return layers[norm_type]


def needs_bias(norm_layer: NormLayer) -> bool:
    """Whether a convolution before this norm has a bias.

    Only before instance norm: batch norm brings its own shift, and without norm the
    files of upstream have none either.
    """
    return getattr(norm_layer, "func", norm_layer) is nn.InstanceNorm2d


def build_generator(
    input_nc: int, output_nc: int, ngf: int, netG: str, norm: str = "batch", use_dropout: bool = False
) -> nn.Module:
    """A generator by its ``--netG`` name: (N, input_nc, H, W) to (N, output_nc, H, W) in [-1, 1].

    ``ngf``: channels of the outermost feature map. Weights are torch's defaults.

    Raises:
        OptionError: ``netG`` or ``norm`` is unknown.
    """
    norm_layer = get_norm_layer(norm)
    if netG in RESNET_BLOCKS:
        return ResnetGenerator(input_nc, output_nc, ngf, norm_layer, use_dropout, RESNET_BLOCKS[netG])
    if netG in UNET_DOWNS:
        return UnetGenerator(input_nc, output_nc, UNET_DOWNS[netG], ngf, norm_layer, use_dropout)
    known = ", ".join([*RESNET_BLOCKS, *UNET_DOWNS])
    raise OptionError(f"--netG {netG} is not known; choose one of {known}")


class ResnetGenerator(nn.Module):
    """Two halvings, ``n_blocks`` residual blocks, two doublings.

    (N, input_nc, H, W) to (N, output_nc, H, W) in [-1, 1]; H and W multiples of 4 come out as they went in.
    """

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        ngf: int = 64,
        norm_layer: NormLayer = nn.BatchNorm2d,
        use_dropout: bool = False,
        n_blocks: int = 6,
        padding_type: str = "reflect",
    ) -> None:
        super().__init__()
        bias = needs_bias(norm_layer)

        def activated(conv: nn.Module, channels: int) -> list[nn.Module]:
            return [conv, norm_layer(channels), nn.ReLU(True)]

        widths = (ngf, ngf * 2, ngf * 4)
        layers = [nn.ReflectionPad2d(3), *activated(nn.Conv2d(input_nc, ngf, 7, bias=bias), ngf)]
        for narrow, wide in zip(widths, widths[1:]):
            layers += activated(nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=bias), wide)
        layers += [
            ResnetBlock(widths[-1], padding_type, norm_layer, use_dropout, bias) for _ in range(n_blocks)
        ]
        for wide, narrow in zip(widths[:0:-1], widths[-2::-1]):
            up = nn.ConvTranspose2d(wide, narrow, 3, stride=2, padding=1, output_padding=1, bias=bias)
            layers += activated(up, narrow)
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, output_nc, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, input: Tensor) -> Tensor:
        return self.model(input)


class ResnetBlock(nn.Module):
    """``x`` plus two 3x3 convolutions of it; shape (N, dim, H, W) stays.

    With dropout the layers of ``conv_block`` after it move one place up, which is why
    files made with and without dropout have different keys.
    """

    def __init__(
        self, dim: int, padding_type: str, norm_layer: NormLayer, use_dropout: bool, use_bias: bool
    ) -> None:
        super().__init__()
        if padding_type not in PADDINGS:
            raise OptionError(f"padding {padding_type!r} is not known; choose one of {', '.join(PADDINGS)}")
        pad = PADDINGS[padding_type]

        def convolution() -> list[nn.Module]:
            padding = [] if pad is None else [pad(1)]
            conv = nn.Conv2d(dim, dim, 3, padding=1 if pad is None else 0, bias=use_bias)
            return [*padding, conv, norm_layer(dim)]

        between = [nn.ReLU(True), *([nn.Dropout(0.5)] if use_dropout else [])]
        self.conv_block = nn.Sequential(*convolution(), *between, *convolution())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class UnetGenerator(nn.Module):
    """``num_downs`` halvings to the bottleneck and as many doublings, with a skip at every level.

    (N, input_nc, H, W) to (N, output_nc, H, W) in [-1, 1]; H and W must be multiples of ``2 ** num_downs``.
    """

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        num_downs: int,
        ngf: int = 64,
        norm_layer: NormLayer = nn.BatchNorm2d,
        use_dropout: bool = False,
    ) -> None:
        super().__init__()
        widest = ngf * 8
        block = UnetSkipConnectionBlock(widest, widest, innermost=True, norm_layer=norm_layer)
        for _ in range(num_downs - 5):
            block = UnetSkipConnectionBlock(
                widest, widest, submodule=block, norm_layer=norm_layer, use_dropout=use_dropout
            )
        for outer, inner in ((ngf * 4, widest), (ngf * 2, ngf * 4), (ngf, ngf * 2)):
            block = UnetSkipConnectionBlock(outer, inner, submodule=block, norm_layer=norm_layer)
        self.model = UnetSkipConnectionBlock(
            output_nc, ngf, input_nc=input_nc, submodule=block, outermost=True, norm_layer=norm_layer
        )

    def forward(self, input: Tensor) -> Tensor:
        return self.model(input)


class UnetSkipConnectionBlock(nn.Module):
    """One level of a U-Net: halve, go through ``submodule``, double, append to the input.

    (N, input_nc, H, W) to (N, input_nc + outer_nc, H, W), or to (N, outer_nc, H, W) if ``outermost``.
    """

    def __init__(
        self,
        outer_nc: int,
        inner_nc: int,
        input_nc: int | None = None,
        submodule: nn.Module | None = None,
        outermost: bool = False,
        innermost: bool = False,
        norm_layer: NormLayer = nn.BatchNorm2d,
        use_dropout: bool = False,
    ) -> None:
        super().__init__()
        self.outermost = outermost
        bias = needs_bias(norm_layer)
        from_below = inner_nc if innermost else inner_nc * 2  # the level below appends its input

        down: list[nn.Module] = [
            nn.Conv2d(outer_nc if input_nc is None else input_nc, inner_nc, 4, 2, 1, bias=bias)
        ]
        up: list[nn.Module] = [
            nn.ReLU(True),
            nn.ConvTranspose2d(from_below, outer_nc, 4, 2, 1, bias=bias or outermost),
        ]
        if outermost:
            up.append(nn.Tanh())
        else:
            down.insert(0, nn.LeakyReLU(0.2, True))
            up.append(norm_layer(outer_nc))
            if not innermost:
                down.append(norm_layer(inner_nc))
        if use_dropout and not (outermost or innermost):
            up.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*down, *([] if submodule is None else [submodule]), *up)

    def forward(self, x: Tensor) -> Tensor:
        if self.outermost:
            return self.model(x)
        # The first layer activates x in place, so what the skip carries is activated;
        # trained weights depend on it.
        return torch.cat([x, self.model(x)], 1)
