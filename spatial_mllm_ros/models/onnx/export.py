"""VGGT as an ONNX file: exported, simplified, reduced in precision, checked, and written with its weights beside it."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
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
from spatial_mllm_ros.models.onnx.functions import DOMAIN, LINEAR8, OPSET, add_functions
from spatial_mllm_ros.models.onnx.graph import CameraPart, DepthPart, FramePart, PatchTokens, RelatePart, exportable
from spatial_mllm_ros.models.onnx.seams import Part, layers_of_depth, parts_of
from spatial_mllm_ros.models.vggt.config import PATCH_START, VGGTConfig
from spatial_mllm_ros.models.vggt.spatial_encoder import fixed_frames
from spatial_mllm_ros.models.vggt.vggt import VGGT
from spatial_mllm_ros.serving.onnx_file import (
    Description,
    ExportError,
    Reference,
    data_file,
    describe,
    read_reference,
)

PRECISIONS = ("float32", "float16", "int8")
BLOCK_SIZES = (128, 64, 32, 16)
"""Of weights in 8 bits that share a scale; the first that divides a row."""
Progress = Callable[[str, int, int | None], None]

_Dim = torch.export.Dim


def export_encoder(
    vggt: VGGT,
    output: str | os.PathLike[str],
    *,
    precision: str = "float32",
    layer: int = -1,
    name: str = "",
    random_weights: bool = False,
    check: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> Description:
    """Write the aggregator: ``frames`` [1, T, 3, height, width] in [0, 1] to ``spatial_tokens`` of one layer,
    [1, T, patches, 2 * embed_dim], both float32; T, height and width (multiples of a patch) are free.

    vggt: in float32, on the CPU. precision: of the blocks' linear layers: float32, float16 (attention too) or int8
    (weights alone). name: the checkpoint's, for the records. random_weights: whether nobody trained
    it, for the records too. check: by the ONNX checker.
    Returns what the file says about itself. Raises ValueError, ExportError, and OSError where it cannot be
    written; a file of that name is only replaced by a complete one.
    """
    frame, relate = parts_of("encoder", vggt.config.to_dict())
    twin, layer = _prepared(vggt, precision), layer % vggt.config.depth
    progress("exporting the frame-wise part", 0, 4)
    with torch.inference_mode():
        model = _frame_part(twin, frame)
        progress("exporting the alternating part", 1, 4)
        _append(model, _relate_part(PatchTokens(twin.aggregator, [layer]), relate), relate)
    _end(model, {"spatial_tokens": (1, "frames", "patches", 2 * vggt.config.embed_dim)})
    about = _description(vggt, "encoder", precision, layer, name, random_weights)
    return _finish(model, Path(output), about, None, check, progress)


def export_geometry(
    vggt: VGGT,
    output: str | os.PathLike[str],
    *,
    precision: str = "float32",
    name: str = "",
    random_weights: bool = False,
    check: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> Description:
    """Write the aggregator with the camera and depth heads: ``frames`` as above to ``pose_enc`` [1, T, 9], ``depth``
    [1, T, height, width, 1] and ``depth_conf`` [1, T, height, width], all float32.

    As ``export_encoder``; vggt needs both heads, which stay in float32. What torch says about a fixed input is recorded
    in the file, for those who run it without torch.
    """
    if vggt.camera_head is None or vggt.depth_head is None:
        raise ValueError("geometry needs the camera head and the depth head, and this VGGT was loaded without them")
    config = vggt.config.to_dict()
    frame, relate, camera, depth = parts_of("geometry", config)
    twin = _prepared(vggt, precision)
    assert twin.camera_head is not None
    assert twin.depth_head is not None
    tokens = torch.rand(3, PATCH_START + 12, 2 * vggt.config.embed_dim)
    free = dict.fromkeys((0, 1), _Dim.DYNAMIC)
    progress("exporting", 0, 4)
    with torch.inference_mode():
        reference = _said(vggt)
        model = _frame_part(twin, frame)
        layers = [int(name.removeprefix("tokens_")) for name in relate.gives]
        _append(model, _relate_part(RelatePart(twin.aggregator, layers), relate), relate)
        _append(model, _exported(CameraPart(twin.camera_head), (tokens,), (free,), camera), camera)
        progress("exporting the depth head", 1, 4)
        head = DepthPart(twin.depth_head, layers_of_depth(config), vggt.config.depth)
        inputs = (_example(vggt.config), [torch.rand_like(tokens) for _ in depth.takes[1:]])
        sizes = (_frame_sizes(vggt.config), [free for _ in depth.takes[1:]])
        _append(model, _exported(head, inputs, sizes, depth), depth)
    pixels = (1, "frames", "height", "width")
    _end(model, {"pose_enc": (1, "frames", 9), "depth": (*pixels, 1), "depth_conf": pixels})
    about = _description(vggt, "geometry", precision, vggt.config.depth - 1, name, random_weights)
    return _finish(model, Path(output), about, reference, check, progress)


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
    reference = read_reference(source) if description.kind == "geometry" else None
    return _write(model, Path(output), replace(description, precision="int8"), reference, check)


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


def _example(config: VGGTConfig) -> torch.Tensor:
    side = config.patch_size
    return torch.rand(1, 3, 3, 3 * side, 4 * side)


def _frame_sizes(config: VGGTConfig) -> dict[int, Any]:
    """Which axes of ``frames`` are free."""
    side, rows, columns = config.patch_size, _Dim("rows", min=2), _Dim("columns", min=2)
    return {1: _Dim("frames", min=1), 3: side * rows, 4: side * columns}


def _frame_part(vggt: VGGT, part: Part) -> ir.Model:
    return _exported(FramePart(vggt.aggregator), (_example(vggt.config),), (_frame_sizes(vggt.config),), part)


def _relate_part(graph: RelatePart, part: Part) -> ir.Model:
    tables = torch.rand(2, PATCH_START + 12, graph.aggregator.head_dim // 2)
    inputs = (torch.rand(3, 12, graph.aggregator.camera_token.shape[-1]), *tables)
    first = {0: _Dim.DYNAMIC}
    return _exported(graph, inputs, (dict.fromkeys((0, 1), _Dim.DYNAMIC), first, first), part)


def _exported(graph: nn.Module, example: tuple[Any, ...], sizes: tuple[Any, ...], part: Part) -> ir.Model:
    """Exported and simplified (torch's exporter does so with onnxscript's optimizer, which takes weights of any size).

    sizes: of each input, which axes are free; a list for a list of inputs.
    """
    with _quiet():
        program = torch.onnx.export(
            graph.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=sizes,
            input_names=part.takes,
            output_names=part.gives,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    every = [each for size in sizes for each in (size if isinstance(size, list) else [size])]
    for value, free in zip(program.model.graph.inputs, every, strict=True):
        assert value.shape is not None
        fixed = [axis for axis in free if isinstance(value.shape[axis], int)]
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


def _append(model: ir.Model, further: ir.Model, part: Part) -> None:
    """Join two models: the inputs of the second are values of the first, by name. Its outputs keep their names."""
    values = {value.name: value for value in model.graph.inputs}
    values |= {value.name: value for node in model.graph for value in node.outputs}
    for value in further.graph.inputs:
        value.replace_all_uses_with(values[value.name])
    names = {node.name for node in model.graph} | set(values) | set(model.graph.initializers)
    nodes, constants = list(further.graph), list(further.graph.initializers.values())
    further.graph.remove(nodes)
    further.graph.initializers.clear()
    for node in nodes:
        if node.name in names:
            node.name = f"{part.name}.{node.name}"
    for value in (*constants, *(value for node in nodes for value in node.outputs)):
        if value.name in names:
            value.name = f"{part.name}.{value.name}"
    for constant in constants:
        model.graph.register_initializer(constant)
    model.graph.extend(nodes)
    model.graph.outputs.clear()
    outputs = list(further.graph.outputs)
    further.graph.outputs.clear()
    model.graph.outputs.extend(outputs)


def _end(model: ir.Model, outputs: Mapping[str, tuple[int | str, ...]]) -> None:
    """Make these values the outputs of a model, with names for their sizes."""
    values = {value.name: value for node in model.graph for value in node.outputs}
    model.graph.outputs.clear()
    for name, sizes in outputs.items():
        values[name].shape = ir.Shape(sizes)
        model.graph.outputs.append(values[name])


def _said(vggt: VGGT) -> Reference:
    """What torch says about a fixed input."""
    frames = (fixed_frames(2, vggt.config.patch_size) * 255).round().to(torch.uint8)
    geometry = vggt(frames.float() / 255)
    said = (geometry.pose_enc, geometry.depth[..., 0], geometry.depth_conf)
    return Reference(frames.numpy(), *(values.numpy() for values in said))


def _description(vggt: VGGT, kind: str, precision: str, layer: int, name: str, random_weights: bool) -> Description:
    return Description(
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
        random_weights=random_weights,
    )


def _finish(
    model: ir.Model,
    output: Path,
    description: Description,
    reference: Reference | None,
    check: bool,
    progress: Progress,
) -> Description:
    progress("simplifying", 2, 4)
    model.graph.inputs[0].shape = ir.Shape((1, "frames", 3, "height", "width"))
    if description.precision == "int8":
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
    model.graph.name = f"vggt_{description.kind}"
    model.producer_name, model.producer_version = DOMAIN, __version__
    progress("writing", 3, 4)
    written = _write(model, output, description, reference, check)
    progress("written", 4, 4)
    return written


def _write(
    model: ir.Model, output: Path, description: Description, reference: Reference | None, check: bool
) -> Description:
    """Both files, complete or not at all."""
    try:
        return _write_files(model, output, description, reference, check)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ExportError(f"the disk is full at {output.parent}: free some space, or export elsewhere") from error
        raise


def _write_files(
    model: ir.Model, output: Path, description: Description, reference: Reference | None, check: bool
) -> Description:
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        partial = Path(folder) / output.name
        ir.save(model, partial, external_data=data_file(partial).name, size_threshold_bytes=1024)
        data = data_file(partial)
        description = description.with_data(data)
        graph = onnx.load(partial, load_external_data=False)
        recorded = reference.to_metadata() if reference is not None else {}
        onnx.helper.set_model_props(graph, {**description.to_metadata(), **recorded})
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
