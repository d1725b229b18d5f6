"""Sessions of ONNX Runtime for the parts of an exported graph, their engines built or loaded. No torch here."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spatial_mllm_ros import __version__
from spatial_mllm_ros.models.onnx import providers as found
from spatial_mllm_ros.models.onnx.engine_cache import Engine, EngineCache
from spatial_mllm_ros.models.onnx.parts import parts
from spatial_mllm_ros.models.onnx.seams import FRAMES, parts_of
from spatial_mllm_ros.models.vggt.config import PATCH_START
from spatial_mllm_ros.serving.onnx_file import (
    Description,
    ExportError,
    data_file,
    describe,
    fingerprint,
    verify_weights,
)

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
        wanted = next(each for each in parts_of(description.kind, description.config) if each.name == part)

        def shape(name: str, frames: int, rows: int, columns: int) -> list[int]:
            count = 1 if wanted.by_frame else frames
            if name == FRAMES:
                return [1, count, 3, side * rows, side * columns]
            if name == "frame_tokens":
                return [count, rows * columns, dim]
            length = PATCH_START + rows * columns
            return [length, half] if name in ("cosine", "sine") else [count, length, 2 * dim]

        sizes = list(zip(self.frames, self.rows, self.columns, strict=True))
        return {name: [shape(name, *size) for size in sizes] for name in wanted.takes}


@dataclass(frozen=True)
class Sessions:
    """An exported graph, loaded. by_part: ONNX Runtime's sessions. engine: kept while they are used."""

    description: Description
    provider: str
    by_part: Mapping[str, Any]
    engine: Engine | None = None

    @property
    def name(self) -> str:
        """For people, logs and ``model_id``: runtime, provider and precision."""
        return _name(self.description, self.provider)

    def run_options(self) -> Any:
        """For one run."""
        options = found.onnxruntime().RunOptions()
        if self.provider == "cpu":  # what a large run took is given back
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return options


def load_sessions(
    path: str | os.PathLike[str],
    kind: str,
    *,
    providers: str | Sequence[str] = "auto",
    cache: str | os.PathLike[str] | None = None,
    profile: Profile | None = None,
    threads: int = 0,
    progress: OnProgress = lambda what, done, total: None,
) -> Sessions:
    """Load an exported file, and build its engine first unless it is kept from before.

    kind: what the file has to hold. providers: auto, or names by preference, of which the first that starts is used; the
    log says which. cache: folder of engines. profile: for TensorRT. threads: of the CPU provider; 0: as many as ONNX
    Runtime chooses. Raises ExportError with the reason and what to do.
    """
    file = Path(path).expanduser()
    description = describe(file)
    if description.kind != kind:
        article = "an encoder" if kind == "encoder" else "geometry"
        held = "an encoder" if description.kind == "encoder" else description.kind
        raise ExportError(f"{file} holds {held}, not {article}: use `spatial-mllm export {kind}`")
    reasons = []
    for name in found.choose(providers):
        builder = _Builder(file, description, name, profile or Profile(), threads)
        try:
            return builder.load(EngineCache(cache), progress)
        except _DoesNotStart as error:
            reasons.append(f"{name}: {error}")
            log.warning("provider %s does not start (%s)", name, error)
    raise ExportError(f"{file} runs on none of the providers asked for. " + "; ".join(reasons))


def run_error(error: Exception, shapes: Mapping[str, Sequence[int]]) -> RuntimeError:
    """What ONNX Runtime raised, with the shapes of its inputs; "out of memory" where that is what it says."""
    sizes = ", ".join(f"{key} {list(shape)}" for key, shape in shapes.items())
    words = str(error)
    if any(said in words.lower() for said in ("failed to allocate", "out of memory", "bad_alloc", "bad allocation")):
        return RuntimeError(f"out of memory: ONNX Runtime with {sizes} ({words})")
    return RuntimeError(f"ONNX Runtime failed with {sizes}: {words}")


def _name(description: Description, provider: str) -> str:
    return f"onnxruntime {found.version()} {provider} {description.precision}"


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

    def load(self, cache: EngineCache, progress: OnProgress) -> Sessions:
        """A session for each part."""
        names = [part.name for part in parts_of(self.description.kind, self.description.config)]
        total = 2 * len(names)

        def announce(why: str) -> None:
            log.info("an engine of %s for %s is built: %s", self.file.name, self.provider, why)

        def build(folder: Path) -> None:
            progress("checking the weights", 0, total)
            verify_weights(self.file, self.description)
            cut = parts(self.file, self.description, kernels=self.provider != "tensorrt")
            for index, (part, model) in enumerate(cut.items()):
                progress(f"building the engine ({self.provider}, part {part})", index, total)
                (folder / f"{part}.onnx").write_bytes(model.SerializeToString(deterministic=True))
                if self.provider == "tensorrt":
                    self._session(folder, part)

        key = self.key()
        source = {
            "file": os.fspath(self.file.resolve()),
            **{name: key[name] for name in ("provider", "device")},
        }
        what = (
            f"{self.description.kind} of {self.description.model}" if self.description.model else self.description.kind
        )
        engine = cache.get(key, build, announce, source, f"{what}, {_name(self.description, self.provider)}")
        sessions = {}
        for index, part in enumerate(names):
            progress(f"loading the engine ({self.provider}, part {part})", len(names) + index, total)
            sessions[part] = self._session(engine.folder, part)
        progress("ready", total, total)
        return Sessions(self.description, self.provider, sessions, engine)

    def key(self) -> dict[str, Any]:
        """What an engine depends on."""
        data = data_file(self.file)
        return {
            "package": __version__,
            "graph": fingerprint(self.file),
            "weights": self.description.weights,
            "data": [data.name, data.stat().st_size, data.stat().st_mtime_ns] if data.exists() else [],
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
        if name == "cuda" and self.description.precision == "float32":
            return {"use_tf32": "0"}  # which GPUs since Ampere would use, with 10 bits for 23
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
            "trt_fp16_enable": str(self.description.precision == "float16" and part not in ("camera", "depth")),
            **profiles,
        }
