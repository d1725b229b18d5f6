"""VGGT as an ONNX file: exported, simplified, reduced in precision, checked, and written with its weights beside it."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    CommonSubexpressionEliminationPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
    TopologicalSortPass,
)
from torch import nn

from spatial_mllm_ros import __version__
from spatial_mllm_ros.models.export.functions import DOMAIN, LINEAR8, OPSET, add_functions
from spatial_mllm_ros.models.export.graph import FramePart, GeometryGraph, RelatePart, exportable
from spatial_mllm_ros.models.export.onnx_file import Description, ExportError, data_file, describe
from spatial_mllm_ros.models.vggt.vggt import VGGT

PRECISIONS = ("float32", "float16", "int8")
BLOCK_SIZES = (128, 64, 32, 16)
"""Of weights in 8 bits that share a scale; the first that divides a row."""
Progress = Callable[[str, int, int | None], None]

_Dim = torch.export.Dim
_SIZE = {3: 14, 4: 14}


def export_encoder(
    vggt: VGGT,
    output: str | os.PathLike[str],
    *,
    precision: str = "float32",
    layer: int = -1,
    name: str = "",
    check: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> Description:
    """Write the aggregator: ``frames`` [1, T, 3, height, width] in [0, 1] to ``spatial_tokens`` of one layer,
    [1, T, patches, 2 * embed_dim], both float32; T, height and width (multiples of a patch) are free.

    vggt: in float32, on the CPU. precision: of the blocks' linear layers: float32, float16 (attention too) or int8
    (weights alone). name: the checkpoint's, for the records. check: by the ONNX checker.
    Returns what the file says about itself. Raises ValueError, ExportError, and OSError where it cannot be
    written; a file of that name is only replaced by a complete one.
    """
    aggregator, side = _prepared(vggt, precision).aggregator, vggt.config.patch_size
    frames, rows, columns = _Dim("frames", min=1), _Dim("rows", min=2), _Dim("columns", min=2)
    sizes = {"frames": {1: frames, 3: side * rows, 4: side * columns}}
    example = torch.rand(1, 3, 3, 3 * side, 4 * side)
    progress("exporting the frame-wise part", 0, 4)
    with torch.inference_mode():
        model = _exported(FramePart(aggregator), (example,), sizes, ["frames"], ["frame_tokens", "cosine", "sine"])
        progress("exporting the alternating part", 1, 4)
        tables = torch.rand(2, 5 + 12, aggregator.head_dim // 2)
        inputs = (torch.rand(3, 12, vggt.config.embed_dim), *tables)
        free = {
            "frame_tokens": dict.fromkeys((0, 1), _Dim.DYNAMIC),
            **{t: {0: _Dim.DYNAMIC} for t in ("cosine", "sine")},
        }
        related = _exported(RelatePart(aggregator, layer), inputs, free, list(free), ["spatial_tokens"])
    _append(model, related)
    _name_sizes(model.graph.outputs[0], 1, "frames", "patches", 2 * vggt.config.embed_dim)
    return _finish(model, vggt, Path(output), "encoder", precision, layer % vggt.config.depth, name, check, progress)


def export_geometry(
    vggt: VGGT,
    output: str | os.PathLike[str],
    *,
    precision: str = "float32",
    name: str = "",
    check: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> Description:
    """Write the aggregator with the camera and depth heads: ``frames`` as above to ``pose_enc`` [1, T, 9], ``depth``
    [1, T, height, width, 1] and ``depth_conf`` [1, T, height, width], all float32.

    As ``export_encoder``; vggt needs both heads, which stay in float32.
    """
    if vggt.camera_head is None or vggt.depth_head is None:
        raise ValueError("geometry needs the camera head and the depth head, and this VGGT was loaded without them")
    side = vggt.config.patch_size
    frames, rows, columns = _Dim("frames", min=1), _Dim("rows", min=2), _Dim("columns", min=2)
    sizes = {"frames": {1: frames, 3: side * rows, 4: side * columns}}
    example = torch.rand(1, 3, 3, 3 * side, 4 * side)
    progress("exporting", 0, 4)
    with torch.inference_mode():
        graph = GeometryGraph(_prepared(vggt, precision))
        model = _exported(graph, (example,), sizes, ["frames"], ["pose_enc", "depth", "depth_conf"])
    pose, depth, confidence = model.graph.outputs
    _name_sizes(pose, 1, "frames", 9)
    _name_sizes(depth, 1, "frames", "height", "width", 1)
    _name_sizes(confidence, 1, "frames", "height", "width")
    return _finish(model, vggt, Path(output), "geometry", precision, vggt.config.depth - 1, name, check, progress)


def to_int8(source: str | os.PathLike[str], output: str | os.PathLike[str], *, check: bool = True) -> Description:
    """Write a float32 export, ``source``, with weights in 8 bits, as ``export_encoder`` does for int8.

    Raises ExportError for a file that is not whole, ValueError for one that is not float32.
    """
    description = describe(source)
    if description.precision != "float32":
        raise ValueError(f"{os.fspath(source)} is {description.precision} already, and 8 bits are made of float32")
    model = ir.load(source)
    model.functions.clear()
    _in_8_bits(model)
    add_functions(model)
    return _write(model, Path(output), replace(description, precision="int8"), check)


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of the names, shapes and values of all parameters."""
    digest = hashlib.sha256()
    for name, values in sorted(module.named_parameters()):
        digest.update(f"{name} {list(values.shape)} {values.dtype}\n".encode())
        digest.update(values.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _prepared(vggt: VGGT, precision: str) -> VGGT:
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is not known: it is one of {', '.join(PRECISIONS)}")
    if not hasattr(torch.onnx, "ops"):
        raise ExportError(f"export needs torch 2.8 or newer, and this is {torch.__version__}: upgrade torch")
    other = {p.dtype for p in vggt.parameters()} - {torch.float32}
    if other:
        raise ValueError(f"a VGGT is exported from float32, not from {', '.join(map(str, other))}")
    return exportable(vggt, torch.float16 if precision == "float16" else torch.float32)


def _exported(
    graph: nn.Module, example: tuple[torch.Tensor, ...], sizes: dict[str, Any], inputs: list[str], outputs: list[str]
) -> ir.Model:
    """Exported and simplified (torch's exporter does so with onnxscript's optimizer, which takes weights of any size)."""
    with _quiet():
        program = torch.onnx.export(
            graph.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=sizes,
            input_names=inputs,
            output_names=outputs,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    for value in program.model.graph.inputs:
        assert value.shape is not None
        fixed = [axis for axis in sizes[value.name] if isinstance(value.shape[axis], int)]
        if fixed:
            raise RuntimeError(f"this version of torch ({torch.__version__}) fixed the axes {fixed} of {value.name}")
    return program.model


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's remarks about itself are no news to the user; its errors are raised."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _append(model: ir.Model, further: ir.Model) -> None:
    """Join two models: the inputs of the second are the outputs of the first, by name. Their values keep these names."""
    values = {value.name: value for value in model.graph.outputs}
    for value in further.graph.inputs:
        value.replace_all_uses_with(values[value.name])
    names = {node.name for node in model.graph} | {value.name for node in model.graph for value in node.outputs}
    names |= set(model.graph.initializers)
    nodes, constants = list(further.graph), list(further.graph.initializers.values())
    further.graph.remove(nodes)
    further.graph.initializers.clear()
    for node in nodes:
        if node.name in names:
            node.name = f"related.{node.name}"
    for value in (*constants, *(value for node in nodes for value in node.outputs)):
        if value.name in names:
            value.name = f"related.{value.name}"
    for constant in constants:
        model.graph.register_initializer(constant)
    model.graph.extend(nodes)
    model.graph.outputs.clear()
    outputs = list(further.graph.outputs)
    further.graph.outputs.clear()
    model.graph.outputs.extend(outputs)


def _name_sizes(value: ir.Value, *sizes: int | str) -> None:
    value.shape = ir.Shape(sizes)


def _finish(
    model: ir.Model,
    vggt: VGGT,
    output: Path,
    kind: str,
    precision: str,
    layer: int,
    name: str,
    check: bool,
    progress: Progress,
) -> Description:
    progress("simplifying", 2, 4)
    _name_sizes(model.graph.inputs[0], 1, "frames", 3, "height", "width")
    if precision == "int8":
        _in_8_bits(model)
    for step in (
        CommonSubexpressionEliminationPass(),
        RemoveUnusedNodesPass(),
        TopologicalSortPass(),
        ClearMetadataAndDocStringPass(),
    ):
        step(model)
    add_functions(model)
    RemoveUnusedOpsetsPass()(model)
    model.graph.name = f"vggt_{kind}"
    model.producer_name, model.producer_version = DOMAIN, __version__
    description = Description(
        kind=kind,
        precision=precision,
        layer=layer,
        model=name,
        weights=weights_hash(vggt.aggregator if kind == "encoder" else vggt),
        config=vggt.config.to_dict(),
        version=__version__,
        opset=OPSET,
        patch_size=vggt.config.patch_size,
        embed_dim=vggt.config.embed_dim,
    )
    progress("writing", 3, 4)
    written = _write(model, output, description, check)
    progress("written", 4, 4)
    return written


def _write(model: ir.Model, output: Path, description: Description, check: bool) -> Description:
    """Both files, complete or not at all."""
    try:
        return _write_files(model, output, description, check)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ExportError(f"the disk is full at {output.parent}: free some space, or export elsewhere") from error
        raise


def _write_files(model: ir.Model, output: Path, description: Description, check: bool) -> Description:
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        partial = Path(folder) / output.name
        ir.save(model, partial, external_data=data_file(partial).name, size_threshold_bytes=1024)
        data = data_file(partial)
        description = description.with_data(data)
        graph = onnx.load(partial, load_external_data=False)
        onnx.helper.set_model_props(graph, description.to_metadata())
        partial.write_bytes(graph.SerializeToString(deterministic=True))
        if check:
            onnx.checker.check_model(os.fspath(partial), full_check=True)
        if data.exists():
            data.replace(data_file(output))
        partial.replace(output)
    return description


def _in_8_bits(model: ir.Model) -> None:
    """Blocks' linear layers with weights in 8 bits, symmetric, a scale for each block of a row."""
    for node in list(model.graph):
        if node.op_type != "Gemm" or node.attributes.get_int("transB", 0) != 1:
            continue
        x, weight, bias = node.inputs
        if weight is None or bias is None or weight.const_value is None:
            continue
        values = weight.const_value.numpy()
        size = next((size for size in BLOCK_SIZES if values.shape[1] % size == 0), None)
        if size is None:
            continue
        blocks = values.reshape(len(values), -1, size)
        scale = np.maximum(np.abs(blocks).max(axis=2) / 127, np.finfo(np.float32).tiny)
        whole = (np.rint(blocks / scale[..., None]) + 128).astype(np.uint8)
        constants = []
        for suffix, array in (("weight8", whole), ("scale8", scale.astype(np.float32))):
            value = ir.Value(name=f"{weight.name}.{suffix}", const_value=ir.tensor(array))
            assert value.const_value is not None
            value.type, value.shape = ir.TensorType(value.const_value.dtype), ir.Shape(array.shape)
            model.graph.register_initializer(value)
            constants.append(value)
        linear = ir.node(LINEAR8, [x, *constants, bias], domain=DOMAIN, name=node.name)
        new, old = linear.outputs[0], node.outputs[0]
        new.name, new.type, new.shape = old.name, old.type, old.shape
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], [linear], [old], [new])
        if not weight.uses():
            del model.graph.initializers[weight.name or ""]
    model.opset_imports[DOMAIN] = 1
