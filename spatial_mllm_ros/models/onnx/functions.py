"""What an exported file names instead of spelling out: attention, rotary embedding, linear layers in 8 bits.

The file brings a body for each as an ONNX function, so that any runtime can run it. ONNX Runtime has kernels for all
three, and ``use_kernels`` puts them in their place.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveUnusedFunctionsPass

DOMAIN = "spatial_mllm_ros"
ATTENTION, ROTARY, LINEAR8 = "Attention", "RotaryEmbedding", "Linear8"
KERNELS = "com.microsoft"
OPSET = 20
"""The lowest that has Gelu; runtimes of 2024 and later read it."""

_BODIES = {
    # query, key, value [groups, tokens, dim]: softmax attention within each group.
    ATTENTION: """
<domain: "spatial_mllm_ros", opset_import: ["" : 20]>
Attention <num_heads, scale> (query, key, value) => (out)
{
    count = Constant <value_int: int = @num_heads> ()
    one = Constant <value_ints = [1]> ()
    rest = Constant <value_ints = [-1]> ()
    kept = Constant <value_ints = [0, 0]> ()
    heads = Reshape (count, one)
    apart = Concat <axis = 0> (kept, heads, rest)
    together = Concat <axis = 0> (kept, rest)
    query4 = Reshape (query, apart)
    key4 = Reshape (key, apart)
    value4 = Reshape (value, apart)
    q = Transpose <perm = [0, 2, 1, 3]> (query4)
    k = Transpose <perm = [0, 2, 3, 1]> (key4)
    v = Transpose <perm = [0, 2, 1, 3]> (value4)
    factor = Constant <value_float: float = @scale> ()
    cast = CastLike (factor, q)
    scaled = Mul (q, cast)
    scores = MatMul (scaled, k)
    weights = Softmax <axis = -1> (scores)
    mixed = MatMul (weights, v)
    back = Transpose <perm = [0, 2, 1, 3]> (mixed)
    out = Reshape (back, together)
}
""",
    # x [groups, tokens, dim], tables [tokens, channels / 2]: the two halves of each head's channels are turned.
    ROTARY: """
<domain: "spatial_mllm_ros", opset_import: ["" : 20]>
RotaryEmbedding <num_heads> (x, cosine, sine) => (out)
{
    count = Constant <value_int: int = @num_heads> ()
    one = Constant <value_ints = [1]> ()
    halves = Constant <value_ints = [2, -1]> ()
    rest = Constant <value_ints = [-1]> ()
    kept = Constant <value_ints = [0, 0]> ()
    heads = Reshape (count, one)
    apart = Concat <axis = 0> (kept, heads, halves)
    together = Concat <axis = 0> (kept, rest)
    x5 = Reshape (x, apart)
    first, second = Split <axis = 3, num_outputs = 2> (x5)
    axes = Constant <value_ints = [1, 2]> ()
    c = Unsqueeze (cosine, axes)
    s = Unsqueeze (sine, axes)
    first_c = Mul (first, c)
    second_s = Mul (second, s)
    second_c = Mul (second, c)
    first_s = Mul (first, s)
    new_first = Sub (first_c, second_s)
    new_second = Add (second_c, first_s)
    both = Concat <axis = 3> (new_first, new_second)
    out = Reshape (both, together)
}
""",
    # x [tokens, in], weight uint8 [out, blocks, in / blocks], scale [out, blocks], bias [out]: x W^T + bias,
    # W = scale (weight - 128).
    LINEAR8: """
<domain: "spatial_mllm_ros", opset_import: ["" : 20]>
Linear8 (x, weight, scale, bias) => (out)
{
    flat = Constant <value_ints = [0, -1]> ()
    last = Constant <value_ints = [-1]> ()
    middle = Constant <value_float = 128.0> ()
    whole = Cast <to = 1> (weight)
    centred = Sub (whole, middle)
    factor = Unsqueeze (scale, last)
    blocks = Mul (centred, factor)
    matrix = Reshape (blocks, flat)
    out = Gemm <transB = 1> (x, matrix, bias)
}
""",
}


def add_functions(model: ir.Model) -> None:
    """Give a model that names these functions their bodies."""
    for body in _BODIES.values():
        function = ir.serde.deserialize_function(onnx.parser.parse_function(body))
        model.functions[function.identifier()] = function
    RemoveUnusedFunctionsPass()(model)


def spell_out(model: ir.Model) -> None:
    """Replace every use of a function by its body, for runtimes that optimise patterns, or do not know functions."""
    InlinePass()(model)


def use_kernels(model: ir.Model) -> None:
    """Replace every use of a function by ONNX Runtime's kernel for it (CPU and CUDA)."""
    start = ir.Value(name="first_position", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]))
    start.const_value = ir.tensor([0], dtype=ir.DataType.INT64, name=start.name)
    for node in list(model.graph):
        if node.domain != DOMAIN:
            continue
        kernel = _kernel(node, start)
        kernel.outputs[0].name, kernel.outputs[0].type = node.outputs[0].name, node.outputs[0].type
        kernel.outputs[0].shape = node.outputs[0].shape
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], [kernel], node.outputs, kernel.outputs)
    if start.uses():
        model.graph.register_initializer(start)
    model.functions.clear()
    model.opset_imports.pop(DOMAIN, None)
    model.opset_imports[KERNELS] = 1


def _kernel(node: ir.Node, start: ir.Value) -> ir.Node:
    if node.op_type == ATTENTION:
        attributes = {"num_heads": node.attributes["num_heads"].as_int(), "scale": node.attributes["scale"].as_float()}
        return ir.node("MultiHeadAttention", node.inputs, attributes, domain=KERNELS, name=node.name)
    if node.op_type == ROTARY:
        x, cosine, sine = node.inputs
        return ir.node("RotaryEmbedding", [x, start, cosine, sine], domain=KERNELS, name=node.name)
    x, weight, scale, bias = node.inputs
    assert weight is not None
    assert weight.const_value is not None
    out, blocks, size = (int(n) for n in weight.const_value.shape)
    attributes = {"K": blocks * size, "N": out, "bits": 8, "block_size": size, "accuracy_level": 4}
    return ir.node("MatMulNBits", [x, weight, scale, None, None, bias], attributes, domain=KERNELS, name=node.name)
