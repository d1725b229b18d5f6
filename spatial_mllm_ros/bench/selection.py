"""``spatial-mllm bench selection``: how fast selection is, and how much the streaming selector loses."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.bench.published import select_with_sets
from spatial_mllm_ros.memory.keyframes.coverage import greedy_max_coverage
from spatial_mllm_ros.memory.keyframes.offline import select_offline
from spatial_mllm_ros.memory.spatial_memory import MemoryConfig, SpatialMemory
from spatial_mllm_ros.scene.backproject import camera_points, extend_bounds
from spatial_mllm_ros.scene.frame import Frame, depth_to_metres
from spatial_mllm_ros.scene.pose import apply
from spatial_mllm_ros.scene.voxels import Lattice, shortest_side_edge, voxel_keys
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.sources.source import Source

K = 16
POINTS = 10_000
"""Points of a frame by which coverage is judged here."""
Progress = Callable[[str, int, int | None], None]


def run(
    quick: bool = False, sources: Sequence[str] = (), progress: Progress = lambda what, done, total: None
) -> dict[str, Any]:
    """All measurements; ``sources`` are recordings on which the streaming selector is judged too.

    quick: fewer frames, for a first impression. progress: (what, done, total).
    """
    tour = f"rendered:rooms=5,frames={600 if quick else 5000},rate=15,size=160x120"
    return {
        "quick": quick,
        "offline": offline(16 if quick else 128, progress),
        "streaming": [streaming(open_source(spec), spec, progress) for spec in (*sources, tour)],
        "cost": cost(100 if quick else 300, progress),
        "memory": memory_curve(2_000 if quick else 50_000, progress),
    }


def offline(count: int, progress: Progress) -> dict[str, Any]:
    """``select_offline`` against the published set-based steps, on the same frames of 392 x 518 in the same run."""
    points, confidence = _point_maps(count, progress)
    begin = time.perf_counter()
    theirs, their_edge = select_with_sets(points, confidence, K)
    published_s = time.perf_counter() - begin
    ours_s, read_s = np.inf, np.inf
    for i in range(5):
        progress("offline selection", i, 5)
        begin = time.perf_counter()
        ours = select_offline(points, confidence, K)
        ours_s = min(ours_s, time.perf_counter() - begin)
        begin = time.perf_counter()
        points.sum()
        read_s = min(read_s, time.perf_counter() - begin)
    return {
        "frames": count,
        "height": points.shape[1],
        "width": points.shape[2],
        "k": K,
        "published_s": published_s,
        "ours_s": ours_s,
        "ratio": published_s / ours_s,
        "ratio_of_reading_the_points_once": published_s / read_s,
        "same_frames": list(ours.picked) == theirs and ours.voxel_size == their_edge,
        "cores": os.cpu_count(),
    }


def streaming(source: Source, name: str, progress: Progress) -> dict[str, Any]:
    """Coverage of the streaming keyframes against greedy over all frames and against evenly spaced frames.

    Judged on the published lattice: edge and corner from the bounding box of every pixel of every frame.
    """
    memory = SpatialMemory(MemoryConfig(max_frames=10**9, max_bytes=10**15))
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    points: list[NDArray[np.float32]] = []
    ids: list[int] = []
    for frame in source.frames():
        progress(f"streaming {name}", len(ids), source.info.frames)
        frame_id = memory.add(replace(frame, image=None))
        if frame_id is None or frame.depth is None or frame.T_world_camera is None:
            continue
        low, high = extend_bounds(frame, low, high, memory.config.max_depth_m)
        stride = max(1, round((frame.depth.size / POINTS) ** 0.5))
        points.append(apply(frame.T_world_camera, camera_points(frame, stride, memory.config.max_depth_m)))
        ids.append(frame_id)
    if not ids:
        return {"source": name, "frames": 0}
    x, y, z = low.tolist()
    lattice = Lattice(shortest_side_edge(low, high), (x, y, z))
    voxels = dict(zip(ids, (voxel_keys(p, lattice) for p in points), strict=True))
    _, gains, total = greedy_max_coverage(list(voxels.values()), K)
    best = sum(gains)
    keyframes = memory.keyframes(K).picked
    even = [ids[i] for i in np.linspace(0, len(ids) - 1, K).round().astype(int)]
    covered, evenly = _covered(voxels[i] for i in keyframes), _covered(voxels[i] for i in even)
    return {
        "source": name,
        "frames": len(ids),
        "pool": len(memory.candidates),
        "voxel_size_m": lattice.edge,
        "greedy_over_all": best / total,
        "streaming": covered / total,
        "evenly_spaced": evenly / total,
        "streaming_to_greedy": covered / best,
        "evenly_spaced_to_greedy": evenly / best,
    }


def cost(count: int, progress: Progress) -> dict[str, Any]:
    """Time to take a 640 x 480 RGB-D frame into the memory, selection included, on one core."""
    frames = _rendered(count, 640, 480, progress)
    memory = SpatialMemory(MemoryConfig(max_frames=10**9))
    times = []
    for i, frame in enumerate(_repeated(frames, 4 * count)):
        progress("cost of a frame", i, 4 * count)
        begin = time.perf_counter()
        memory.add(frame)
        times.append((time.perf_counter() - begin) * 1e3)
    later = times[count:]  # the scene is known by then, as in a long run
    return {
        "frames": len(times),
        "width": 640,
        "height": 480,
        "median_ms": float(np.median(times)),
        "p99_ms": float(np.percentile(times, 99)),
        "mean_ms": float(np.mean(times)),
        "median_once_the_scene_is_known_ms": float(np.median(later)),
        "p99_once_the_scene_is_known_ms": float(np.percentile(later, 99)),
    }


def memory_curve(count: int, progress: Progress) -> list[dict[str, Any]]:
    """Memory of the process while ``count`` frames stream into a memory of 500 frames."""
    frames = _rendered(300, 160, 120, progress)
    memory = SpatialMemory(MemoryConfig(max_frames=500, max_poses=20_000))
    rows = []
    every = max(count // 10, 1)
    for i, frame in enumerate(_repeated(frames, count), start=1):
        memory.add(frame)
        if i % every == 0:
            progress("memory", i, count)
            rows.append(
                {"frames": i, "held": len(memory), "resident_mb": _resident_mb(), "images_mb": memory.nbytes / 1e6}
            )
    return rows


def _point_maps(count: int, progress: Progress) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """World points [count, 392, 518, 3] and confidences of a rendered tour: near surfaces are the confident ones."""
    points, confidence = [], []
    for frame in _rendered(count, 518, 392, progress):
        assert frame.depth is not None
        assert frame.camera is not None
        assert frame.T_world_camera is not None
        z = np.nan_to_num(depth_to_metres(frame.depth))
        world = apply(frame.T_world_camera, frame.camera.rays() * z[..., None])
        points.append(world.astype(np.float32))
        confidence.append(np.where(z > 0, 1 + 10 / np.maximum(z, 0.1), 0).astype(np.float32))
    return np.stack(points), np.stack(confidence)


def _rendered(count: int, width: int, height: int, progress: Progress) -> list[Frame]:
    source = RenderedSource(rooms=3, frames=count, width=width, height=height)
    frames: list[Frame] = []
    for frame in source.frames():
        progress("rendering", len(frames), source.info.frames)
        frames.append(replace(frame, image=None))
    return frames


def _repeated(frames: Sequence[Frame], count: int) -> Iterable[Frame]:
    """``count`` frames: those given over and over, with stamps that go on."""
    for i, frame in enumerate(itertools.islice(itertools.cycle(frames), count)):
        yield replace(frame, stamp_ns=frames[0].stamp_ns + i * 33_000_000)


def _covered(sets: Iterable[NDArray[np.int64]]) -> int:
    return len(np.unique(np.concatenate(list(sets))))


def _resident_mb() -> float:
    """Resident memory of this process; NaN where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if statm.exists() else float("nan")
