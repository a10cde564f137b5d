"""Say which sizes of pictures work: the one message about a size that does not."""

from __future__ import annotations


def wrong_size(what: str, multiple: int, size: tuple[int, int]) -> str:
    """Say that ``what`` takes sides of multiples, and what is near (width, height) ``size``."""
    fitting = [
        "x".join(str(max(1, side // multiple + up) * multiple if side % multiple else side) for side in size)
        for up in (0, 1)
    ]
    nearest = " or ".join(dict.fromkeys(fitting))
    return (
        f"{what} takes images with sides of multiples of {multiple} pixels, and got {size[0]}x{size[1]}; the "
        f"nearest that work: {nearest}"
    )
