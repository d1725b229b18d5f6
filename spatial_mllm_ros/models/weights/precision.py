"""Precision of weights, and the device they are on.

int8 and int4 are weight-only and concern the linear layers of the language model's blocks, where most weights are. All
else stays in bfloat16: the embedding (which is also the output layer where they are tied), norms, both vision towers and
the connector, which are small beside them and work on many tokens at a time.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional

from spatial_mllm_ros.serving.interface import PRECISIONS, ModelUnavailable

QUANTISED = ("int8", "int4")
FEW_ROWS = 16
"""Up to so many tokens at a time torch's int8 kernel is faster than the detour by bfloat16."""
KERNEL_COLUMNS = 32
"""That kernel computes nonsense where a row's length is not a multiple of 16; more is asked for other processors' sake."""
INT4_GROUPS = (64, 32)
"""Weights that share a scale and a zero point in int4; the largest that divides a row."""

_LAYER = re.compile(r"(.*\.)?language_model\.(model\.)?layers\.\d+")


def choose_device(device: str) -> torch.device:
    """The device of "auto" (the first CUDA device, else the CPU), "cpu", "cuda" or "cuda:N". Raises ModelUnavailable."""
    if device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ModelUnavailable(f"device {device!r} is not known: it is auto, cpu, cuda or cuda:N") from error
    if chosen.type not in ("cpu", "cuda"):
        raise ModelUnavailable(f"device {device!r} is not supported: it is auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        built = "" if torch.version.cuda else ", and this torch was built without CUDA"
        raise ModelUnavailable(
            f"there is no device {device}: this machine shows {torch.cuda.device_count()} CUDA devices{built}; choose cpu"
        )
    return torch.device("cuda", chosen.index or 0) if chosen.type == "cuda" else torch.device("cpu")


def choose_precision(precision: str, device: torch.device) -> str:
    """What "auto" means on a device: bfloat16 where it computes in it, else float32. Others stay as they are.

    Raises ModelUnavailable where a precision is not known, or needs a library that is not there.
    """
    if precision not in PRECISIONS:
        raise ModelUnavailable(f"precision {precision!r} is not known: it is one of {', '.join(PRECISIONS)}")
    if precision == "int4" and find_spec("torchao") is None:
        raise ModelUnavailable("precision int4 needs torchao: pip install 'spatial_mllm_ros[int4]', or choose int8")
    if precision != "auto":
        return precision
    return "bfloat16" if _computes_in_bfloat16(device) else "float32"


def _computes_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(probe() for probe in probes if probe is not None)


def base_dtype(precision: str) -> torch.dtype:
    """Type of what is not quantised, in which everything is computed."""
    return torch.float32 if precision == "float32" else torch.bfloat16


class Int8Linear(nn.Module):
    """A linear layer whose weights are int8 with a scale for every row; activations are not rounded.

    The scale is the row's largest weight / 127. Works on any device.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.to(linear.weight.dtype))
        self.bias = linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features

    weight: Tensor
    scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        few = len(rows) <= FEW_ROWS and x.device.type == "cpu" and x.dtype == torch.bfloat16
        if few and self.in_features % KERNEL_COLUMNS == 0 and _int8_kernel_works():
            product = torch.ops.aten._weight_int8pack_mm(rows, self.weight, self.scale)
        else:
            product = functional.linear(rows, self.weight.to(x.dtype)) * self.scale
        if self.bias is not None:
            product = product + self.bias
        return product.unflatten(0, x.shape[:-1])


@cache
def _int8_kernel_works() -> bool:
    """Whether torch's own int8 kernel exists on this processor and computes what it should."""
    x = torch.linspace(-1, 1, 2 * 64).reshape(2, 64).bfloat16()
    weight = (torch.arange(48 * 64).reshape(48, 64) * 37 % 255 - 127).to(torch.int8)
    scale = torch.linspace(0.5, 1.5, 48).bfloat16()
    try:
        found = torch.ops.aten._weight_int8pack_mm(x, weight, scale).float()
    except (RuntimeError, AttributeError):
        return False
    expected = functional.linear(x.float(), weight.float()) * scale.float()
    return bool((found - expected).norm() < 0.02 * expected.norm())


def quantise_layer(layer: nn.Module, precision: str) -> None:
    """Quantise the linear layers within a block of the language model, in place, where they are."""
    for module in list(layer.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                if precision == "int8":
                    setattr(module, name, Int8Linear(child))
                else:
                    _to_int4(child)


def _to_int4(linear: nn.Linear) -> None:
    """Weights to four bits with a scale and a zero point a group, in the layout that torch's kernel for the device takes."""
    log = logging.getLogger("torchao")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of its CUDA libraries wherever there is no CUDA
    try:
        from torchao.quantization import Int4WeightOnlyConfig, quantize_

        group = next((size for size in INT4_GROUPS if linear.in_features % size == 0), 0)
        if not group:
            return  # such a narrow layer stays as it is
        if linear.weight.device.type == "cuda":
            config = Int4WeightOnlyConfig(
                group_size=group, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
            )
        else:
            from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

            config = PrototypeInt4WeightOnlyConfig(group_size=group, set_inductor_config=False)
        quantize_(linear, config)
    except ImportError as error:
        raise ModelUnavailable(
            f"this version of torchao has no int4 for {linear.weight.device.type} ({error}): "
            "pip install --no-deps 'torchao>=0.18', or choose int8"
        ) from error
    finally:
        log.setLevel(level)


def quantise_as_loaded(precision: str) -> Callable[[nn.Module, str], None] | None:
    """A function (module, name) that quantises each block of the language model once its weights are there, or None.

    It is called while a model is filled, so that only one block at a time exists in bfloat16.
    """
    if precision not in QUANTISED:
        return None

    def after(module: nn.Module, name: str) -> None:
        if _LAYER.fullmatch(name):
            quantise_layer(module, precision)

    return after


def layers_of_language(model: nn.Module) -> Iterator[nn.Module]:
    """Blocks of the language model."""
    for name, module in model.named_modules():
        if _LAYER.fullmatch(name):
            yield module


def quantise(model: nn.Module, precision: str, device: torch.device) -> None:
    """Quantise a model that is loaded, block by block, each moved to the device for it."""
    for layer in list(layers_of_language(model)):
        layer.to(device)
        quantise_layer(layer, precision)
    model.quantized = precision


def n_bytes(model: nn.Module) -> int:
    """Bytes that the weights of a model really take, quantised ones too; tied ones once."""
    seen: dict[int, Tensor] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        for part in _parts(tensor):
            seen[part.untyped_storage().data_ptr()] = part
    return sum(part.untyped_storage().nbytes() for part in seen.values())


def _parts(tensor: Tensor) -> list[Tensor]:
    """The tensors that a tensor of a library's own class consists of."""
    if type(tensor) in (Tensor, nn.Parameter) or not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    return [part for name in tensor.__tensor_flatten__()[0] for part in _parts(getattr(tensor, name))]
