"""The spatial encoder on ONNX Runtime."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spatial_mllm_ros import __version__
from spatial_mllm_ros.models.export.onnx_file import (
    Description,
    ExportError,
    data_file,
    describe,
    fingerprint,
    verify_weights,
)
from spatial_mllm_ros.models.runtime import providers as found
from spatial_mllm_ros.models.runtime.engine_cache import EngineCache
from spatial_mllm_ros.models.runtime.parts import PARTS, SEAM, parts
from spatial_mllm_ros.models.runtime.spatial_encoder import finish
from spatial_mllm_ros.models.vggt.config import PATCH_START
from spatial_mllm_ros.models.vggt.dinov2 import patch_grid

log = logging.getLogger(__name__)
OnProgress = Callable[[str, int, int], object]
"""(what is being done, steps done, steps in all)."""


@dataclass(frozen=True)
class Profile:
    """Sizes that an engine of TensorRT is built for: the least, the usual and the most of frames and of patches.

    Other providers take any size.
    """

    frames: tuple[int, int, int] = (1, 16, 32)
    rows: tuple[int, int, int] = (4, 28, 58)
    columns: tuple[int, int, int] = (4, 37, 58)

    def shapes(self, part: str, description: Description) -> dict[str, list[list[int]]]:
        """For each input of a part: its least, usual and largest shape."""
        side, dim = description.patch_size, description.embed_dim
        half = dim // int(description.config["num_heads"]) // 2
        sizes = list(zip(self.frames, self.rows, self.columns, strict=True))
        if part == PARTS[0]:  # one frame at a time
            return {"frames": [[1, 1, 3, side * rows, side * columns] for _, rows, columns in sizes]}
        tables = [[PATCH_START + rows * columns, half] for _, rows, columns in sizes]
        tokens = [[frames, rows * columns, dim] for frames, rows, columns in sizes]
        return {"frame_tokens": tokens, "cosine": tables, "sine": tables}


class OnnxEncoder:
    """An exported encoder, on the first provider that works. A ``spatial_encoder.SpatialEncoder``.

    Frames go through the first part one at a time, as with torch, so that their tokens can be kept. Inputs and outputs
    are bound where they are, without copies; results are float32 on the device of the input.
    """

    def __init__(self, description: Description, provider: str, sessions: Mapping[str, Any]) -> None:
        """Use ``load``."""
        self.description = description
        self.provider = provider
        self._sessions = dict(sessions)
        self._tables: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self._lock = threading.Lock()
        on_gpu = provider != "cpu" and torch.cuda.is_available()
        self.device = torch.device("cuda" if on_gpu else "cpu")
        """Where inputs and outputs are bound; with a torch that has no CUDA, ONNX Runtime copies them itself."""

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        providers: str | Sequence[str] = "auto",
        cache: str | os.PathLike[str] | None = None,
        profile: Profile | None = None,
        threads: int = 0,
        progress: OnProgress = lambda what, done, total: None,
    ) -> OnnxEncoder:
        """Load an exported file, and build its engine first unless it is kept from before.

        providers: auto, or names by preference, of which the first that starts is used; the log says which. cache: folder
        of engines. profile: for TensorRT. threads: of the CPU provider; 0: as many as torch uses.
        Raises ExportError with the reason and what to do.
        """
        file = Path(path)
        description = describe(file)
        if description.kind != "encoder":
            raise ExportError(f"{file} holds {description.kind}, not an encoder: use `spatial-mllm export encoder`")
        names = found.choose(providers)
        reasons = []
        for name in names:
            builder = _Builder(file, description, name, profile or Profile(), threads or torch.get_num_threads())
            try:
                sessions = builder.load(EngineCache(cache), progress)
            except _DoesNotStart as error:
                reasons.append(f"{name}: {error}")
                log.warning("provider %s does not start (%s)", name, error)
                continue
            encoder = cls(description, name, sessions)
            log.info("the spatial encoder runs on %s", encoder.name)
            return encoder
        raise ExportError(f"{file} runs on none of the providers asked for. " + "; ".join(reasons))

    @property
    def name(self) -> str:
        """For people, logs and ``model_id``: runtime, provider and precision."""
        return f"onnxruntime {found.version()} {self.provider} {self.description.precision}"

    @property
    def patch_size(self) -> int:
        return self.description.patch_size

    @property
    def embed_dim(self) -> int:
        """Channels of a frame's token; spatial tokens have twice as many."""
        return self.description.embed_dim

    def frame_tokens(self, frames: Tensor) -> Tensor:
        """See SpatialEncoder."""
        if frames.ndim != 4 or frames.shape[0] == 0 or frames.shape[1] != 3:
            raise ValueError(f"frames must be [T, 3, height, width] with T at least 1, not {list(frames.shape)}")
        size = (int(frames.shape[2]), int(frames.shape[3]))
        rows, columns = patch_grid(size, self.patch_size)
        out = torch.empty(len(frames), rows * columns, self.embed_dim, device=self.device)
        for frame, tokens in zip(frames, out, strict=True):
            self._tables[size] = self._run_frame(frame, tokens, PATCH_START + rows * columns)
        return out.to(frames.device)

    def relate_steps(self, frame_tokens: Tensor, image_size: tuple[int, int]) -> Generator[None, None, Tensor]:
        """See SpatialEncoder. One step: ONNX Runtime does not pause within a graph."""
        rows, columns = patch_grid(image_size, self.patch_size)
        if frame_tokens.ndim != 3 or frame_tokens.shape[0] == 0 or frame_tokens.shape[1] != rows * columns:
            raise ValueError(
                f"frame tokens {list(frame_tokens.shape)} are not [T, {rows * columns}, channels], "
                f"as frames of {image_size[1]}x{image_size[0]} px have them"
            )
        if image_size not in self._tables:  # the tokens were kept from another run
            blank = torch.zeros(3, *image_size)
            self._tables[image_size] = self._run_frame(
                blank, torch.empty(rows * columns, self.embed_dim, device=self.device), PATCH_START + rows * columns
            )
        cosine, sine = self._tables[image_size]
        out = torch.empty(1, len(frame_tokens), rows * columns, 2 * self.embed_dim, device=self.device)
        inputs = dict(zip(SEAM, (frame_tokens, cosine, sine), strict=True))
        self._run(PARTS[1], inputs, {"spatial_tokens": out})
        yield
        return out[0].to(frame_tokens.device)

    def encode(self, frames: Tensor) -> Tensor:
        """See SpatialEncoder."""
        return finish(self.relate_steps(self.frame_tokens(frames), (int(frames.shape[2]), int(frames.shape[3]))))

    def _run_frame(self, frame: Tensor, tokens: Tensor, length: int) -> tuple[Tensor, Tensor]:
        half = self.embed_dim // int(self.description.config["num_heads"]) // 2
        cosine, sine = (torch.empty(length, half, device=self.device) for _ in range(2))
        self._run(PARTS[0], {"frames": frame[None, None]}, dict(zip(SEAM, (tokens[None], cosine, sine), strict=True)))
        return cosine, sine

    def _run(self, part: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        session = self._sessions[part]
        binding = session.io_binding()
        held = {key: value.to(device=self.device, dtype=torch.float32).contiguous() for key, value in inputs.items()}
        for bind, tensors in ((binding.bind_input, held), (binding.bind_output, outputs)):
            for key, value in tensors.items():
                bind(key, self.device.type, 0, np.float32, list(value.shape), value.data_ptr())
        if self.device.type == "cuda":  # ONNX Runtime computes in a stream of its own
            torch.cuda.current_stream().synchronize()
        options = found.onnxruntime().RunOptions()
        if self.provider == "cpu":  # what a large run took is given back
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        with self._lock:
            try:
                session.run_with_iobinding(binding, options)
            except Exception as error:
                raise _run_error(error, inputs) from error


def _run_error(error: Exception, inputs: Mapping[str, Tensor]) -> RuntimeError:
    sizes = ", ".join(f"{key} {list(value.shape)}" for key, value in inputs.items())
    words = str(error)
    if any(said in words.lower() for said in ("failed to allocate", "out of memory", "bad_alloc", "bad allocation")):
        return RuntimeError(f"out of memory: ONNX Runtime with {sizes} ({words})")
    return RuntimeError(f"ONNX Runtime failed with {sizes}: {words}")


class _DoesNotStart(Exception):
    """The provider is installed, but does not run this here."""


@dataclass(frozen=True)
class _Builder:
    """Builds the engine of one provider, or loads it."""

    file: Path
    description: Description
    provider: str
    profile: Profile
    threads: int

    def load(self, cache: EngineCache, progress: OnProgress) -> dict[str, Any]:
        """A session for each part."""
        total = 2 * len(PARTS)

        def announce(why: str) -> None:
            log.info("an engine of %s for %s is built: %s", self.file.name, self.provider, why)

        def build(folder: Path) -> None:
            progress("checking the weights", 0, total)
            verify_weights(self.file, self.description)
            for index, (part, model) in enumerate(parts(self.file, kernels=self.provider != "tensorrt").items()):
                progress(f"building the engine ({self.provider}, part {part})", index, total)
                (folder / f"{part}.onnx").write_bytes(model.SerializeToString(deterministic=True))
                if self.provider == "tensorrt":
                    self._session(folder, part)

        home = cache.get(self.key(), build, announce)
        sessions = {}
        for index, part in enumerate(PARTS):
            progress(f"loading the engine ({self.provider}, part {part})", len(PARTS) + index, total)
            sessions[part] = self._session(home, part)
        progress("ready", total, total)
        return sessions

    def key(self) -> dict[str, Any]:
        """What an engine depends on."""
        data = data_file(self.file)
        return {
            "package": __version__,
            "graph": fingerprint(self.file),
            "weights": self.description.weights,
            "data": [data.stat().st_size, data.stat().st_mtime_ns] if data.exists() else [],
            "precision": self.description.precision,
            "provider": self.provider,
            "versions": found.versions(self.provider),
            "device": found.device_name(self.provider),
            "profile": asdict(self.profile) if self.provider == "tensorrt" else {},
        }

    def _session(self, folder: Path, part: str) -> Any:
        library = found.onnxruntime()
        options = library.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self.threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", os.fspath(self.file.absolute().parent)
        )
        wanted: list[Any] = [
            (found.NAMES[name], self._options(name, folder, part))
            for name in found.PREFERENCE[found.PREFERENCE.index(self.provider) :]
            if name in found.available()
        ]
        try:
            session = library.InferenceSession((folder / f"{part}.onnx").read_bytes(), options, providers=wanted)
        except Exception as error:
            if "No space left" in str(error):
                raise OSError(28, "No space left on device") from error
            raise _DoesNotStart(str(error).strip()) from error
        if session.get_providers()[0] != found.NAMES[self.provider]:
            raise _DoesNotStart(
                f"ONNX Runtime fell back to {session.get_providers()[0]}: its libraries do not load here"
            )
        return session

    def _options(self, name: str, folder: Path, part: str) -> dict[str, str]:
        if name != "tensorrt":
            return {}
        shapes = self.profile.shapes(part, self.description)
        profiles = {
            f"trt_profile_{which}_shapes": ",".join(f"{key}:{'x'.join(map(str, s[i]))}" for key, s in shapes.items())
            for i, which in enumerate(("min", "opt", "max"))
        }
        timing = folder.parent / "timing"
        timing.mkdir(exist_ok=True)
        return {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": os.fspath(folder),
            "trt_engine_cache_prefix": part,
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": os.fspath(timing),
            "trt_fp16_enable": str(self.description.precision == "float16"),
            **profiles,
        }
