"""A stretch of windows without a break: its images, its chain, its metres, and where everything lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.perception.rgb.anchors import Anchors
from spatial_mllm_ros.perception.rgb.config import RgbGeometryConfig
from spatial_mllm_ros.perception.rgb.image import ChainImage
from spatial_mllm_ros.perception.rgb.metres import Metres
from spatial_mllm_ros.perception.rgb.overlap import supported
from spatial_mllm_ros.perception.rgb.window_chain import Link, WindowChain
from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame, depth_to_metres
from spatial_mllm_ros.scene.pose import Transform, invert
from spatial_mllm_ros.scene.sim3 import NotAligned, Sim3
from spatial_mllm_ros.scene.window import WindowGeometry, without_specks

_HELD_LEVEL = np.array(
    [[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]
)  # a level camera's axes to x forward, z up


@dataclass(eq=False)
class Submap:
    """Windows that are linked to each other.

    number: of the break that it began after. focal_logs: logarithms of the ratio of stated to predicted focal lengths, of
    this and former submaps. reason: why there are no metres before the first window.
    """

    config: RgbGeometryConfig
    number: int
    focal_logs: list[float]
    reason: str

    def __post_init__(self) -> None:
        self.chain = WindowChain(self.config.chain)
        self.metres = Metres(self.config.scale, self.reason)
        self.images: dict[int, ChainImage] = {}
        """By stamp, in order."""
        self.shared: list[tuple[int, NDArray[np.uint8]]] = []
        """Stamp and image of those that the next window is to share with the last one."""
        self.latest: list[NDArray[np.uint8]] = []
        """The images of the newest window."""
        self.anchors = Anchors()
        self._camera: CameraModel | None = None
        self._base: Sim3 | None = None
        self._places: list[Sim3] = []
        self._places_from = 0

    @property
    def is_measured(self) -> bool:
        """Whether poses of any of its images are measured."""
        return any(image.measured is not None for image in self.images.values())

    @property
    def newest(self) -> int:
        """Number of the newest window."""
        return self.chain.first_index + len(self.chain) - 1

    def add(self, geometry: WindowGeometry, new: Sequence[Frame], images: NDArray[np.uint8]) -> list[Frame]:
        """Chain a window of ``images`` [T, H, W, 3]: those shared, then those of ``new``; the new ones that it took.

        Images whose geometry no other image of the window confirms are not taken. Raises NotAligned, also when that is
        so of all new ones (``unsupported``).
        """
        stamps = [stamp for stamp, _ in self.shared] + [frame.stamp_ns for frame in new]
        good = np.flatnonzero(supported(geometry))
        frames = {frame.stamp_ns: frame for frame in new}
        taken = [(place, frames[stamps[i]], images[i]) for place, i in enumerate(good) if stamps[i] in frames]
        if not taken or len(good) < min(2, len(stamps)):
            raise NotAligned("unsupported", "no two images show the same surfaces at the same place")
        if len(good) < len(stamps):
            geometry = geometry.subset(good.tolist())
            stamps = [stamps[i] for i in good]
        self.chain.add(geometry, stamps)
        number = self.newest
        for i, frame, image in taken:
            self.images[frame.stamp_ns] = self._image(geometry, i, frame, number, image.shape[:2])
            self.anchors.add(frame.stamp_ns, image, geometry, i, number)
        self.latest = [images[i] for i in good]
        self.shared = list(zip(stamps, self.latest, strict=True))[-self.config.overlap :]
        places = self.chain.place()
        self.anchors.thin(places, self.chain.first_index)
        self.metres.see_poses(number, places, self.chain.first_index, self.images.values(), self.config.overlap)
        self._forget_oldest()
        return [frame for _, frame, _ in taken]

    def join(self, other: Submap, link: Link, before: int) -> None:
        """Go on with the windows of another submap. link: of its first window to the window ``before`` of this one."""
        shift = self.newest + 1 - other.chain.first_index
        self.chain.join(other.chain, link, before)
        for image in other.images.values():
            image.window += shift
        self.images |= other.images
        self.metres.join(other.metres, shift)
        self.anchors.join(other.anchors, shift)
        self.anchors.thin(self.chain.place(), self.chain.first_index)
        self.shared, self.latest = other.shared, other.latest
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Images of windows that the chain no longer holds stay as they are."""
        oldest = self.chain.first_index
        if oldest:
            for stamp in [s for s, image in self.images.items() if image.window < oldest]:
                del self.images[stamp]

    def _image(
        self, geometry: WindowGeometry, index: int, frame: Frame, number: int, size: tuple[int, ...]
    ) -> ChainImage:
        depth = np.where(geometry.valid[index], geometry.depth[index], np.nan).astype(np.float32)
        confidence = geometry.confidence[index]
        if np.isfinite(depth).any():
            enough = self.config.min_confidence * np.median(confidence[np.isfinite(depth)])
            depth[~(confidence >= enough)] = np.nan
            depth = without_specks(depth)
        height, width = size
        if self._camera is None or (self._camera.width, self._camera.height) != (width, height):
            self._camera = _predicted_camera(geometry, width, height)
        if frame.camera is not None:
            predicted = float(geometry.K[index, 0, 0]) * width / geometry.depth.shape[2]
            self.focal_logs.append(float(np.log(frame.camera.fx / predicted)))
            del self.focal_logs[:-_FOCAL_LENGTHS]
        measured = None if frame.depth is None else depth_to_metres(frame.depth)
        if measured is not None:
            self.metres.see_depth(geometry, index, measured, number)
        return ChainImage(
            frame,
            frame.stamp_ns,
            frame.camera_frame,
            number,
            np.array(geometry.T_window_camera[index], dtype=np.float64),
            frame.T_world_camera,
            frame.world_frame,
            depth,
            frame.camera or self._camera,
            measured is not None and bool(np.isfinite(measured).mean() >= self.config.dense_depth),
        )

    def camera_of(self, frame: Frame) -> CameraModel | None:
        """The frame's camera, else the predicted one."""
        return frame.camera or self._camera

    def log_scales(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Logarithm [K] of every window's scale and its deviation [K], infinite without metres."""
        return self.metres.log_scales(self.chain, self.focal_logs)

    def chain_poses(self, x: NDArray[np.float64]) -> list[Transform]:
        """Poses of all images as predicted, with log scales ``x`` [K]; upright if measured ones tell how the first window
        stands, else as if held level."""
        images = list(self.images.values())
        if self._base is None:
            first = [i for i in images if i.window == 0]
            turns = [i.measured[:3, :3] @ i.T_window_camera[:3, :3].T for i in first if i.measured is not None]
            R = turns[0] if turns else _HELD_LEVEL @ first[0].T_window_camera[:3, :3].T
            self._base = Sim3(1.0, R, np.zeros(3))
        gone = self.chain.first_index - self._places_from
        if gone > 0:  # the first window has gone: hold on to where the one that is the oldest now was last put
            was = self._places[min(gone, len(self._places) - 1)]
            unit = float(np.exp(x[0])) / was.scale
            self._base = Sim3(1.0, was.rotation, unit * was.translation)
        self._places, self._places_from = self.chain.place(x, self._base), self.chain.first_index
        return [self._places[i.window - self._places_from].pose(i.T_window_camera) for i in images]

    def measured_or_near(self, x: NDArray[np.float64]) -> list[Transform]:
        """Measured poses of all images; where one is missing, the nearest measured one and the predicted way from there."""
        images, predicted = list(self.images.values()), self.chain_poses(x)
        known = [(n, image.measured) for n, image in enumerate(images) if image.measured is not None]
        out: list[Transform] = []
        for n, image in enumerate(images):
            if image.measured is not None:
                out.append(image.measured)
                continue
            near, measured = min(known, key=lambda k: abs(images[k[0]].stamp_ns - image.stamp_ns))
            out.append(measured @ invert(predicted[near]) @ predicted[n])
        return out


_FOCAL_LENGTHS = 100


def _predicted_camera(geometry: WindowGeometry, width: int, height: int) -> CameraModel:
    """The pinhole camera of images [height, width] that the window's matrices mean, the median of its images."""
    h, w = geometry.depth.shape[1:]
    fx, fy, cx, cy = (float(np.median(geometry.K[:, r, c])) for r, c in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return CameraModel(
        width,
        height,
        fx * width / w,
        fy * height / h,
        (cx + 0.5) * width / w - 0.5,
        (cy + 0.5) * height / h - 0.5,
    )
