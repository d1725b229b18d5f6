"""An exported graph cut into its parts. No torch here."""

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

from spatial_mllm_ros.models.onnx.functions import spell_out, use_kernels
from spatial_mllm_ros.models.onnx.seams import Part, parts_of
from spatial_mllm_ros.serving.onnx_file import Description, ExportError, data_file


def parts(path: Path, description: Description, *, kernels: bool) -> dict[str, onnx.ModelProto]:
    """The parts by name; their weights stay where they are, in the file beside ``path``.

    kernels: with ONNX Runtime's kernels for what the file names as functions; else with these spelled out.
    Raises ExportError where the graph has no such seams.
    """
    every = parts_of(description.kind, description.config)
    cut = {part.name: ir.to_proto(_cut(path, description.kind, part, kernels)) for part in every}
    for model in cut.values():
        for initializer in model.graph.initializer:
            for entry in initializer.external_data:
                if entry.key == "location":  # the files may have been renamed
                    entry.value = data_file(path).name
    return cut


def _cut(path: Path, kind: str, part: Part, kernels: bool) -> ir.Model:
    model = ir.load(path)
    graph = model.graph
    values = {str(value.name): value for value in graph.inputs}
    values |= {str(value.name): value for node in graph for value in node.outputs}
    missing = {*part.takes, *part.gives} - set(values)
    if missing:
        raise ExportError(
            f"{path} is not {kind} of this version of this package (it has no {', '.join(sorted(missing))}): export it "
            f"again with `spatial-mllm export {kind}`"
        )
    given, inputs = set(graph.inputs), []
    for name in part.takes:
        value = values[name]
        if value in given:
            inputs.append(value)
            continue
        new = ir.val(name, type=value.type, shape=value.shape)
        value.name = f"{name}.before"
        value.replace_all_uses_with(new)
        inputs.append(new)
    graph.outputs[:] = [values[name] for name in part.gives]
    graph.inputs[:] = inputs
    graph.name = f"{graph.name}_{part.name}"
    RemoveUnusedNodesPass()(model)
    (use_kernels if kernels else spell_out)(model)
    CommonSubexpressionEliminationPass()(model)
    RemoveUnusedFunctionsPass()(model)
    RemoveUnusedOpsetsPass()(model)
    return model
