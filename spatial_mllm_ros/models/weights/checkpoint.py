"""Checkpoints: which tensors a folder holds, their published names, and loading and saving them. Strict, and lean.

Everything is compared before anything is loaded, from the files' headers alone. Nothing here needs a model's classes.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from spatial_mllm_ros.serving.checkpoints.hub import resolve_model
from spatial_mllm_ros.serving.interface import ModelUnavailable

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
MAX_HEADER_BYTES = 100_000_000
LISTED = 20
"""How many of the names at fault an error lists."""

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Types of floating-point tensors by their name in safetensors files."""

LAYOUTS = ("v1.1", "v1.0")
_PUBLISHED_PREFIXES = {
    "v1.1": {
        "visual.": "model.visual.",
        "model.": "model.language_model.",
        "spatial_encoder.": "spatial_encoder.",
        "connector.": "connector.",
        "lm_head.": "lm_head.",
    },
    "v1.0": {
        "visual.": "model.visual.",
        "model.": "model.language_model.",
        "vggt.": "spatial_encoder.vggt_model.",
        "vggt_embedding_merger.": "connector.",
        "lm_head.": "lm_head.",
    },
}
"""Names of transformers 4.51, in which both versions are published, to those of the modules."""

Progress = Callable[[int, int], None]
"""(bytes done, bytes in all)."""


class CheckpointError(ModelUnavailable, ValueError):
    """The checkpoint is not what it should be. ``str()`` says what is wrong and what to do."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a file: its type as safetensors names it, its shape, and where its bytes are."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class Checkpoint:
    """A folder with ``config.json`` and safetensors files. tensors: by their name in the files."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, TensorInfo] = field(repr=False)

    @property
    def n_bytes(self) -> int:
        """Of all tensors."""
        return sum(info.n_bytes for info in self.tensors.values())

    @property
    def layout(self) -> str:
        """ "v1.0" where VGGT is called ``vggt``, else "v1.1"."""
        return (
            LAYOUTS[1]
            if any(name.startswith(("vggt.", "vggt_embedding_merger.")) for name in self.tensors)
            else LAYOUTS[0]
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by its module's name."""
        return {module_name(name, self.layout): info.shape for name, info in self.tensors.items()}


def find(model: str | os.PathLike[str]) -> Path:
    """The folder of a checkpoint: the folder itself, or what was downloaded of an id on the hub. Never downloads.

    Raises CheckpointError.
    """
    try:
        return resolve_model(os.fspath(model))
    except ModelUnavailable as error:
        raise CheckpointError(str(error)) from error


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a checkpoint. Raises CheckpointError."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} is not a checkpoint: it has no {CONFIG_FILE}; name the folder that holds it")
    _reject_pointer(path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): download it again") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} does not hold a configuration: download it again")
    return config


def read_checkpoint(model: str | os.PathLike[str]) -> Checkpoint:
    """Read the configuration and the headers of all files; no tensor. Raises CheckpointError."""
    folder = find(model)
    config = read_config(folder)
    index = folder / INDEX_FILE
    single = folder / SINGLE_FILE
    if single.is_file():
        tensors = read_header(single)
    elif index.is_file():
        tensors = _read_shards(folder, index)
    else:
        others = sorted(path.name for path in folder.glob("*.bin"))
        instead = f" (it has {others[0]}, which can run code when loaded and is not read)" if others else ""
        raise CheckpointError(
            f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}{instead}: download the checkpoint again, completely"
        )
    return Checkpoint(folder, config, tensors)


def _read_shards(folder: Path, index: Path) -> dict[str, TensorInfo]:
    _reject_pointer(index)
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        listed = {str(name): str(file) for name, file in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not an index of shards ({error!r}): download it again") from error
    files = sorted(set(listed.values()))
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of {len(files)} shards: {_some(missing)}; resume the download"
        )
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        tensors.update(read_header(folder / file))
    astray = [name for name, file in listed.items() if name not in tensors or tensors[name].file.name != file]
    unlisted = [name for name in tensors if name not in listed]
    if astray or unlisted:
        raise CheckpointError(
            f"{index} does not belong to its shards: {len(astray)} tensors are not where it says ({_some(astray)}), "
            f"{len(unlisted)} are not listed ({_some(unlisted)}); download the checkpoint again"
        )
    return tensors


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Names, types and shapes of a safetensors file, whose size is compared with them. Raises CheckpointError."""
    _reject_pointer(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise CheckpointError(f"{path} is not a safetensors file, or is cut off ({size} bytes): download it again")
        header = file.read(length)
    try:
        entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        tensors = {}
        end = 0
        for name, entry in entries.items():
            first, last = entry["data_offsets"]
            end = max(end, last)
            kind = DTYPES.get(entry["dtype"])
            if kind is not None and math.prod(entry["shape"]) * kind.itemsize != last - first:
                raise ValueError(f"{name} has {last - first} bytes")
            tensors[name] = TensorInfo(
                path, str(entry["dtype"]), tuple(entry["shape"]), 8 + length + first, last - first
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} has a broken header ({error!r}): download it again") from error
    if size != 8 + length + end:
        raise CheckpointError(
            f"{path} has {size} bytes where its header promises {8 + length + end}: it is cut off or was changed; "
            "resume the download"
        )
    return tensors


def _reject_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise CheckpointError(
                f"{path} is a pointer of Git LFS, not the file itself: run `git lfs pull` in its folder, or "
                "`spatial-mllm download`"
            )


def module_name(published: str, layout: str = LAYOUTS[0]) -> str:
    """The module's name of a tensor, from its name in a file. Names that newer transformers write stay as they are."""
    if published.startswith(("model.visual.", "model.language_model.")):
        return published
    for prefix, own in _PUBLISHED_PREFIXES[layout].items():
        if published.startswith(prefix):
            return own + published.removeprefix(prefix)
    return published


def published_name(name: str, layout: str = LAYOUTS[0]) -> str:
    """The name in the official layout, from the module's; the inverse of ``module_name``."""
    for prefix, own in _PUBLISHED_PREFIXES[layout].items():
        if name.startswith(own):
            return prefix + name.removeprefix(own)
    return name


def compare(checkpoint: Checkpoint, expected: Mapping[str, Sequence[int]], tied: Collection[str] = ()) -> None:
    """Check that the files hold exactly these tensors.

    expected: shapes by module name, those of tied parameters included. tied: names that the files may leave out because
    they repeat another tensor. Raises CheckpointError that lists what is missing, left over, twice there or misshapen.
    """
    layout = checkpoint.layout
    found: dict[str, str] = {}
    twice = []
    for name in checkpoint.tensors:
        own = module_name(name, layout)
        if own in found:
            twice.append(name)
        found[own] = name
    missing = [published_name(name, layout) for name in expected if name not in found and name not in tied]
    left_over = [name for own, name in found.items() if own not in expected]
    both = [(own, name) for own, name in found.items() if own in expected]
    wrong_shape = [
        f"{name} {list(checkpoint.tensors[name].shape)} instead of {list(expected[own])}"
        for own, name in both
        if checkpoint.tensors[name].shape != tuple(expected[own])
    ]
    wrong_type = [
        f"{name} of type {checkpoint.tensors[name].dtype}"
        for _, name in both
        if checkpoint.tensors[name].dtype not in DTYPES
    ]
    faults = [
        f"{len(names)} {what}: {_some(names)}"
        for what, names in (
            ("missing", missing),
            ("left over", left_over),
            ("twice there", twice),
            ("of another shape", wrong_shape),
            ("not of floating point", wrong_type),
        )
        if names
    ]
    if faults:
        raise CheckpointError(
            f"the tensors of {checkpoint.folder} are not those that its {CONFIG_FILE} describes; {'; '.join(faults)}. "
            "Download the checkpoint again, or name the one that belongs to this configuration"
        )


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(names[:LISTED])
    return f"{listed}, and {len(names) - LISTED} more" if len(names) > LISTED else listed


def load_tensors(
    checkpoint: Checkpoint,
    model: nn.Module,
    *,
    dtype: torch.dtype,
    device: torch.device,
    tied: Mapping[str, str] | None = None,
    after: Callable[[nn.Module, str], None] | None = None,
    progress: Progress | None = None,
) -> None:
    """Fill a model that was built on ``meta``, tensor by tensor, so that nothing is held twice.

    tied: names of parameters that are another one; they are compared if the files hold them too. after: called with each
    module and its name as soon as all of its tensors are there. Tensors of the files that the model does not have (heads
    that were left out) are skipped. Raises CheckpointError.
    """
    tied = tied or {}
    sources = {module_name(name, checkpoint.layout): name for name in checkpoint.tensors}
    total = sum(checkpoint.tensors[sources[name]].n_bytes for name, _ in _tensors(model) if name in sources)
    done = 0
    with ExitStack() as stack:
        opened: dict[Path, BinaryIO] = {}

        def read(name: str) -> Tensor:
            info = checkpoint.tensors[sources[name]]
            if info.file not in opened:
                opened[info.file] = stack.enter_context(info.file.open("rb"))
            return _read(opened[info.file], info)

        def fill(module: nn.Module, prefix: str) -> None:
            nonlocal done
            for leaf, old in [*module.named_parameters(recurse=False), *_persistent_buffers(module)]:
                name = prefix + leaf
                if name in tied and name not in sources:
                    continue
                values = read(name)
                done += checkpoint.tensors[sources[name]].n_bytes
                if name in tied:
                    if not torch.equal(values, read(tied[name])):
                        raise CheckpointError(
                            f"{checkpoint.folder} ties {sources[name]} to {sources[tied[name]]}, but they differ: set "
                            f"tie_word_embeddings to false in its {CONFIG_FILE}"
                        )
                else:
                    fresh = values.to(device=device, dtype=dtype)
                    if leaf in module._parameters:
                        module._parameters[leaf] = nn.Parameter(fresh, requires_grad=old.requires_grad)
                    else:
                        module._buffers[leaf] = fresh
                if progress is not None:
                    progress(done, total)
            for leaf, child in module.named_children():
                fill(child, f"{prefix}{leaf}.")
            if after is not None:
                after(module, prefix.removesuffix("."))

        fill(model, "")
    for name, source in tied.items():
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner)._parameters[leaf] = model.get_parameter(source)


def _read(file: BinaryIO, info: TensorInfo) -> Tensor:
    """A tensor in memory of its own, which stays what it is when the file is changed."""
    raw = torch.empty(info.n_bytes, dtype=torch.uint8)
    file.seek(info.offset)
    if file.readinto(raw.numpy()) != info.n_bytes:  # type: ignore[attr-defined]
        raise CheckpointError(f"{info.file} was cut off while it was read: download it again")
    return raw.view(DTYPES[info.dtype]).reshape(info.shape)


def _persistent_buffers(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [(n, b) for n, b in module.named_buffers(recurse=False) if n not in module._non_persistent_buffers_set]


def _tensors(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    for prefix, module in model.named_modules():
        for leaf, tensor in [*module.named_parameters(recurse=False), *_persistent_buffers(module)]:
            yield (f"{prefix}.{leaf}" if prefix else leaf), tensor


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors that a checkpoint of this model holds, by module name, tied ones included."""
    return {name: tuple(tensor.shape) for name, tensor in _tensors(model)}


def fill_buffers(model: nn.Module, device: torch.device) -> None:
    """Make the buffers that no checkpoint holds (tables of rotary embeddings), after a build on ``meta``.

    They stay in float32 whatever the weights are in, as in training.
    """
    for module in model.modules():
        lacking = [name for name, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
        if lacking:
            with torch.device("cpu"):
                fresh = type(module)(module.config)
            for name in lacking:
                module._buffers[name] = getattr(fresh, name).to(device)


def save_tensors(
    folder: Path, tensors: Mapping[str, Tensor], *, layout: str = LAYOUTS[0], max_shard_bytes: int = 5_000_000_000
) -> None:
    """Write tensors, by module name, under their published names, in one file or in shards with an index.

    A file is renamed into place when it is complete; weights of an earlier save are removed. Raises CheckpointError for
    a name that the layout has no place for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    room = max_shard_bytes
    for name, tensor in tensors.items():
        published = published_name(name, layout)
        if module_name(published, layout) != name:
            raise CheckpointError(f"the layout {layout} has no name for {name}")
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = max_shard_bytes
        shards[-1][published] = tensor
        room -= tensor.nbytes
    count = len(shards)
    names = [SINGLE_FILE] if count == 1 else [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    for name, shard in zip(names, shards, strict=True):
        partial = folder / f"{name}.partial"
        save_file({key: value.detach().cpu().contiguous() for key, value in shard.items()}, partial, {"format": "pt"})
        partial.replace(folder / name)
    index = folder / INDEX_FILE
    if count > 1:
        places = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        total = sum(tensor.nbytes for tensor in tensors.values())
        index.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=2) + "\n")
    else:
        index.unlink(missing_ok=True)
    for path in folder.glob("model*.safetensors"):
        if path.name not in names:
            path.unlink()
