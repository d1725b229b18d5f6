"""Rendered rooms as a recording: exact RGB-D, or with the errors of a real sensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.camera import CameraModel
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.scene.sensor import SensorModel
from spatial_mllm_ros.scene.tracks import Tracks
from spatial_mllm_ros.simulation.layout import MAX_ROOMS, House, make_house
from spatial_mllm_ros.simulation.moving import MOST, make_movers, seen, tracked, with_movers
from spatial_mllm_ros.simulation.noise import DepthCamera, exact_depth
from spatial_mllm_ros.simulation.raycast import RayCaster, View
from spatial_mllm_ros.simulation.tour import Tour, make_tour
from spatial_mllm_ros.sources.source import SourceError, SourceInfo

CAMERA_FRAME = "camera_color_optical_frame"
WORLD_FRAME = "map"
TRACKED_POINTS = 24
"""On each thing that moves."""
STILL_VIEWS = 40
FOCAL_SHARE = 525 / 640  # of the image's width, as in the usual RGB-D cameras


class RenderedSource:
    """A seeded recording of furnished rooms.

    seed: house, tour and noise depend on it alone. rooms: 1 to 12. frames, rate_hz: length and pace. width, height:
    pixels. noise: depth and poses with the errors of ``info.sensor``; otherwise exact (depth rounded to mm). moving: how
    many things roll about on the floor. still: the camera does not move, but stands where it sees most of these.

    house, caster, camera: what is rendered, with what. stamps: int64 [frames], ns. true_pose(i) is exact even with
    noise. movers: what moves; ``tracks`` follows points on them. Frames are rendered when they are asked for, always the
    same.

    Raises SourceError for values out of range and where embreex is not installed.
    """

    def __init__(
        self,
        seed: int = 0,
        rooms: int = 3,
        frames: int = 300,
        rate_hz: float = 10.0,
        *,
        width: int = 640,
        height: int = 480,
        noise: bool = True,
        moving: int = 0,
        still: bool = False,
    ) -> None:
        _check("seed", seed, 0, 2**31)
        _check("rooms", rooms, 1, MAX_ROOMS)
        _check("frames", frames, 1, 1_000_000)
        _check("rate", rate_hz, 0.01, 1000.0)
        _check("width", width, 16, 4096)
        _check("height", height, 16, 4096)
        self.doubts: list[Doubt] = []
        self.seed, self.noise, self.rate_hz = seed, noise, float(rate_hz)
        self.house: House = make_house(seed, rooms)
        self.caster = RayCaster(self.house)
        self.tour: Tour = make_tour(self.house, frames, rate_hz, seed)
        self.stamps: NDArray[np.int64] = self.tour.stamps
        focal = FOCAL_SHARE * width
        self.camera = CameraModel(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
        _check("moving", moving, 0, MOST)
        self.movers = make_movers(self.house, moving, seed, TRACKED_POINTS) if moving else ()
        self.still = self._best_view() if still else None
        self.sensor = DepthCamera(SensorModel() if noise else SensorModel.exact(), seed=seed)
        self.refused: Counter[str] = Counter()
        self.info = SourceInfo(
            name=f"rendered-{seed}",
            frames=frames,
            duration_s=(frames - 1) / rate_hz,
            world_frame=WORLD_FRAME,
            sensor=self.sensor.sensor,
            description=(
                f"rendered house {seed}: {rooms} room{'s' if rooms > 1 else ''}, {frames} frames {width}x{height} "
                f"at {rate_hz:g} Hz, {'with sensor noise' if noise else 'exact'}"
                f"{f', {moving} moving things' if moving else ''}{', camera at rest' if still else ''}"
            ),
        )

    @classmethod
    def from_spec(cls, text: str) -> RenderedSource:
        """From ``rendered`` or ``rendered:seed=3,rooms=2,frames=600,rate=10,size=320x240,noise=off``; ``moving=3``,
        ``still=on``.

        SourceError says which part of the text is wrong and what it may be.
        """
        name, _, rest = text.partition(":")
        if name != "rendered":
            raise SourceError(f"{text!r} is not a rendered recording: it must begin with 'rendered'")
        options: dict[str, Any] = {}
        for part in filter(None, (p.strip() for p in rest.split(","))):
            key, equals, value = (x.strip() for x in part.partition("="))
            if key not in _OPTIONS or not equals:
                raise SourceError(
                    f"{text!r}: {part!r} is not one of {', '.join(f'{k}={v[1]}' for k, v in _OPTIONS.items())}"
                )
            convert, example = _OPTIONS[key]
            try:
                parsed = convert(value)
            except ValueError as error:
                raise SourceError(
                    f"{text!r}: {key}={value} does not work, write for example {key}={example}"
                ) from error
            if options.keys() & parsed.keys():
                raise SourceError(f"{text!r}: {key} is given twice")
            options.update(parsed)
        return cls(**options)

    def frames(self) -> Iterator[Frame]:
        """All frames in order, rendered one by one."""
        self.refused.clear()
        for index in range(len(self.stamps)):
            yield self.frame(index)

    def frame(self, index: int) -> Frame:
        """Frame ``index`` (0 is the first); IndexError when there is none."""
        view = self.view(index)
        truth = self.true_pose(index)
        return Frame(
            stamp_ns=int(self.stamps[index]),
            camera_frame=CAMERA_FRAME,
            camera=self.camera,
            image=view.image,
            depth=self.sensor.depth(view, index) if self.noise else exact_depth(view),
            T_world_camera=self.sensor.pose(truth, index if self.still is None else 0) if self.noise else truth,
            world_frame=WORLD_FRAME,
        )

    def view(self, index: int, color: bool = True) -> View:
        """What is exactly there: depth, objects and, with ``color``, the image of frame ``index``."""
        pose = self.true_pose(index)
        view = self.caster.render(self.camera, pose, color)
        if not self.movers:
            return view
        return with_movers(view, self.movers, self.camera, pose, self._seconds(index), len(self.house.things))

    def true_pose(self, index: int) -> Transform:
        """Exact T_world_camera of frame ``index``; IndexError when there is none."""
        if not 0 <= index < len(self.stamps):
            raise IndexError(f"there is no frame {index}, only 0 to {len(self.stamps) - 1}")
        return self.tour.poses[index if self.still is None else self.still].copy()

    @property
    def tracks(self) -> Tracks | None:
        """Exactly tracked points on what moves, one group each; None where nothing does."""
        if not self.movers:
            return None
        world = [np.concatenate([tracked(m, self._seconds(i)) for m in self.movers]) for i in range(len(self.stamps))]
        visible = [
            seen(points, self.view(i, color=False), self.camera, self.true_pose(i)) for i, points in enumerate(world)
        ]
        group = np.repeat(np.arange(len(self.movers)), TRACKED_POINTS)
        return Tracks(stamps=self.stamps, world=np.stack(world), visible=np.stack(visible), group=group)

    def _seconds(self, index: int) -> float:
        return float(self.stamps[index] - self.stamps[0]) * 1e-9

    def _best_view(self) -> int:
        """The frame of the tour whose camera sees most of what moves, at some of the times."""
        frames = np.unique(np.linspace(0, len(self.stamps) - 1, STILL_VIEWS).astype(int))
        times = np.linspace(0, self._seconds(len(self.stamps) - 1), 4)
        points = [np.concatenate([tracked(m, t) for m in self.movers]) for t in times] if self.movers else []

        def count(frame: int) -> int:
            pose = self.tour.poses[frame]
            view = self.caster.render(self.camera, pose, color=False)
            shown = [with_movers(view, self.movers, self.camera, pose, t, len(self.house.things)) for t in times]
            return sum(int(seen(p, v, self.camera, pose).sum()) for p, v in zip(points, shown, strict=True))

        return max((int(f) for f in frames), key=count) if points else 0

    def name_of(self, stamp_ns: int) -> str | None:
        """The name of the frame with that stamp ("frame-000016"), None when there is none."""
        index = int(np.searchsorted(self.stamps, stamp_ns))
        return _name(index) if index < len(self.stamps) and self.stamps[index] == stamp_ns else None

    def stamp_of(self, name: str) -> int:
        """Stamp (ns) of a frame from its name ("frame-000016"); KeyError when there is no such frame."""
        number = name.removeprefix("frame-")
        index = int(number) if number != name and number.isascii() and number.isdigit() else -1
        if not 0 <= index < len(self.stamps):
            last = _name(len(self.stamps) - 1)
            raise KeyError(f"{self.info.name} has no frame {name!r}, only {_name(0)} to {last}")
        return int(self.stamps[index])


def _name(index: int) -> str:
    return f"frame-{index:06d}"


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SourceError(f"rendered recording: {name} must be {low:g} to {high:g}, not {value:g}")


def _size(text: str) -> dict[str, int]:
    width, height = text.lower().split("x")
    return {"width": int(width), "height": int(height)}


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError(text)
    return text == "on"


_OPTIONS: dict[str, tuple[Callable[[str], dict[str, Any]], str]] = {
    "seed": (lambda text: {"seed": int(text)}, "3"),
    "rooms": (lambda text: {"rooms": int(text)}, "2"),
    "frames": (lambda text: {"frames": int(text)}, "600"),
    "rate": (lambda text: {"rate_hz": float(text)}, "10"),
    "size": (_size, "320x240"),
    "noise": (lambda text: {"noise": _switch(text)}, "off"),
    "moving": (lambda text: {"moving": int(text)}, "3"),
    "still": (lambda text: {"still": _switch(text)}, "on"),
}
