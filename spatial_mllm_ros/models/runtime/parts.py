"""An exported encoder cut into its two parts: what is computed for each frame by itself, and what relates the frames."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)

from spatial_mllm_ros.models.export.functions import spell_out, use_kernels
from spatial_mllm_ros.models.export.onnx_file import ExportError

SEAM = ("frame_tokens", "cosine", "sine")
"""Values between the two parts."""
PARTS = ("frames", "relate")


def parts(path: Path, *, kernels: bool) -> dict[str, onnx.ModelProto]:
    """Both parts by name; their weights stay where they are, in the file beside ``path``.

    kernels: with ONNX Runtime's kernels for what the file names as functions; else with these spelled out.
    Raises ExportError where the file has no such seam.
    """
    return {name: ir.to_proto(_part(path, name, kernels)) for name in PARTS}


def _part(path: Path, name: str, kernels: bool) -> ir.Model:
    model = ir.load(path)
    graph = model.graph
    seam = [value for node in graph for value in node.outputs if value.name in SEAM]
    if sorted(str(value.name) for value in seam) != sorted(SEAM):
        raise ExportError(
            f"{path} is not an encoder of this package: export it again with `spatial-mllm export encoder`"
        )
    if name == PARTS[0]:
        graph.outputs[:] = seam
    else:
        inputs = [ir.val(str(value.name), type=value.type, shape=value.shape) for value in seam]
        for value, new in zip(seam, inputs, strict=True):
            value.name = f"{value.name}.before"
            value.replace_all_uses_with(new)
        graph.inputs[:] = inputs
    graph.name = f"{graph.name}_{name}"
    RemoveUnusedNodesPass()(model)
    (use_kernels if kernels else spell_out)(model)
    CommonSubexpressionEliminationPass()(model)
    RemoveUnusedFunctionsPass()(model)
    RemoveUnusedOpsetsPass()(model)
    return model
