"""What every layout of files is read into: a list of entries, and the one Source that makes frames of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.depth import COUNT_M, Depth, DepthFormat, metric_depth
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.images import EncodedImage
from spatial_mllm_ros.scene.inputs import BODY, Doubt, InputSettings
from spatial_mllm_ros.scene.metric_scale import MetricScale
from spatial_mllm_ros.scene.pose import T_BODY_OPTICAL, Transform, make_transform
from spatial_mllm_ros.scene.registration import depth_from_the_same_place, resampled_depth
from spatial_mllm_ros.sources.calibration import LostPose, read_sensor
from spatial_mllm_ros.sources.compressed import BadImage
from spatial_mllm_ros.sources.image_files import open_image
from spatial_mllm_ros.sources.layouts.trajectory import Trajectory
from spatial_mllm_ros.sources.source import SourceError, SourceInfo
from spatial_mllm_ros.sources.stamps import LATEST_NS

CAMERA_FRAME = "camera_color_optical_frame"
FAR_OFF, OUTSIDE = 0.2, 0.5
"""Of the image's width or height from its middle: a principal point that is to be doubted, and that cannot be."""
Size = tuple[int, int]
ReadCamera = Callable[[Size], CameraModel | None]
"""The camera model of images of a size (width, height); None where none is known."""

ReadPose = Callable[[], Transform]
"""A pose, camera to world (optical axes), metres. Raises LostPose where tracking was lost, else ValueError or OSError."""


def no_camera(size: Size) -> None:
    """Nothing is known about the camera."""


class OneCamera:
    """One camera for all images: that of the first one's size. Images of another size are then refused."""

    def __init__(self, read: ReadCamera) -> None:
        self._read = read
        self._camera: CameraModel | None = None

    def __call__(self, size: Size) -> CameraModel | None:
        if self._camera is None:
            self._camera = self._read(size)
        return self._camera


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One moment of a recording, whose parts are read when it is its turn.

    color: the bytes of an image file, or RGB pixels uint8 [h, w, 3]. depth: raw counts [h, w], see
    ``Listing.depth_unit_m``. Both raise OSError or BadImage. pose: camera to world (optical axes), metres; raises LostPose
    where tracking was lost, else ValueError, LookupError or OSError. pose_stddev: as in Frame, of a pose that is known.
    camera: of the color image. depth_camera: of depth that is another camera's view at the same place; None: depth shows the
    color image's view, at whatever size. aliases: further names.
    """

    name: str
    stamp_ns: int
    color: Callable[[], bytes | NDArray[np.uint8]] | None = None
    depth: Callable[[], NDArray] | None = None
    pose: ReadPose | None = None
    pose_stddev: Callable[[], tuple[float, float]] | None = None
    camera: ReadCamera = no_camera
    depth_camera: ReadCamera | None = None
    camera_frame: str = CAMERA_FRAME
    world_frame: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a layout found in a folder or file.

    kind: the layout, for people. depth_unit_m, depth_nearest_m, depth_assumed: of integer depth, see DepthFormat. world_frame:
    of the poses. scale: what is known of their scale, None: they are in metres. upright: images are turned as their EXIF tags
    ask. lossy_color: as in SourceInfo. same_view: depth of another size shows the color image's view, by the layout's own
    word. chosen, doubts: to be told. refused, remarks: what is listed but cannot be a frame, or misses something, by reason.
    """

    kind: str
    entries: list[Entry]
    depth_unit_m: float = 0.001
    depth_nearest_m: float = 0.0
    depth_assumed: bool = False
    world_frame: str = "map"
    T_zup_from_world: Transform | None = None
    scale: MetricScale | None = None
    upright: bool = False
    lossy_color: bool = False
    same_view: bool = False
    chosen: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    refused: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)


class EntriesSource:
    """A recording that a layout listed. path: its folder or file.

    ``refused``: images that never became a frame. ``remarks``: frames that came without depth or pose, by reason, where
    there was something for it. Raises SourceError.
    """

    def __init__(self, path: Path, listing: Listing, settings: InputSettings) -> None:
        self._settings, self._listing = settings, listing
        if not listing.entries:
            raise SourceError(
                f"{path} holds no images ({listing.kind}): {_counted(listing.refused) or 'nothing is listed'}"
            )
        self._entries: dict[int, Entry] = {}
        possible = [entry for entry in listing.entries if abs(entry.stamp_ns) <= LATEST_NS]
        if not possible:
            raise SourceError(f"{path}: its stamps cannot be: they lie beyond the year 2262")
        for entry in sorted(possible, key=lambda entry: entry.stamp_ns):
            self._entries.setdefault(entry.stamp_ns, entry)
        self._left_out = Counter(
            repeated_stamp=len(possible) - len(self._entries), bad_stamp=len(listing.entries) - len(possible)
        )
        self._stamps = {name: e.stamp_ns for e in self._entries.values() for name in e.aliases}
        self._stamps |= {e.name: e.stamp_ns for e in self._entries.values()}
        self.refused: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()
        self.texts: dict[str, str] = {}
        self.doubts: list[Doubt] = list(listing.doubts)
        self._shifted: Trajectory | None = None
        stamps = list(self._entries)
        with_pose = any(e.pose is not None for e in listing.entries) or settings.static
        duration_s = (stamps[-1] - stamps[0]) / 1e9
        self.info = SourceInfo(
            name=path.resolve().stem if path.is_file() else path.resolve().name,
            frames=len(stamps),
            duration_s=duration_s,
            world_frame=next(iter(self._entries.values())).world_frame or settings.world_frame or listing.world_frame,
            T_zup_from_world=listing.T_zup_from_world,
            sensor=read_sensor(path if path.is_dir() else path.parent),
            description=f"{listing.kind}, {len(stamps)} frames"
            + ("" if any(e.depth is not None for e in listing.entries) else " without depth")
            + ("" if with_pose else " without poses")
            + f", {duration_s:.1f} s",
            chosen=(f"read as {listing.kind}", *listing.chosen, *_depth_words(listing, settings)),
            lossy_color=listing.lossy_color,
            scale=_scale(listing, settings),
            depth=_depth_format(listing, settings),
        )

    def stamp_of(self, name: str) -> int:
        """Stamp (ns) of the frame of that name, as "frame-000016", or of its file. KeyError when there is none."""
        try:
            return self._stamps[name]
        except KeyError:
            example = next(iter(self._entries.values())).name
            raise KeyError(f"{self.info.name} has no frame {name!r}; names are as {example!r}") from None

    def name_of(self, stamp_ns: int) -> str | None:
        """The name of the frame with that stamp, None when there is none."""
        entry = self._entries.get(stamp_ns)
        return None if entry is None else entry.name

    def frames(self) -> Iterator[Frame]:
        """Frames by increasing stamp. A damaged color image is refused; damaged depth or poses are left out."""
        self.refused.clear()
        self.remarks.clear()
        self.refused.update(self._listing.refused + self._left_out)
        self.remarks.update(+self._listing.remarks)
        self._shifted = self._other_times() if self._settings.pose_offset_s else None
        for entry in self._entries.values():
            depth = self._raw_depth(entry)
            image: NDArray[np.uint8] | EncodedImage | None = None
            size = None if depth is None else (depth.shape[1], depth.shape[0])
            if entry.color is not None:
                try:
                    color = entry.color()
                    image, size = self._image(color)
                except (ValueError, OSError) as error:  # BadImage is a ValueError
                    self.refused[reason_of(error)] += 1
                    continue
            if size is None:
                self.refused["damaged_depth"] += 1  # a frame that had nothing but depth
                continue
            camera = self._camera(entry, entry.camera, size)
            if camera is not None and size != (camera.width, camera.height):
                self.refused["image_size"] += 1
                continue
            if camera is not None:
                self._check(camera)
            pose = self._pose(entry)
            yield Frame(
                stamp_ns=entry.stamp_ns,
                camera_frame=entry.camera_frame,
                camera=camera,
                image=image,
                depth=None if depth is None else self._depth(depth, entry, size, camera),
                T_world_camera=pose,
                world_frame=entry.world_frame or self.info.world_frame,
                pose_stddev=self._pose_stddev(entry, pose),
            )

    def _camera(self, entry: Entry, read: ReadCamera, size: Size) -> CameraModel | None:
        try:
            return read(size)
        except (ValueError, TypeError, ArithmeticError) as error:  # InvalidCamera is a ValueError
            raise SourceError(f"{self.info.name}, {entry.name}: no camera model: {error}") from error

    def _check(self, camera: CameraModel) -> None:
        """The principal point of a matrix that is of other images lies anywhere. Raises SourceError."""
        off = max(abs(camera.cx / camera.width - 0.5), abs(camera.cy / camera.height - 0.5))
        size = f"images of {camera.width}x{camera.height}"
        where = f"the camera's principal point ({camera.cx:.0f}, {camera.cy:.0f}) of {size}"
        if off > OUTSIDE:
            raise SourceError(
                f"{self.info.name}: {where} lies outside them: the matrix is that of images of another size"
            )
        if off > FAR_OFF and not any(doubt.kind == "principal_point" for doubt in self.doubts):
            remedy = "check that the matrix is that of these images: of the same size, and not cropped or turned"
            self.doubts.append(
                Doubt(kind="principal_point", text=f"{where} is far from their middle", remedy=remedy, confidence=0.7)
            )

    def _image(self, color: bytes | NDArray[np.uint8]) -> tuple[NDArray[np.uint8] | EncodedImage, Size]:
        if isinstance(color, bytes):
            return open_image(color, upright=self._listing.upright)
        return color, (color.shape[1], color.shape[0])

    def _raw_depth(self, entry: Entry) -> NDArray | None:
        if entry.depth is None:
            return None
        try:
            return entry.depth()
        except FileNotFoundError:
            self.remarks["missing_depth"] += 1
        except (ValueError, OSError):
            self.remarks["damaged_depth"] += 1
        return None

    def _pose(self, entry: Entry) -> Transform | None:
        if self._settings.static:
            return np.eye(4)
        if entry.pose is None:
            return None
        try:
            pose = entry.pose() if self._shifted is None else self._shifted.at(self._pose_ns(entry))()
            if self._settings.pose_unit_m:
                pose = make_transform(pose[:3, :3], pose[:3, 3] * self._settings.pose_unit_m)
            return pose @ T_BODY_OPTICAL if self._settings.image_frame == BODY else pose
        except LostPose:
            self.remarks["lost_pose"] += 1
        except FileNotFoundError:
            self.remarks["missing_pose"] += 1
        except LookupError as error:  # of the transform tree
            reason = str(getattr(error, "reason", "invalid_pose"))
            self.remarks[reason] += 1
            self.texts[reason] = f"{entry.name}: {error}"
        except (OSError, ValueError) as error:
            self.remarks["invalid_pose"] += 1
            self.texts["invalid_pose"] = f"{entry.name}: {error}"
        return None

    def _pose_ns(self, entry: Entry) -> int:
        return entry.stamp_ns + round(self._settings.pose_offset_s * 1e9)

    def _other_times(self) -> Trajectory:
        """All poses, to be asked for at other times than those of their images."""
        poses = Trajectory(self._settings)
        for entry in self._entries.values():
            try:
                if entry.pose is not None:
                    poses.add(entry.stamp_ns, entry.pose())
            except (LookupError, OSError, ValueError):
                continue  # counted for the images that it is missing for
        return poses

    def _pose_stddev(self, entry: Entry, pose: Transform | None) -> tuple[float, float] | None:
        if pose is None or self._settings.static or (entry.pose_stddev is None and self._shifted is None):
            return None
        told = entry.pose_stddev if self._shifted is None else self._shifted.stddev_at(self._pose_ns(entry))
        assert told is not None
        position, rotation = told()
        return position * (self._settings.pose_unit_m or 1.0), rotation

    def _depth(self, raw: NDArray, entry: Entry, size: Size, camera: CameraModel | None) -> Depth | None:
        """Raw depth as that of a Frame: in its units, without what is invalid, and in the color image's pixels."""
        unit_m = self._listing.depth_unit_m if raw.dtype.kind != "f" else None
        try:
            depth = metric_depth(raw, self._settings, unit_m)
        except ValueError:
            self.remarks["bad_depth"] += 1
            return None
        own = None if entry.depth_camera is None else self._camera(entry, entry.depth_camera, (depth.shape[1], depth.shape[0]))
        if own is not None and camera is not None and own != camera:
            return depth_from_the_same_place(depth, own, camera)
        if depth.shape == (size[1], size[0]):
            return depth
        resampled = resampled_depth(depth, size)
        if resampled is None or not self._listing.same_view:
            self.remarks["depth_size" if resampled is None else "depth_resampled"] += 1
        return resampled


def _scale(listing: Listing, settings: InputSettings) -> MetricScale | None:
    if settings.pose_unit_m is None:
        return listing.scale
    return (
        None if settings.pose_unit_m else MetricScale(reason="pose_unit_m is 0: nothing tells the metres of the poses")
    )


def _depth_format(listing: Listing, settings: InputSettings) -> DepthFormat:
    if settings.depth_unit_m:
        return DepthFormat(unit_m=settings.depth_unit_m)
    usual = listing.depth_unit_m == COUNT_M  # then floating point, which is metres, may be there as well
    return DepthFormat(
        unit_m=None if usual else listing.depth_unit_m, nearest_m=listing.depth_nearest_m, assumed=listing.depth_assumed
    )


def _depth_words(listing: Listing, settings: InputSettings) -> tuple[str, ...]:
    if all(e.depth is None for e in listing.entries):
        return ()
    words = f"depth: {settings.depth_unit_m or listing.depth_unit_m:g} m a count of 16 bits"
    if settings.min_depth_m or settings.max_depth_m:
        words += f", from {settings.min_depth_m:g} m to {f'{settings.max_depth_m:g} m' if settings.max_depth_m else 'any'}"
    return (f"{words}; no data: 0 and {', '.join(f'{v:g}' for v in settings.invalid_depth) or 'nothing else'}",)


def told(*doubts: Doubt | None) -> tuple[Doubt, ...]:
    """The doubts that there are."""
    return tuple(doubt for doubt in doubts if doubt is not None)


def reason_of(error: ValueError | OSError) -> str:
    """The short word by which an image that could not be read is counted."""
    if isinstance(error, BadImage):
        return error.reason
    return "missing_file" if isinstance(error, FileNotFoundError) else "unreadable_file"


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in counter.most_common())
