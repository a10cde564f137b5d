"""Time the generators of this folder on this device, and write its latency table.

    python time_table.py

needs the Python package of the runtime that kit.json names, and numpy; nothing else. Where there is no Python,
as on a phone, any program that runs a file and prints its time does it from a computer beside the device:

    python time_table.py --command "adb shell /data/local/tmp/benchmark_model --num_threads=1 --graph=/data/local/tmp/{name}"

({file} is the path here, {name} the name of the file; push the files to the device first). Understood are times
as LiteRT's benchmark_model, ncnn's and MNN's benchmarks and ONNX Runtime's perf_test print them, and else the
last number before "ms". One thread. Every generator takes turns with one that stays the same, so that a device
that gets warm, or does other things, slows down both. Then, where the generators are trained:

    python train.py ... --coronet_budget 20ms --coronet_budget_kind latency --coronet_latency_table table.json
"""  # noqa: E501  commands stay in one line

from __future__ import annotations

import argparse
import importlib
import json
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

HERE = Path(__file__).resolve().parent
PATTERNS = (
    (r"Inference \(avg\): *([0-9.e+]+)", 1e-3),  # LiteRT, in microseconds
    (r"avg *= *([0-9.]+)", 1.0),  # ncnn, MNN
    (r"([0-9.]+) *ms", 1.0),
)
"""How programs print times, and milliseconds of their unit."""
ENOUGH_S, FEWEST, MOST = 2.0, 5, 50
Run = Callable[[], Any]


# -- runtimes ---------------------------------------------------------------------
def onnxruntime(file: Path, values: list[Any]) -> Run:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    feed = {port.name: value for port, value in zip(session.get_inputs(), values)}
    return lambda: session.run(None, feed)


def openvino(file: Path, values: list[Any]) -> Run:
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    compiled = importlib.import_module("openvino").Core().compile_model(str(file), "CPU", settings)
    return lambda: compiled(values)


def ncnn(file: Path, values: list[Any]) -> Run:
    runtime = importlib.import_module("ncnn")
    net = runtime.Net()
    net.opt.num_threads, net.opt.use_vulkan_compute = 1, False
    net.load_param(str(file))
    net.load_model(str(file.with_suffix(".bin")))
    names = zip(sorted(net.input_names()), [value[0] for value in values])
    mats = {name: runtime.Mat(value) for name, value in names}

    def run() -> None:
        with net.create_extractor() as extractor:
            for name, mat in mats.items():
                extractor.input(name, mat)
            for name in net.output_names():
                extractor.extract(name)

    return run


def mnn(file: Path, values: list[Any]) -> Run:
    interpreter = importlib.import_module("MNN").Interpreter(str(file))
    session = interpreter.createSession({"numThread": 1, "precision": "high", "backend": "CPU"})
    return lambda: interpreter.runSession(session)


def litert(file: Path, values: list[Any]) -> Run:
    try:
        runtime = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError:  # its former name, still there for small boards
        runtime = importlib.import_module("tflite_runtime.interpreter")
    interpreter = runtime.Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    for port, value in zip(interpreter.get_input_details(), values):
        interpreter.set_tensor(port["index"], value)
    return lambda: interpreter.invoke()


def executorch(file: Path, values: list[Any]) -> Run:
    importlib.import_module("executorch.extension.pybindings.portable_lib")._unsafe_reset_threadpool(1)
    program = importlib.import_module("executorch.runtime").Runtime.get().load_program(str(file))
    method, torch = program.load_method("forward"), importlib.import_module("torch")
    tensors = [torch.from_numpy(value) for value in values]
    return lambda: method.execute(tensors)


RUNTIMES = {each.__name__: each for each in (onnxruntime, openvino, ncnn, mnn, litert, executorch)}


# -- times ------------------------------------------------------------------------
def in_python(kit: dict[str, Any]) -> Callable[[str], float]:
    """Gives the milliseconds of a file by the runtime's Python package: CPU time."""
    numpy = importlib.import_module("numpy")
    values = [numpy.full(shape, 0.1, numpy.float32) for shape in kit["inputs"]]
    load = RUNTIMES[kit["runtime"]]
    reference = load(HERE / kit["reference"], values)
    first: list[float] = []

    def ms(file: str) -> float:
        run = load(HERE / file, values)
        took = [seconds(each, 1)[0] for each in (run, reference, run, reference)]
        rounds = round(ENOUGH_S / max(1e-6, sum(took[2:])))
        pairs = [seconds(run, 1) + seconds(reference, 1) for _ in range(min(MOST, max(FEWEST, rounds)))]
        mine, other = (statistics.median(each) for each in zip(*pairs))
        first.append(min(pair[1] for pair in pairs))
        return 1e3 * mine / other * first[0]

    return ms


def seconds(run: Run, calls: int) -> list[float]:
    found = []
    for _ in range(calls):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return found


def by_command(kit: dict[str, Any], command: str) -> Callable[[str], float]:
    """Gives the milliseconds of a file as another program prints them."""
    first: list[float] = []

    def once(file: str) -> float:
        words = command.replace("{file}", str(HERE / file)).replace("{name}", file)
        done = subprocess.run(words, shell=True, capture_output=True, text=True)
        return printed_ms(done.stdout + done.stderr)

    def ms(file: str) -> float:
        mine, other = once(file), once(kit["reference"])
        first.append(other)
        return mine / other * first[0]

    return ms


def printed_ms(text: str) -> float:
    """The time in what a program printed. Exits where there is none."""
    for pattern, unit in PATTERNS:
        found = re.findall(pattern, text)
        if found:
            return float(found[-1]) * unit
    sys.exit(f"no time in what the command printed: {text.strip()[-300:] or 'nothing'}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--command", help="how to time {file} or {name} instead of here in Python")
    parser.add_argument("--output", type=Path, default=HERE / "table.json", help="(default: beside this)")
    options = parser.parse_args()
    kit = json.loads((HERE / "kit.json").read_text(encoding="utf-8"))
    ms = by_command(kit, options.command) if options.command else in_python(kit)
    rows = []
    for row in kit["rows"]:
        rows.append({"widths": row["widths"], "ms": ms(row["file"])})
        print(f"{row['file']}: {rows[-1]['ms']:.3f} ms", flush=True)
    table = {**kit["table"], "runtime": kit["runtime"], "rows": rows}
    table["device"] = options.command or f"{platform.system()} {platform.machine()}"
    options.output.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print(options.output)


if __name__ == "__main__":
    main()
