"""A recording as the engine needs it: some of its images, their depth, and which points each of them sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.learning.multispa.sightings import Looking, Sightings
from spatial_mllm_ros.learning.objects import ObjectBox, objects_of, owners_of
from spatial_mllm_ros.learning.tracks import TapVidSource, is_tapvid, tracks_of
from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame, depth_to_metres
from spatial_mllm_ros.scene.gravity import ImageSurfels, estimate_gravity, image_surfels
from spatial_mllm_ros.scene.images import EncodedImage
from spatial_mllm_ros.scene.pose import Transform, apply, invert
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.scene.tracks import Tracks
from spatial_mllm_ros.scene.voxels import Lattice, voxel_centres, voxel_keys
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.sources.compressed import JPEG
from spatial_mllm_ros.sources.source import Source, SourceError
from spatial_mllm_ros.sources.stamps import ns_to_seconds
from spatial_mllm_ros.sources.writers import encoded_color, name_of

VOXEL_M = 0.05
"""Points of a scene are thinned to one a voxel of this edge (the published engine takes the vertices of a mesh)."""
GRID_COLUMNS = 160
"""Pixels across an image from which points are taken."""
OBJECT_COLUMNS = 320
"""The same for the points of objects."""
SAME_M, SAME_SHARE = 0.04, 0.01
"""A point is seen where the image's depth is its own to within the voxel, and this share for the sensor's noise. The
published engine counts every point that is nearer than the depth, also one that floats in front."""
SMOOTH_PX, SMOOTH_SHARE = 7, 0.05
"""A pixel can be asked about where depth is known and within this share of even in a window of this side, so that a dot,
or rounded coordinates, mean the same surface."""
MARGIN_PX = 8
Pick = slice | NDArray[np.intp]
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class SceneImage:
    """One image. name: of its file, without folder. frame: what the recording calls it. T_world_camera, T_zup_camera: camera
    points to the world of the recording, and to its upright frame. depth_file: .npy of uint16 mm or float32 m, or None."""

    name: str
    frame: str
    stamp_ns: int
    camera: CameraModel
    T_world_camera: Transform
    T_zup_camera: Transform
    depth_file: Path | None

    def depth(self, rows: Pick = slice(None), columns: Pick = slice(None)) -> NDArray[np.float32]:
        """Metres at rows and columns, NaN where there is none. ValueError for an image without depth."""
        if self.depth_file is None:
            raise ValueError(f"{self.name} has no depth")
        return depth_to_metres(_loaded(self.depth_file)[rows, columns])

    def measured(self, columns: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """World points [n, 3] of pixels on a grid of about so many columns, and flat indices of these pixels [n]."""
        stride = max(1, self.camera.width // columns)
        z = self.depth(slice(stride // 2, None, stride), slice(stride // 2, None, stride))
        local = (self.camera.rays(stride)[: z.shape[0], : z.shape[1]] * z[..., None])[np.isfinite(z)]
        rows, columns_ = np.nonzero(np.isfinite(z))
        flat = (rows * stride + stride // 2) * self.camera.width + columns_ * stride + stride // 2
        return np.asarray(apply(self.T_world_camera, local.astype(np.float64)), dtype=np.float64), flat

    def askable(self) -> NDArray[np.intp]:
        """Flat indices of the pixels that can be asked about."""
        z = self.depth()
        kernel = np.ones((SMOOTH_PX, SMOOTH_PX), dtype=np.uint8)
        known = np.isfinite(z)
        filled = np.where(known, z, np.float32(0))
        low = cv2.erode(filled, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        high = cv2.dilate(filled, kernel)
        good = (low > 0) & (high - low <= SMOOTH_SHARE * np.maximum(low, 1e-6))
        inner = np.zeros_like(good)
        inner[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] = True
        return np.flatnonzero(good & inner)


@lru_cache(maxsize=256)
def _loaded(path: Path) -> NDArray[np.uint16]:
    """Or float32."""
    return np.asarray(np.load(path, mmap_mode="r"))


@dataclass(frozen=True, eq=False, kw_only=True)
class Scene:
    """points: world, metres [n, 3]. sees: which image sees which, bool [images, n]. overlap: percent, of the points that
    either of two images sees those that both see, [images, images]. upright: how up is known, in words.
    sightings: what the images show of ``boxes``; None without objects or depth.
    refused: frames that could not be used, by reason."""

    name: str
    spec: str
    images: tuple[SceneImage, ...]
    points: NDArray[np.float64]
    sees: NDArray[np.bool_]
    overlap: NDArray[np.float64]
    upright: str
    T_zup_from_world: Transform
    sensor: SensorModel = field(default_factory=SensorModel)
    boxes: tuple[ObjectBox, ...] = ()
    sightings: Sightings | None = None
    tracks: Tracks | None = None
    remarks: tuple[str, ...] = ()
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def has_depth(self) -> bool:
        return bool(self.images) and self.images[0].depth_file is not None


def open_any(spec: str) -> tuple[Source, Path | None]:
    """A recording and where it lies (None: rendered); files of TAPVid-3D too. Raises SourceError."""
    if spec == "rendered" or spec.startswith("rendered:"):
        return open_source(spec), None
    place = Path(spec).expanduser()
    return (TapVidSource(place) if is_tapvid(place) else open_source(spec)), place


def read_scene(spec: str, name: str, folder: Path, images_folder: Path, most_frames: int, progress: Progress) -> Scene:
    """Read a recording, write ``most_frames`` of its images as JPEG to ``images_folder``/``name`` and their depth to
    ``folder``.

    Raises SourceError for a recording that no question can be made of: without poses, without depth and tracked
    points, up to scale, or with one usable frame.
    """
    source, place = open_any(spec)
    if source.info.scale is not None and not source.info.scale.known:
        raise SourceError(f"{spec} is known up to scale only, so no lengths can be asked: {source.info.scale.reason}")
    tracks = tracks_of(source, place)
    (images_folder / name).mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    images: list[SceneImage] = []
    surfels: list[ImageSurfels] = []
    refused: Counter[str] = Counter()
    progress(f"reading {name}", 0, most_frames)
    for frame in _evenly(source, most_frames, tracks is not None, refused):
        images.append(_kept(source, frame, len(images), folder, images_folder / name))
        if frame.depth is not None:
            surfels.append(image_surfels(frame))
        progress(f"reading {name}", len(images), most_frames)
    _check_enough(spec, images, refused + source.refused)
    if surfels and len(surfels) < len(images):
        raise SourceError(f"{spec} has depth for {len(surfels)} of {len(images)} images only: leave out those without")
    level = estimate_gravity(surfels, source.info.T_zup_from_world)
    T_up = level.T_zup_from_world
    told = source.info.T_zup_from_world is not None
    words = "declared" if told else "taken to be the world's z (REP-103)" if level.assumed else "found in the surfaces"
    images = [replace(image, T_zup_camera=T_up @ image.T_world_camera) for image in images]
    points, sees = _seen_points(images, name, progress)
    boxes = objects_of(source, place)
    return Scene(
        name=name,
        spec=spec,
        images=tuple(images),
        points=points,
        sees=sees,
        overlap=_overlap(sees),
        upright=words,
        T_zup_from_world=T_up,
        sensor=source.info.sensor,
        boxes=boxes,
        sightings=_sightings(source, boxes, images, T_up) if boxes and surfels else None,
        tracks=None if tracks is None else tracks.at(np.array([image.stamp_ns for image in images], dtype=np.int64)),
        remarks=(*source.info.chosen, *(f"doubt: {doubt}" for doubt in source.doubts)),
        refused=refused + source.refused,
    )


def _evenly(source: Source, count: int, without_depth: bool, refused: Counter[str]) -> Iterator[Frame]:
    """Up to ``count`` usable frames, evenly spaced; why others are not usable is counted in ``refused``."""
    total = source.info.frames or sum(1 for _ in source.frames())
    targets = np.unique(np.linspace(0, max(total - 1, 0), count).round().astype(int))
    taken = 0
    for index, frame in enumerate(source.frames()):
        if taken == len(targets):
            return
        if index < targets[taken]:
            continue
        reason = _lacks(frame, without_depth)
        if reason:
            refused[reason] += 1
            continue
        taken += 1
        yield frame


def _lacks(frame: Frame, without_depth: bool) -> str:
    """Why a frame is not usable, '' where it is."""
    if frame.camera is None:
        return "no_camera_info"
    if frame.T_world_camera is None:
        return "no_pose"
    if frame.depth is None and not without_depth:
        return "no_depth"
    if frame.image is None:
        return "no_image"
    return "" if not isinstance(frame.image, EncodedImage) or _decodes(frame.image) else "bad_image"


def _decodes(image: EncodedImage) -> bool:
    try:
        image.decode()
    except ValueError:
        return False
    return True


def _check_enough(spec: str, images: Sequence[SceneImage], refused: Counter[str]) -> None:
    """Raises SourceError, which says what is missing, unless there are two images."""
    if len(images) >= 2:
        return
    remedies = {
        "no_depth": "it has no depth, of which most questions are made: record it, estimate it (--rgb-geometry writes no "
        "depth yet), or bring tracked points (tracks.npz)",
        "no_pose": "its poses are missing: see docs/recordings.md",
        "no_camera_info": "its camera is not calibrated: intrinsics.txt or CameraInfo",
    }
    why = [remedies[reason] for reason in remedies if refused[reason]]
    counts = ", ".join(f"{count} {reason}" for reason, count in refused.most_common())
    found = "one usable frame" if images else "no usable frame"
    raise SourceError(
        f"{spec} has {found}{f' ({counts})' if counts else ''}, but questions are about two views at least"
        f"{': ' + '; '.join(why) if why else ''}"
    )


def _kept(source: Source, frame: Frame, number: int, folder: Path, images_folder: Path) -> SceneImage:
    """The frame's image and depth on disk."""
    if frame.camera is None or frame.image is None or frame.T_world_camera is None:
        raise ValueError("a usable frame has an image, a camera model and a pose")
    data = encoded_color(frame.image)
    name = f"{number:05d}{'.jpg' if data.startswith(JPEG) else '.png'}"
    (images_folder / name).write_bytes(data)
    depth_file = None if frame.depth is None else folder / f"{number:05d}.npy"
    if depth_file is not None and frame.depth is not None:
        np.save(depth_file, frame.depth)
    return SceneImage(
        name=name,
        frame=name_of(source, frame.stamp_ns) or ns_to_seconds(frame.stamp_ns),
        stamp_ns=frame.stamp_ns,
        camera=frame.camera,
        T_world_camera=frame.T_world_camera,
        T_zup_camera=frame.T_world_camera,
        depth_file=depth_file,
    )


def _seen_points(
    images: Sequence[SceneImage], name: str, progress: Progress
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Points of the surfaces, and which image sees which of them. None of either without depth."""
    if images[0].depth_file is None:
        return np.empty((0, 3)), np.zeros((len(images), 0), dtype=bool)
    lattice, keys = Lattice(VOXEL_M), np.empty(0, dtype=np.int64)
    for image in images:
        keys = np.union1d(keys, voxel_keys(image.measured(GRID_COLUMNS)[0], lattice))
    points = voxel_centres(keys, lattice)
    sees = np.zeros((len(images), len(points)), dtype=bool)
    for number, image in enumerate(images):
        sees[number] = visible(image, points)[0]
        progress(f"what {name} shows", number + 1, len(images))
    return points, sees


def visible(image: SceneImage, points: NDArray[np.floating]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which world points [n, 3] an image sees, by its depth, and their pixels [n, 2], NaN outside of it."""
    local = apply(invert(image.T_world_camera), points)
    uv = np.asarray(image.camera.project(local))
    inside = np.flatnonzero(np.isfinite(uv).all(axis=1))
    inside = inside[image.camera.contains(uv[inside])]
    columns, rows = np.rint(uv[inside]).astype(np.intp).T
    z = local[inside, 2]
    with np.errstate(invalid="ignore"):
        inside = inside[np.abs(image.depth(rows, columns) - z) < SAME_M + SAME_SHARE * z]
    sees = np.zeros(len(points), dtype=bool)
    sees[inside] = True
    return sees, np.where(sees[:, None], uv, np.nan)


def _sightings(
    source: Source, boxes: Sequence[ObjectBox], images: Sequence[SceneImage], T_zup_from_world: Transform
) -> Sightings:
    looking, owners = Looking(boxes, VOXEL_M), owners_of(source, boxes)
    for image in images:
        world, flat = image.measured(OBJECT_COLUMNS)
        upright = np.asarray(apply(T_zup_from_world, world), dtype=np.float64)
        looking.add(
            upright,
            (T_zup_from_world @ image.T_world_camera)[:3, 3],
            None if owners is None else owners(image.stamp_ns)[flat],
        )
    return looking.sightings()


def _overlap(sees: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Percent of the points that either of two images sees that both see (published: intersection over union)."""
    seen = sees.astype(np.float32)
    both = (seen @ seen.T).astype(np.float64)
    each = np.diag(both)
    return 100 * both / np.maximum(each[:, None] + each[None, :] - both, 1)
