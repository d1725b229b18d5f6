"""What an exported file says about itself, and whether it is whole. No torch here."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.serving.interface import ModelUnavailable

PREFIX = "spatial_mllm_ros."
KINDS = ("encoder", "geometry")
INSTALL = "pip install 'spatial_mllm_ros[onnx-runtime]'"
_REFERENCE = f"{PREFIX}reference"
_AGAIN = "export it again with `spatial-mllm export`"


class ExportError(ModelUnavailable):
    """An exported file, or what was built from it, cannot be used. ``str()`` says why, and what to do."""


@dataclass(frozen=True)
class Description:
    """What is in an exported file.

    kind: "encoder" or "geometry". precision: of the linear layers. layer: of the aggregator, from 0. model: the
    checkpoint's name. weights: SHA-256 of the weights that it was made from. config: sizes of VGGT. version: of this
    package. patch_size: pixels. random_weights: whether nobody trained it. data_bytes, data_sha256: size and digest of
    the file with the weights.
    """

    kind: str
    precision: str
    layer: int
    model: str
    weights: str
    config: Mapping[str, Any] = field(hash=False)
    version: str
    opset: int
    patch_size: int
    embed_dim: int
    random_weights: bool = False
    data_bytes: int = 0
    data_sha256: str = ""

    def with_data(self, data: Path) -> Description:
        """The same with the file that holds the weights; there may be none."""
        return replace(self, data_bytes=data.stat().st_size, data_sha256=fingerprint(data)) if data.exists() else self

    def to_metadata(self) -> dict[str, str]:
        """As ``metadata_props`` of an ONNX model."""
        return {
            PREFIX + key: value if isinstance(value, str) else json.dumps(value) for key, value in asdict(self).items()
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Description:
        """The inverse of ``to_metadata``. Raises KeyError or ValueError for other metadata."""
        return cls(**{f.name: _read(f.type, metadata[PREFIX + f.name]) for f in fields(cls)})


def _read(kind: object, value: str) -> Any:
    return value if kind == "str" else json.loads(value)


@dataclass(frozen=True, eq=False)
class Reference:
    """What torch said in float32 about a fixed input, recorded when the geometry was exported.

    frames: uint8 [T, 3, height, width]. pose_enc: float32 [T, 9]. depth, depth_conf: float32 [T, height, width].
    """

    frames: NDArray[np.uint8]
    pose_enc: NDArray[np.float32]
    depth: NDArray[np.float32]
    depth_conf: NDArray[np.float32]

    def to_metadata(self) -> dict[str, str]:
        """As ``metadata_props`` of an ONNX model: an .npz in base64, some 200 KB."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{f.name: getattr(self, f.name) for f in fields(self)})
        return {_REFERENCE: base64.b64encode(buffer.getvalue()).decode("ascii")}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Reference:
        """The inverse of ``to_metadata``. Raises KeyError or ValueError where there is none, or it is damaged."""
        try:
            with np.load(io.BytesIO(base64.b64decode(metadata[_REFERENCE], validate=True))) as values:
                return cls(**{f.name: values[f.name] for f in fields(cls)})
        except (binascii.Error, zipfile.BadZipFile, EOFError, OSError) as error:
            raise ValueError(str(error)) from error


def is_export(model: str | os.PathLike[str]) -> bool:
    """Whether what is to be loaded is an exported file, by its name; anything else is a checkpoint."""
    return os.fspath(model).lower().endswith(".onnx")


def data_file(path: Path) -> Path:
    """Where the weights of an exported file are."""
    return path.with_name(f"{path.name}.data")


def describe(path: str | os.PathLike[str]) -> Description:
    """Read what a file says about itself, and check that it is whole, without reading its weights.

    Raises ExportError for a file that is missing, cut off, not ONNX, or not made by this package.
    """
    file = Path(path).expanduser()
    model, newest = _read_graph(file)
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset > newest:
        raise ExportError(
            f"{file} uses opset {opset}, and the installed onnx reads opsets up to {newest}: upgrade onnx and "
            f"onnxruntime, or {_AGAIN}"
        )
    try:
        found = Description.from_metadata(_metadata(model))
    except (KeyError, ValueError, TypeError) as error:
        raise ExportError(f"{file} was not made by this version of this package, or is cut off: {_AGAIN}") from error
    data = data_file(file)
    size = data.stat().st_size if data.is_file() else None
    if found.data_bytes and size != found.data_bytes:
        problem = "is missing" if size is None else f"has {size} bytes instead of {found.data_bytes}"
        raise ExportError(f"{data}, which holds the weights of {file.name}, {problem}: copy both files, or {_AGAIN}")
    return found


def read_reference(path: str | os.PathLike[str]) -> Reference:
    """What torch said when an exported geometry was made. Raises ExportError as ``describe``, and where it is not there."""
    file = Path(path).expanduser()
    try:
        return Reference.from_metadata(_metadata(_read_graph(file)[0]))
    except (KeyError, ValueError, TypeError) as error:
        raise ExportError(
            f"{file} has no record of what torch says, or it is damaged ({error}), so that nothing can be compared with "
            "it: export it again with `spatial-mllm export geometry`"
        ) from error


def _read_graph(file: Path) -> tuple[Any, int]:
    """The model without its weights, and the newest opset that the installed library reads. Raises ExportError."""
    try:
        import onnx
    except ImportError as error:
        raise ExportError(f"exported files are read with onnx, which does not import ({error}): {INSTALL}") from error
    if not file.is_file():
        raise ExportError(f"there is no exported file {file}: {_AGAIN}")
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf's has no public home in onnx
        raise ExportError(f"{file} is not an ONNX file, or is cut off ({error}): {_AGAIN}") from error
    return model, int(onnx.defs.onnx_opset_version())


def _metadata(model: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def verify_weights(path: Path, description: Description) -> None:
    """Read all weights of an exported file and compare them with its records. Raises ExportError where they differ."""
    data = data_file(path)
    if description.data_sha256 and fingerprint(data) != description.data_sha256:
        raise ExportError(
            f"{data} is not what was exported with {path.name}, or is damaged: copy both files again, or export them again "
            "with `spatial-mllm export`"
        )


def fingerprint(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()
