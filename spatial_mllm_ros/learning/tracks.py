"""Tracked points of a recording: of a rendered house, from a file beside it, or from TAPVid-3D."""

from __future__ import annotations

import pickle
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.images import EncodedImage
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.pose import checked_transform, invert
from spatial_mllm_ros.scene.tracks import Tracks
from spatial_mllm_ros.sources.compressed import decode_rgb
from spatial_mllm_ros.sources.source import Source, SourceError, SourceInfo

FILE = "tracks.npz"
"""Beside a recording: ``stamps_ns`` int64 [frames], ``tracks_XYZ`` metres [frames, points, 3] in its world,
``visibility`` bool [frames, points], and, where known, ``group`` int [points]: points of one rigid body share a number."""
TAPVID_HZ = 30.0
"""Frames of TAPVid-3D have no stamps; ADT and Panoptic Studio were recorded at about this rate. Only the order counts."""


def tracks_of(source: Source, place: Path | None) -> Tracks | None:
    """The tracked points of a recording: its own, or those of tracks.npz beside it. None: there are none."""
    own: Tracks | None = getattr(source, "tracks", None)
    if own is not None:
        return own
    path = None if place is None else (place if place.is_dir() else place.parent) / FILE
    if path is None or not path.is_file():
        return None
    try:
        found = arrays_of(path)
        return Tracks(
            stamps=np.asarray(found["stamps_ns"], dtype=np.int64),
            world=np.asarray(found["tracks_XYZ"], dtype=np.float64),
            visible=np.asarray(found["visibility"], dtype=bool),
            group=np.asarray(found["group"], dtype=np.int64) if "group" in found else None,
        )
    except _DAMAGED as error:
        raise SourceError(f"{path} holds no tracked points: {error}") from error


_DAMAGED = (ValueError, KeyError, OSError, IndexError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError)


class TapVidSource:
    """A file of TAPVid-3D (.npz: images_jpeg_bytes, tracks_XYZ, visibility, fx_fy_cx_cy, extrinsics_w2c) as a recording.

    It has images, a camera, poses and ``tracks``, but no depth. Without extrinsics_w2c, as in its first releases, the
    camera is taken to stand still, as in Panoptic Studio: a doubt says so.

    Raises SourceError when it is another file, or damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            found = arrays_of(path)
            missing = {"images_jpeg_bytes", "tracks_XYZ", "visibility", "fx_fy_cx_cy"} - set(found)
            if missing:
                raise SourceError(f"{path} is no file of TAPVid-3D: it lacks {', '.join(sorted(missing))}")
            self._images: list[bytes] = [bytes(data) for data in found["images_jpeg_bytes"]]
            in_camera = np.asarray(found["tracks_XYZ"], dtype=np.float64)
            visible = np.asarray(found["visibility"], dtype=bool)
            fx, fy, cx, cy = (float(x) for x in found["fx_fy_cx_cy"])
            told = "extrinsics_w2c" in found
            w2c = found["extrinsics_w2c"] if told else np.broadcast_to(np.eye(4), (len(in_camera), 4, 4))
            self._poses = [invert(checked_transform(T)) for T in w2c]
            height, width = decode_rgb(self._images[0]).shape[:2]
            self._camera = CameraModel(width, height, fx, fy, cx, cy)
        except _DAMAGED as error:
            raise SourceError(f"{path} cannot be read as TAPVid-3D: {error}") from error
        if not len(self._images) == len(in_camera) == len(self._poses):
            raise SourceError(
                f"{path} has {len(self._images)} images, {len(in_camera)} frames of tracks and {len(self._poses)} poses"
            )
        stamps = np.rint(np.arange(1, len(in_camera) + 1) * (1e9 / TAPVID_HZ)).astype(np.int64)
        world = np.stack([p @ T[:3, :3].T + T[:3, 3] for p, T in zip(in_camera, self._poses, strict=True)])
        self.tracks = Tracks(stamps=stamps, world=world, visible=visible)
        self.refused: Counter[str] = Counter()
        self.doubts: list[Doubt] = []
        if not told:
            text = f"{path.name} tells no poses, so the camera is taken to stand still"
            self.doubts.append(Doubt(kind="poses", text=text, remedy="use a release with extrinsics_w2c if it moves"))
        self.info = SourceInfo(
            name=path.stem,
            frames=len(self._images),
            duration_s=len(self._images) / TAPVID_HZ,
            world_frame="world",
            description=f"TAPVid-3D, {len(self._images)} images with {world.shape[1]} tracked points, without depth",
        )

    def frames(self) -> Iterator[Frame]:
        for stamp, data, T in zip(self.tracks.stamps, self._images, self._poses, strict=True):
            image = EncodedImage(data, decode_rgb)
            yield Frame(int(stamp), "camera", self._camera, image, None, T, self.info.world_frame)

    def name_of(self, stamp_ns: int) -> str | None:
        """ "frame-00012" of the frame with that stamp, None when there is none."""
        index = int(np.searchsorted(self.tracks.stamps, stamp_ns))
        known = index < len(self.tracks.stamps) and self.tracks.stamps[index] == stamp_ns
        return f"frame-{index:05d}" if known else None

    def stamp_of(self, name: str) -> int:
        """Stamp (ns) of a frame by its name; KeyError when there is none."""
        for stamp in self.tracks.stamps:
            if self.name_of(int(stamp)) == name:
                return int(stamp)
        raise KeyError(f"{self.info.name} has no frame {name!r}")


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays of bytes and numbers, and nothing that could run."""

    allowed = ("_reconstruct", "ndarray", "dtype", "scalar", "encode")

    def find_class(self, module: str, name: str) -> Any:
        if name in self.allowed and (module == "_codecs" or module.partition(".")[0] == "numpy"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no array of numbers or images")


def arrays_of(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file by name. Images in it may be pickled; of these only arrays of bytes are read, as a pickle
    from elsewhere can run anything."""
    arrays: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                dtype = read(file)[2]
                if dtype.hasobject:
                    arrays[member.removesuffix(".npy")] = _ArraysOnly(file).load()
                    continue
            with archive.open(member) as file:
                arrays[member.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays


def is_tapvid(place: Path) -> bool:
    """Whether a path names a file of TAPVid-3D."""
    return place.is_file() and place.suffix == ".npz" and place.name != FILE


def save_tracks(path: Path, tracks: Tracks) -> None:
    """Write tracks.npz."""
    fields: dict[str, Any] = {"stamps_ns": tracks.stamps, "tracks_XYZ": tracks.world, "visibility": tracks.visible}
    if tracks.group is not None:
        fields["group"] = tracks.group
    np.savez_compressed(path, **fields)
