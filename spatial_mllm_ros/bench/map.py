"""``spatial-mllm bench map``: what the map costs, and what is read from it beside reading the frames again.

One run, one recording: a rendered house goes into the memory and into the map, frame by frame. When as many frames are held
as asked for, each question is asked in both ways, each time after another frame came, so that nothing is answered from
what was kept of the question before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from spatial_mllm_ros.answering.engine import SpatialQueryEngine
from spatial_mllm_ros.memory.map import extents, routes
from spatial_mllm_ros.memory.map.occupancy_map import OccupancyMap
from spatial_mllm_ros.memory.map.rooms import find_rooms
from spatial_mllm_ros.memory.map.upright import Upright, UprightCache
from spatial_mllm_ros.memory.spatial_memory import MemoryConfig, SpatialMemory
from spatial_mllm_ros.queries.answer import ImagePoint, Request
from spatial_mllm_ros.scene.frame import Frame, depth_to_metres
from spatial_mllm_ros.simulation.rendered import RenderedSource

Progress = Callable[[str, int, int | None], None]
MIB = 1 << 20
SECONDS_A_ROOM = 35
"""Long enough to look round a room."""
ROBOT_RADIUS_M, ROBOT_HEIGHT_M = 0.25, 0.6
FAMILIES = {
    "first seen": "When was <p0> first seen?",
    "extents": "How large is the room?",
    "area": "What is the floor area of the room?",
    "unseen": "What fraction of the space around the path is still unseen?",
    "rooms": None,
    "route": None,
}
"""What is read, and the question that asks for it where the frames can answer it too."""


def run(
    frames: Sequence[int] = (300, 1000),
    *,
    seed: int = 0,
    rooms: int = 3,
    size: tuple[int, int] = (320, 240),
    rounds: int = 3,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Times at each of several numbers of frames held, ascending. Raises SourceError where nothing can be rendered."""
    most = max(frames) + (rounds + 1) * len(FAMILIES)
    rate_hz = most / (SECONDS_A_ROOM * rooms)
    source = RenderedSource(seed, rooms, most, rate_hz, width=size[0], height=size[1])
    memory = SpatialMemory(
        MemoryConfig(max_frames=most, max_bytes=8 << 30), clock=lambda: int(source.stamps[-1]) + 10**9
    )
    kept = OccupancyMap()
    both = _Both(source, memory, kept)
    both.take()  # compiles
    kept.clear()
    kept.integrate(0, both.last)
    entering: list[dict[str, Any]] = []
    reading: list[dict[str, Any]] = []
    for held in sorted(frames):
        times: list[float] = []
        while both.taken < held:
            progress(f"{held} frames", both.taken, held)
            times.append(both.take())
        entering.append(_entering(held, times, kept))
        for number, (family, question) in enumerate(FAMILIES.items()):
            progress(f"asking at {held} frames", number, len(FAMILIES))
            reading.append(_reading(both, held, family, question, rounds))
    ids = {i: source.true_pose(i) for i in range(both.taken)}
    progress("correcting all poses", 0, None)
    begin = time.perf_counter()
    moved = kept.correct(ids)
    correction_s = time.perf_counter() - begin
    return {
        "size": f"{size[0]}x{size[1]}",
        "entering": entering,
        "reading": reading,
        "correction": {"frames": moved, "seconds": correction_s},
    }


class _Both:
    """Frames into the memory and into the map."""

    def __init__(self, source: RenderedSource, memory: SpatialMemory, kept: OccupancyMap) -> None:
        self.source, self.memory, self.map = source, memory, kept
        self.engine = SpatialQueryEngine(memory, source.info.sensor)
        self.upright = UprightCache()
        self.taken = 0
        self.last = Frame(0, "")

    def take(self) -> float:
        """The next frame into both; seconds of this thread that the map took."""
        index = self.taken
        self.last = replace(self.source.frame(index), image=None)
        self.memory.add(self.last)
        begin = time.thread_time()
        self.map.integrate(index, self.last)
        self.taken += 1
        return time.thread_time() - begin


def _entering(held: int, times: Sequence[float], kept: OccupancyMap) -> dict[str, Any]:
    ms = np.array(times) * 1e3
    snapshot = kept.snapshot()
    seen_m3 = float(np.count_nonzero(snapshot.last >= 0)) * snapshot.voxel_m**3
    return {
        "frames": held,
        "mean_ms": float(ms.mean()),
        "median_ms": float(np.median(ms)),
        "p99_ms": float(np.percentile(ms, 99)),
        "seen_m3": seen_m3,
        "map_mib": kept.nbytes / MIB,
        "of_it_depth_mib": kept.depth_nbytes / MIB,
        "voxels_kib_a_m3": (kept.nbytes - kept.depth_nbytes) / 1024 / max(seen_m3, 1e-9),
    }


def _reading(both: _Both, held: int, family: str, question: str | None, rounds: int) -> dict[str, Any]:
    of_map: list[float] = []
    of_frames: list[float] = []
    said = ""
    for _ in range(rounds):
        both.take()
        point = _point(both.last)
        begin = time.perf_counter()
        value = _from_map(family, both, point[1])
        of_map.append(time.perf_counter() - begin)
        if question is not None:
            request = Request(question, points=(point[0],) if "<p0>" in question else ())
            begin = time.perf_counter()
            answer = both.engine.answer(request)
            of_frames.append(time.perf_counter() - begin)
            said = answer.answer or answer.error_code.name
    map_ms = float(np.median(of_map)) * 1e3
    frames_ms = float(np.median(of_frames)) * 1e3 if of_frames else None
    return {
        "frames": held,
        "question": family,
        "map_ms": map_ms,
        "frames_ms": frames_ms,
        "times_faster": None if frames_ms is None else frames_ms / map_ms,
        "the_map": value,
        "the_frames": said,
    }


def _point(frame: Frame) -> tuple[ImagePoint, np.ndarray[Any, Any]]:
    """A pixel that shows something, and the place that it shows, world."""
    assert frame.depth is not None
    assert frame.camera is not None
    assert frame.T_world_camera is not None
    z = depth_to_metres(frame.depth)
    v, u = np.argwhere(np.isfinite(z) & (z < 4.0))[z.size // 4 % max(int(np.isfinite(z).sum()), 1) :: 7][0].tolist()
    place = frame.camera.unproject([[float(u), float(v)]])[0] * float(z[v, u])
    T = frame.T_world_camera
    return ImagePoint(frame.stamp_ns, frame.camera_frame, float(u), float(v)), T[:3, :3] @ place + T[:3, 3]


def _from_map(family: str, both: _Both, place: np.ndarray[Any, Any]) -> str:
    """What the map says, in words."""
    snapshot = both.map.snapshot()
    if family == "first seen":
        return f"{int(snapshot.at(place).first[0]) / 1e9:.3f} s"
    up = both.upright.of(snapshot)
    if family == "extents":
        return " x ".join(f"{side.value:.2f}" for side in extents.extents(up)) + " m"
    if family == "route":
        return _route(up)
    plan = find_rooms(up)
    if family == "area":
        found = extents.area(plan)
        return f"{found.value:.1f} ± {found.stddev:.1f} m2"
    if family == "unseen":
        share = extents.unseen(plan).share
        return f"{100 * share.value:.1f} ± {100 * share.stddev:.1f} %"
    return f"{len(plan.rooms)} rooms, {len(plan.doors)} doors"


def _route(up: Upright) -> str:
    """From where the camera was first to where it is."""
    found, why = routes.route(up, up.cameras[0], up.cameras[-1], ROBOT_RADIUS_M, ROBOT_HEIGHT_M)
    return f"{found.length_m:.2f} m" if found is not None else why.value if why else ""
