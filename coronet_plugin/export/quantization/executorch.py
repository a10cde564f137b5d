"""int8 for ExecuTorch with XNNPACK: torchao's quantization of exported programs, of convolutions alone.

Norms that were rewritten as arithmetic would be quantized too, and lose far more than convolutions do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from coronet_plugin.export.pytorch import exported_program
from coronet_plugin.export.quantization import Quantization, Write, tensors
from coronet_plugin.export.silence import silenced
from coronet_plugin.export.targets import Job


def begin(job: Quantization, folder: Path) -> Write:
    """Trace the generator once; every quantization starts from that program."""
    program = exported_program(Job(job.generator, job.example))

    def write(path: Path, floats: frozenset[str]) -> None:
        with silenced(), torch.no_grad():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            quantized = quantized_module(program, _quantizer(job, floats), job)
            exported = torch.export.export(quantized, (job.example,))
            edge = to_edge_transform_and_lower(
                exported, partitioner=[XnnpackPartitioner()], constant_methods=dict(job.entries)
            )
            path.write_bytes(edge.to_executorch().buffer)

    return write


def quantized_module(program: Any, quantizer: Any, job: Quantization) -> Any:
    """The program's module with rounding where ``quantizer`` says, in ranges of the calibration pictures."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    watched = prepare_pt2e(program.module(), quantizer)
    for picture in tensors(job.pictures):
        watched(picture)
    return convert_pt2e(watched)


def _quantizer(job: Quantization, floats: frozenset[str]) -> Any:
    """XNNPACK's quantizer for all convolutions but ``floats``, and for nothing else.

    Its own choice by module names asks weights for the module they belong to, which exported programs do not
    say. It also hands a convolution's range on to what follows, such as the mean in a norm.
    """
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack

    operations = (*xnnpack.CONV_TARGETS, *xnnpack.CONV_TRANSPOSE_TARGETS)

    class Quantizer(xnnpack.XNNPACKQuantizer):  # type: ignore[misc]
        def annotate(self, model: Any) -> Any:
            model = super().annotate(model)
            for node in model.graph.nodes:
                if node.op == "call_function" and node.target not in operations:
                    node.meta.pop("quantization_annotation", None)
            return model

    quantizer, scheme = Quantizer(), xnnpack.get_symmetric_quantization_config(is_per_channel=True)
    quantizer.set_filter_function(lambda node: not floats.intersection(_modules(node)))
    for operation in operations:
        quantizer.set_operator_type(operation, scheme)
    return quantizer


def _modules(node: Any) -> list[str]:
    """Names of the modules an operation is in."""
    return [name for name, _ in node.meta.get("nn_module_stack", {}).values()]
