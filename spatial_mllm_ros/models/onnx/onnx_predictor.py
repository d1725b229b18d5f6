"""VGGT as a geometry predictor on ONNX Runtime, from what ``spatial-mllm export geometry`` wrote. No torch here."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.models.onnx.parity import Parity, difference, worst
from spatial_mllm_ros.models.onnx.seams import FRAMES, SEAM, Part, parts_of
from spatial_mllm_ros.models.onnx.sessions import OnProgress, Profile, Sessions, load_sessions, run_error
from spatial_mllm_ros.models.vggt.window import WIDTH_PX, columns_of, resized, size_of, window_geometry
from spatial_mllm_ros.scene.window import WindowGeometry
from spatial_mllm_ros.serving.onnx_file import ExportError, Reference, read_reference

log = logging.getLogger(__name__)
Values = dict[str, NDArray[np.float32]]
TOLERANCE = {"float32": 1e-3, "float16": 0.02, "int8": 0.1}
"""Largest relative error by precision, of each of the three outputs."""
PROFILE = Profile(frames=(1, 8, 32))


class OnnxPredictor:
    """Cameras and depth by an exported VGGT, up to scale. A ``geometry_predictor.GeometryPredictor``.

    What looks at each frame by itself (DINOv2, the depth head) is run frame by frame, which bounds the memory.
    """

    def __init__(self, sessions: Sessions, reference: Reference, width: int = WIDTH_PX) -> None:
        """Use ``load``. reference: what torch says about a fixed input."""
        self.description = sessions.description
        self.provider = sessions.provider
        self._sessions = sessions
        self._reference = reference
        self._parts = parts_of(self.description.kind, self.description.config)
        self._columns = columns_of(width, self.description.patch_size)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        providers: str | Sequence[str] = "auto",
        cache: str | os.PathLike[str] | None = None,
        threads: int = 0,
        width: int = WIDTH_PX,
        profile: Profile = PROFILE,
        gate: bool = True,
        progress: OnProgress = lambda what, done, total: None,
    ) -> OnnxPredictor:
        """Load an exported file, and build its engine first unless it is kept from before; see ``load_sessions``.

        width: px that images are resized to. gate: whether it must say what torch said when it was exported. Raises
        ExportError with the reason and what to do, and by how much it differs if it does.
        """
        sessions = load_sessions(
            path, "geometry", providers=providers, cache=cache, profile=profile, threads=threads, progress=progress
        )
        predictor = cls(sessions, read_reference(path), width)
        if gate:
            progress("comparing with torch", 0, 0)
            try:
                parity = predictor.parity
            except RuntimeError as error:
                raise ExportError(f"{os.fspath(path)} ({sessions.name}) does not run here: {error}") from error
            if not parity.passed:
                raise ExportError(
                    f"{os.fspath(path)} ({sessions.name}) differs too much from what torch said when it was exported: "
                    f"{parity}; use another provider, or export it again with `spatial-mllm export geometry`"
                )
            log.info("%s passed the gate: %s", predictor.name, parity)
        return predictor

    @property
    def name(self) -> str:
        """See GeometryPredictor: whose weights, runtime, provider and precision."""
        return f"VGGT of {self.description.model or 'an exported file'}, {self.engine_name}"

    @property
    def engine_name(self) -> str:
        """Runtime, provider and precision."""
        return self._sessions.name

    @cached_property
    def parity(self) -> Parity:
        """How far it is from torch on a fixed input, in the output that differs most."""
        reference = self._reference
        found = self.outputs(reference.frames.astype(np.float32) / np.float32(255))
        tolerance = TOLERANCE.get(self.description.precision, 0.1)
        expected = {name: getattr(reference, name) for name in found}
        wrong = [name for name in found if found[name].shape != expected[name].shape]
        if wrong:
            raise ExportError(f"the exported geometry returns {wrong[0]} in another shape than torch: export it again")
        return worst({name: difference(found[name], expected[name], tolerance, of=name) for name in found})

    def predict(self, images: NDArray[np.uint8]) -> WindowGeometry:
        """See GeometryPredictor."""
        size = size_of((images.shape[1], images.shape[2]), self._columns, self.description.patch_size)
        frames = np.stack([resized(image, size) for image in images]).astype(np.float32) / np.float32(255)
        return window_geometry(**self.outputs(frames))

    def outputs(self, frames: NDArray[np.float32]) -> Values:
        """``pose_enc`` [T, 9], ``depth`` and ``depth_conf`` [T, height, width] of frames [T, 3, height, width], RGB in
        [0, 1], sides multiples of a patch. Raises RuntimeError where ONNX Runtime fails."""
        frame_part, relate, camera, depth = self._parts
        one_by_one = [{FRAMES: frame[None, None]} for frame in frames]
        kept = [self._run(frame_part, inputs) for inputs in one_by_one]
        values: Values = {**kept[-1], SEAM[0]: np.concatenate([each[SEAM[0]] for each in kept])}
        tokens = self._run(relate, values)
        poses = self._run(camera, tokens)["pose_enc"]
        found = [
            self._run(depth, {**inputs, **{name: value[i : i + 1] for name, value in tokens.items()}})
            for i, inputs in enumerate(one_by_one)
        ]
        return {
            "pose_enc": poses[0],
            "depth": np.concatenate([each["depth"][0, ..., 0] for each in found]),
            "depth_conf": np.concatenate([each["depth_conf"][0] for each in found]),
        }

    def _run(self, part: Part, values: Mapping[str, NDArray[np.float32]]) -> Values:
        feeds = {name: values[name] for name in part.takes}
        session: Any = self._sessions.by_part[part.name]
        try:
            given = session.run(list(part.gives), feeds, self._sessions.run_options())
        except Exception as error:
            raise run_error(error, {name: value.shape for name, value in feeds.items()}) from error
        return dict(zip(part.gives, given, strict=True))
