"""Evaluations as plain text: one table, and below it what its figures depend on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from coronet_plugin.evaluation.distances import Distance, Overlap
from coronet_plugin.evaluation.protocols import PROTOCOLS
from coronet_plugin.evaluation.record import Evaluation

_NAMES_SHOWN = 3
FLOORS = {"samples": "samples against every other real picture; floor: those real pictures against the rest"}
"""By protocol, where the floor is of something else than test and training pictures."""


def text(evaluations: Sequence[Evaluation]) -> str:
    """The table, with the floor beside every distance; below it what they depend on."""
    rows = [_row(evaluation) for evaluation in evaluations]
    header = list(dict.fromkeys(key for row in rows for key in row))
    lines = [header, *([row.get(key, "") for key in header] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    below = dict.fromkeys(line for evaluation in evaluations for line in _below(evaluation))
    return "\n".join([*table, "", *below, *_subsets(evaluations), *_unequal(evaluations)]).rstrip()


def _row(evaluation: Evaluation) -> dict[str, str]:
    paired, distance, floor = evaluation.paired, evaluation.distance, evaluation.floor
    row = {"run": evaluation.run, "pictures": evaluation.output, "size": evaluation.size}
    if paired:
        row |= {"pairs": str(paired.count), "SSIM": f"{paired.ssim:.3f}"}
        row |= {"PSNR": f"{paired.psnr:.2f} dB", "L1": f"{paired.l1:.4f}"}
    if evaluation.lpips is not None:
        row["LPIPS"] = f"{evaluation.lpips:.3f}"
    if distance:
        row |= {"counts": _counts(distance), "FID": f"{distance.fid:.2f}", "KID x 1000": _kid(distance)}
    if evaluation.overlap:
        row |= _overlap(evaluation.overlap)
    if floor:
        row |= {"floor:": _counts(floor), "FID ": f"{floor.fid:.2f}", "KID x 1000 ": _kid(floor)}
    if evaluation.overlap_floor:  # a name once more with a space is another column
        row |= {f"{name} ": value for name, value in _overlap(evaluation.overlap_floor).items()}
    return row


def _overlap(found: Overlap) -> dict[str, str]:
    return {"precision": f"{found.precision:.3f}", "recall": f"{found.recall:.3f}"}


def _counts(distance: Distance) -> str:
    return f"{distance.count} : {distance.reference}"


def _kid(distance: Distance) -> str:
    return f"{1000 * distance.kid:.2f} ± {1000 * distance.kid_std:.2f}"


def _below(evaluation: Evaluation) -> Iterator[str]:
    measured = _measured([evaluation])
    if measured and evaluation.protocol in PROTOCOLS:
        yield f"protocol {evaluation.protocol}: {PROTOCOLS[evaluation.protocol]}"
    if evaluation.floor:
        yield FLOORS.get(evaluation.protocol, "floor: real test against real training pictures")
    if evaluation.overlap:
        yield f"precision and recall: {evaluation.overlap.neighbours} nearest neighbours, same features"
    if measured:
        yield f"features: {evaluation.extractor}; resize: {evaluation.resize}"
    yield from _duplicates(evaluation)
    for note in evaluation.notes:
        yield f"note, {evaluation.run}: {note}"


def _measured(evaluations: Sequence[Evaluation]) -> list[Distance]:
    return [found for evaluation in evaluations for found in (evaluation.distance, evaluation.floor) if found]


def _subsets(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Say how KID was drawn; the sizes of its subsets follow from the counts."""
    found = _measured(evaluations)
    sizes = " or ".join(str(size) for size in sorted({distance.subset_size for distance in found}))
    for subsets, seed in sorted({(distance.subsets, distance.seed) for distance in found}):
        yield f"KID: mean ± standard deviation of {subsets} subsets of {sizes} pictures a side, seed {seed}"


def _duplicates(evaluation: Evaluation) -> Iterator[str]:
    found = evaluation.duplicates
    if found is None:
        return
    of = f"test and training pictures, {evaluation.output}" if evaluation.protocol in PROTOCOLS else "the two"
    of = of.replace("fake_", "real_")
    yield f"duplicates in {of}: {_listed('exact', found.exact)}, {_listed('near', found.near)}"


def _listed(kind: str, pairs: Sequence[tuple[str, str]]) -> str:
    names = [first if first == second else f"{first} = {second}" for first, second in pairs[:_NAMES_SHOWN]]
    more = ["..."] if len(pairs) > _NAMES_SHOWN else []
    return f"{len(pairs)} {kind}" + (f" ({', '.join(names + more)})" if pairs else "")


def _unequal(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """FID depends on the counts, so figures of different counts cannot be compared."""
    for output in dict.fromkeys(evaluation.output for evaluation in evaluations):
        found = [e.distance for e in evaluations if e.output == output and e.distance]
        counts = sorted({_counts(distance) for distance in found})
        if len(counts) > 1:
            yield f"{output}: FID of {' and '.join(counts)} pictures cannot be compared; test all runs alike"
