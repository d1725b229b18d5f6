"""RGB-D folders: frame-*.color.jpg, .depth.png, .pose.txt and intrinsics.txt, the layout of 7-Scenes and 3DMatch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.images import EncodedImage
from spatial_mllm_ros.scene.inputs import Doubt, InputSettings
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.sources.calibration import read_camera, read_sensor, read_table, read_transform, row_stamp_ns
from spatial_mllm_ros.sources.compressed import BadImage, decode_png16, encoded_image
from spatial_mllm_ros.sources.source import SourceError, SourceInfo

COLOUR_SUFFIXES = (".color.jpg", ".color.jpeg", ".color.png")
DEPTH_SUFFIX = ".depth.png"
CAMERA_FRAME = "camera_color_optical_frame"
WITHOUT_TIMES_HZ = 30


@dataclass(frozen=True)
class _Entry:
    name: str
    stamp_ns: int
    colour: Path | None
    camera_frame: str
    world_frame: str


class RgbdFolderSource:
    """A folder with, for every frame, a colour image and, where known, registered depth and the colour camera's pose.

    NAME.color.jpg (or .png): 8-bit colour. NAME.depth.png: uint16 mm along the optical axis, 0 = no data, registered to
    the colour image. NAME.pose.txt: 4x4 camera to world, metres. intrinsics.txt: 3x3; or camera.yaml, the format of ROS
    camera calibration, which takes precedence and can hold a distortion. frames.csv: ``name`` and a time in seconds,
    ``timestamp_s`` or ``nominal_time_s``; without it the number in the name counts at 30 Hz. T_zup_from_world.txt: 4x4
    to a frame with z up and the floor at z = 0. sensor.yaml: fields of SensorModel. All but the images is optional.

    ``refused``: images that never became a frame. ``remarks``: frames that came without depth or pose, by reason, where
    there was a file for it. Raises SourceError.
    """

    def __init__(self, folder: Path | str, settings: InputSettings | None = None) -> None:
        self._folder = Path(folder)
        self._settings = settings or InputSettings()
        self.doubts: list[Doubt] = []
        self.refused: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()
        self._entries, self._missing = _list_entries(self._folder, CAMERA_FRAME, self._settings.world_frame or "map")
        self._stamps = {entry.name: entry.stamp_ns for entry in self._entries}
        self._names = {entry.stamp_ns: entry.name for entry in self._entries}
        zup = self._folder / "T_zup_from_world.txt"
        try:
            T_zup = read_transform(zup) if zup.exists() else None
        except (OSError, ValueError) as error:
            raise SourceError(f"{zup} is not a 4x4 rigid transform: {error}") from error
        stamps = [entry.stamp_ns for entry in self._entries]
        self.info = SourceInfo(
            name=self._folder.resolve().name,
            frames=len(stamps),
            duration_s=(stamps[-1] - stamps[0]) / 1e9,
            world_frame=self._entries[0].world_frame,
            T_zup_from_world=T_zup,
            sensor=read_sensor(self._folder),
            description=f"RGB-D folder, {len(stamps)} frames, {(stamps[-1] - stamps[0]) / 1e9:.1f} s",
        )

    def stamp_of(self, name: str) -> int:
        """Stamp (ns) of the frame of that name, as "frame-000016". KeyError when there is none."""
        try:
            return self._stamps[name]
        except KeyError:
            raise KeyError(f"{self.info.name} has no frame {name!r}; names are as {self._entries[0].name!r}") from None

    def name_of(self, stamp_ns: int) -> str | None:
        """The name of the frame with that stamp, None when there is none."""
        return self._names.get(stamp_ns)

    def frames(self) -> Iterator[Frame]:
        """Frames by increasing stamp. A damaged colour image is refused; damaged depth or poses are left out."""
        self.refused.clear()
        self.remarks.clear()
        self.refused.update(self._missing)
        camera: CameraModel | None = None
        for entry in self._entries:
            depth = self._depth(entry)
            image: EncodedImage | None = None
            size = None if depth is None else (depth.shape[1], depth.shape[0])
            if entry.colour is not None:
                try:
                    image, size = encoded_image(entry.colour.read_bytes())
                except (BadImage, OSError) as error:
                    self.refused[error.reason if isinstance(error, BadImage) else "unreadable_file"] += 1
                    continue
            if size is None:
                self.refused["damaged_depth"] += 1  # a frame that had nothing but depth
                continue
            if camera is None:
                camera = read_camera(self._folder, size)
            if camera is not None and size != (camera.width, camera.height):
                self.refused["image_size"] += 1
                continue
            if depth is not None and (depth.shape[1], depth.shape[0]) != size:
                self.remarks["depth_size"] += 1
                depth = None
            yield Frame(
                entry.stamp_ns, entry.camera_frame, camera, image, depth, self._pose(entry.name), entry.world_frame
            )

    def _depth(self, entry: _Entry) -> NDArray[np.uint16] | None:
        path = self._folder / (entry.name + DEPTH_SUFFIX)
        if not path.exists():
            return None
        try:
            return decode_png16(path.read_bytes())
        except (BadImage, OSError):
            self.remarks["damaged_depth"] += 1
            return None

    def _pose(self, name: str) -> Transform | None:
        path = self._folder / f"{name}.pose.txt"
        if not path.exists():
            return None
        try:
            return read_transform(path)
        except (OSError, ValueError):  # 7-Scenes marks lost tracking with infinities
            self.remarks["invalid_pose"] += 1
            return None


def is_rgbd_folder(folder: Path) -> bool:
    """Whether the folder holds NAME.color.jpg, NAME.color.png or NAME.depth.png."""
    return any(p.name.endswith((*COLOUR_SUFFIXES, DEPTH_SUFFIX)) for p in folder.iterdir())


def _list_entries(folder: Path, camera_frame: str, world_frame: str) -> tuple[list[_Entry], Counter[str]]:
    """Frames by stamp, and what is listed or lies there but cannot be one, by reason."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder")
    colours: dict[str, Path] = {}
    names: set[str] = set()
    for path in sorted(folder.iterdir()):
        for suffix in (*COLOUR_SUFFIXES, DEPTH_SUFFIX):
            if path.name.endswith(suffix):
                name = path.name[: -len(suffix)]
                names.add(name)
                if suffix != DEPTH_SUFFIX:
                    colours.setdefault(name, path)
    if not names:
        raise SourceError(f"{folder} holds no frame-*.color.jpg, frame-*.color.png or frame-*.depth.png")
    table = folder / "frames.csv"
    missing: Counter[str] = Counter()
    rows = {row["name"]: row for row in read_table(table)} if table.exists() else None
    if rows is not None:
        missing["not_in_frames_csv"] = len(names - rows.keys())
        missing["missing_file"] = len(rows.keys() - names)
    entries: dict[int, _Entry] = {}
    for order, name in enumerate(sorted(names if rows is None else names & rows.keys())):
        row = {} if rows is None else rows[name]
        stamp = row_stamp_ns(table, row) if row else _counted_stamp_ns(name, order)
        if stamp in entries:
            missing["repeated_stamp"] += 1
            continue
        entries[stamp] = _Entry(
            name,
            stamp,
            colours.get(name),
            row.get("camera_frame") or camera_frame,
            row.get("world_frame") or world_frame,
        )
    if not entries:
        raise SourceError(f"{table} names none of the frames in {folder}")
    return [entries[stamp] for stamp in sorted(entries)], +missing


def _counted_stamp_ns(name: str, order: int) -> int:
    """Without times: the number at the end of the name, else the position in the list, at 30 Hz."""
    digits = name[len(name.rstrip("0123456789")) :]
    return (int(digits) if digits else order) * 1_000_000_000 // WITHOUT_TIMES_HZ
