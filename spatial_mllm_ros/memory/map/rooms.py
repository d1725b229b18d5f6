"""Rooms and doors: free space seen from above, split where it is narrow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import approximate_polygon, find_contours, label, perimeter_crofton
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from spatial_mllm_ros.memory.map.snapshot import State
from spatial_mllm_ros.memory.map.upright import Upright

LOWEST_M, HIGHEST_M = 0.2, 2.3
"""Space between these heights is looked at (the ceiling's, where it was seen, in place of the second)."""
WIDEST_DOOR_M = 1.4
"""A wider opening does not part rooms."""
NARROW = 0.75
"""Nor does one that is wider than this share of the smaller of both rooms."""
SMALLEST_M2 = 1.5
"""What is smaller than this is a part of the room beside it."""
_FOUND_M = 0.05
_GAP_M = 0.2
"""A surface within this distance of the free space is what ends it; without one it was not seen how far it goes."""
_KNOWN = 0.85
_LINTEL_M = 1.9
_NEIGHBOURS = 10
_FRINGE = 0.3


@dataclass(frozen=True, eq=False, kw_only=True)
class Room:
    """A part of free space between doors, in the upright frame.

    number: counted from 1, the largest first. area_m2: of the floor between its walls, furniture included, and its
    deviation. outline [n, 2]: along the free space, m. centre [2]: the place furthest from everything. closed: share of its
    outline at which a surface was seen, rather than the end of what was seen. visited: the camera was inside. height_m: of
    the ceiling, where it was seen.
    """

    number: int
    area_m2: float
    area_stddev_m2: float
    outline: NDArray[np.float64]
    centre: NDArray[np.float64]
    closed: float
    visited: bool
    height_m: float | None

    @property
    def known(self) -> bool:
        """Whether its size is known: what bounds it was seen nearly all round. Else it was only glimpsed, as through a door."""
        return self.closed >= _KNOWN


@dataclass(frozen=True, eq=False, kw_only=True)
class Door:
    """An opening between two rooms. centre [2], width between its jambs and deviation, m; across [2]: unit, through it.

    open: it was seen open, as every opening here was.
    """

    rooms: tuple[int, int]
    centre: NDArray[np.float64]
    width_m: float
    width_stddev_m: float
    across: NDArray[np.float64]
    open: bool = True


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """Rooms and doors of a map. labels [x, y]: number of the room of each column, 0 for none."""

    rooms: tuple[Room, ...]
    doors: tuple[Door, ...]
    labels: NDArray[np.int32]
    up: Upright

    def room_at(self, place: NDArray[np.float64]) -> Room | None:
        """The room round a place [2] or [3] of the upright frame, within half a metre (doorways, furniture); None: in none."""
        cell = self.up.cells(place[:2])[0]
        reach = int(0.5 / self.up.voxel_m)
        low = np.maximum(cell - reach, 0)
        window = self.labels[low[0] : cell[0] + reach + 1, low[1] : cell[1] + reach + 1]
        found = np.argwhere(window > 0)
        if not len(found):
            return None
        nearest = found[np.argmin(((found + low - cell) ** 2).sum(axis=1))]
        return self.rooms[int(window[tuple(nearest)]) - 1]


@lru_cache(maxsize=2)
def find_rooms(up: Upright) -> Plan:
    """The rooms and doors of a map.

    Columns with free space between floor and ceiling, holes filled, are split by a watershed of the distance to their
    edge; neighbours that a wide opening joins are one room.
    """
    free = free_columns(up)
    size = up.voxel_m
    empty = Plan(rooms=(), doors=(), labels=np.zeros(free.shape, dtype=np.int32), up=up)
    if not free.any():
        return empty
    padded = np.pad(free, 1)
    distance = (ndimage.distance_transform_edt(padded)[1:-1, 1:-1] - 0.5) * size * free
    peaks = label(h_maxima(np.round(distance / size * 4).astype(np.int32), 4), connectivity=2)
    labels = watershed(-distance, peaks, mask=free).astype(np.int32)
    labels = _merged(labels, distance, size)
    numbers, counts = np.unique(labels[labels > 0], return_counts=True)
    if not len(numbers):
        return empty
    order = numbers[np.argsort(-counts, kind="stable")]
    renumber = np.zeros(int(labels.max()) + 1, dtype=np.int32)
    renumber[order] = np.arange(1, len(order) + 1)
    labels = renumber[labels]
    walls = _walls(up, free, HIGHEST_M)
    rooms = tuple(_room(up, labels, number, distance, walls) for number in range(1, len(order) + 1))
    return Plan(rooms=rooms, doors=_doors(up, labels, distance, _walls(up, free, _LINTEL_M)), labels=labels, up=up)


def free_columns(up: Upright) -> NDArray[np.bool_]:
    """Columns [x, y] with free space between floor and ceiling; gaps and enclosed holes (furniture) filled."""
    top = HIGHEST_M if up.gravity.ceiling_m is None else up.gravity.ceiling_m - 2 * up.voxel_m
    slab = up.slab(LOWEST_M, top)
    free = (slab == State.FREE).sum(axis=2) >= 3
    solid = (slab == State.OCCUPIED).mean(axis=2) > 0.5 if slab.shape[2] else free
    closed = ndimage.binary_closing(np.pad(free, 4), iterations=2)[4:-4, 4:-4] & ~solid | free
    holes = ndimage.binary_fill_holes(closed) & ~closed
    parts, count = ndimage.label(holes)
    small = np.flatnonzero(np.bincount(parts.ravel(), minlength=count + 1) * up.voxel_m**2 < 2.0)
    return closed | (np.isin(parts, small[small > 0]) & holes)


def _merged(labels: NDArray[np.int32], distance: NDArray[np.float64], size: float) -> NDArray[np.int32]:
    """Regions joined that no door parts: again and again the two that are most clearly one."""
    count = int(labels.max())
    peak = ndimage.maximum(distance, labels, np.arange(count + 1)).astype(float)
    area = np.bincount(labels.ravel(), minlength=count + 1) * size**2
    saddles = _saddles(labels, distance)
    owner = np.arange(count + 1)
    while saddles:
        join = {
            pair: _one_room(height, *(float(x[n]) for x in (peak, area) for n in pair))
            for pair, height in saddles.items()
        }
        a, b = max(join, key=lambda pair: join[pair])
        if join[a, b] < 1.0:
            break
        owner[owner == b] = a
        peak[a], area[a] = max(peak[a], peak[b]), area[a] + area[b]
        renamed: dict[tuple[int, int], float] = {}
        for pair, height in saddles.items():
            i, j = sorted(a if n == b else n for n in pair)
            if i != j:
                renamed[i, j] = max(renamed.get((i, j), 0.0), height)
        saddles = renamed
    labels = owner[labels].astype(np.int32)
    small = np.flatnonzero(np.bincount(labels.ravel()) * size**2 < SMALLEST_M2)
    labels[np.isin(labels, small)] = 0
    return labels


def _one_room(saddle_m: float, peak_a_m: float, peak_b_m: float, area_a_m2: float, area_b_m2: float) -> float:
    """How clearly two regions are one room, 1 and more: they are. saddle, peaks: distances to the edge, in the opening
    between them and in their middles."""
    if min(area_a_m2, area_b_m2) < SMALLEST_M2:
        return 10.0 + saddle_m
    return max(saddle_m / (WIDEST_DOOR_M / 2), saddle_m / (NARROW * min(peak_a_m, peak_b_m)))


def _saddles(labels: NDArray[np.int32], distance: NDArray[np.float64]) -> dict[tuple[int, int], float]:
    """The widest place of the line between each two regions: its distance to the edge, m."""
    found: dict[tuple[int, int], float] = {}
    for first, second in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        a, b = labels[first], labels[second]
        both = (a > 0) & (b > 0) & (a != b)
        height = np.minimum(distance[first], distance[second])[both]
        for x, y, z in zip(a[both].tolist(), b[both].tolist(), height.tolist(), strict=True):
            pair = (min(x, y), max(x, y))
            found[pair] = max(found.get(pair, 0.0), z)
    return found


def _walls(up: Upright, free: NDArray[np.bool_], top_m: float) -> NDArray[np.float64]:
    """What free space ends at, seen from above: a place [n, 2] on the surfaces in each other column.

    Noise puts a few points into the columns beside those of a wall. These are left out, and along a straight wall the
    places of neighbours are brought onto one line.
    """
    chosen = (up.surface[:, 2] > LOWEST_M) & (up.surface[:, 2] < top_m)
    p, weights = up.surface[chosen], up.hits[chosen].astype(float)
    cells = up.cells(p)
    columns, inverse, counts = np.unique(
        cells[:, 0] * up.state.shape[1] + cells[:, 1], return_inverse=True, return_counts=True
    )
    total = np.bincount(inverse.ravel(), weights, minlength=len(columns))
    sums = np.stack([np.bincount(inverse.ravel(), weights * p[:, a], minlength=len(columns)) for a in range(2)], axis=1)
    kept = (counts >= 3) & ~free.ravel()[columns]
    places, weight = (sums / np.maximum(total, 1e-9)[:, None])[kept], total[kept]
    if len(places) < _NEIGHBOURS:
        return places
    distance, near = cKDTree(places).query(places, _NEIGHBOURS, distance_upper_bound=3 * up.voxel_m)
    beyond = near == len(places)
    near = np.where(beyond, 0, near)
    w = np.where(beyond, 0.0, weight[near])
    strong = weight >= _FRINGE * np.max(np.where(distance < 1.7 * up.voxel_m, w, 0.0), axis=1)
    w = np.where(strong[near], w, 0.0) + 1e-9
    share = w / w.sum(axis=1, keepdims=True)
    middle = np.einsum("nk,nki->ni", share, places[near])
    off = places[near] - middle[:, None]
    values, vectors = np.linalg.eigh(np.einsum("nk,nki,nkj->nij", share, off, off))
    normal = vectors[:, :, 0]
    straight = (values[:, 0] < 0.02**2) & (values[:, 1] > 4 * values[:, 0])
    onto = places - normal * np.sum((places - middle) * normal, axis=1, keepdims=True)
    return np.where(straight[:, None], onto, places)[strong]


def _room(
    up: Upright, labels: NDArray[np.int32], number: int, distance: NDArray[np.float64], walls: NDArray[np.float64]
) -> Room:
    mine = labels == number
    size = up.voxel_m
    edge = np.pad(mine, 1)
    rim = mine & ~ndimage.binary_erosion(edge)[1:-1, 1:-1]
    beside_door = ndimage.binary_dilation((labels > 0) & ~mine, iterations=2)
    middles = up.middles(np.argwhere(rim & ~beside_door))
    gaps = np.zeros(0)
    if len(walls) and len(middles):
        gaps = np.asarray(cKDTree(walls).query(middles, distance_upper_bound=_GAP_M)[0])
    ended = np.isfinite(gaps)
    closed = float(ended.mean()) if len(gaps) else 0.0
    gap = float(np.mean(gaps[ended])) - size / 2 if ended.any() else 0.0
    perimeter = float(perimeter_crofton(edge, directions=4)) * size
    area = float(mine.sum()) * size**2 + perimeter * gap
    spread = float(np.std(gaps[ended])) if ended.sum() > 1 else size
    stddev = float(np.linalg.norm((perimeter * 0.01, 0.01 * area, (1 - closed) * perimeter * 0.3, spread * size)))
    contour = max(find_contours(edge.astype(float), 0.5), key=len)
    outline = up.middles(approximate_polygon(contour, 0.7) - 1)
    centre = up.middles(np.unravel_index(int(np.argmax(np.where(mine, distance, -1))), mine.shape))[0]
    cells = up.cells(up.cameras[:, :2]) if len(up.cameras) else np.zeros((0, 2), dtype=int)
    inside = ((cells >= 0) & (cells < mine.shape)).all(axis=1)
    return Room(
        number=number,
        area_m2=area,
        area_stddev_m2=stddev,
        outline=outline,
        centre=centre,
        closed=closed,
        visited=bool(mine[tuple(cells[inside].T)].any()),
        height_m=up.gravity.ceiling_m,
    )


def _doors(
    up: Upright, labels: NDArray[np.int32], distance: NDArray[np.float64], walls: NDArray[np.float64]
) -> tuple[Door, ...]:
    """One door for each part of the line along which two rooms meet."""
    pairs: dict[tuple[int, int], NDArray[np.bool_]] = {}
    for step in ((1, 0), (0, 1)):
        a, b = labels[: labels.shape[0] - step[0], : labels.shape[1] - step[1]], labels[step[0] :, step[1] :]
        for x, y in np.argwhere((a > 0) & (b > 0) & (a != b)).tolist():
            i, j = sorted((int(a[x, y]), int(b[x, y])))
            line = pairs.setdefault((i, j), np.zeros(labels.shape, dtype=bool))
            line[x, y] = line[x + step[0], y + step[1]] = True
    doors = []
    for pair, line in sorted(pairs.items()):
        parts, count = ndimage.label(line, structure=np.ones((3, 3)))
        for part in range(1, count + 1):
            door = _door(up, pair, np.argwhere(parts == part), distance, walls)
            if door is not None:
                doors.append(door)
    return tuple(doors)


def _door(
    up: Upright,
    pair: tuple[int, int],
    line: NDArray[np.int64],
    distance: NDArray[np.float64],
    walls: NDArray[np.float64],
) -> Door | None:
    """The opening at a line of columns: between the surfaces at both of its ends, where these are nearest together."""
    middle = up.middles(line[np.argmax(distance[tuple(line.T)])])[0]
    half = float(distance[tuple(line.T)].max())
    near = walls[np.linalg.norm(walls - middle, axis=1) < half + 3 * up.voxel_m]
    if not len(near):
        return None
    best: tuple[float, float, NDArray[np.float64], float] | None = None
    for angle in np.radians(np.arange(0, 180, 3)):
        along = np.array([np.cos(angle), np.sin(angle)])
        s, across = (near - middle) @ along, (near - middle) @ np.array([-along[1], along[0]])
        slot = np.abs(across) < 1.5 * up.voxel_m
        left, right = s[slot & (s < 0)], s[slot & (s > 0)]
        if not len(left) or not len(right):
            continue
        ends = (_end(-left), _end(right))
        if best is None or sum(ends) < best[0] - 1e-9:
            best = (sum(ends), (ends[1] - ends[0]) / 2, along, float(np.hypot(*(np.std(e) for e in (left, right)))))
    if best is None:
        return None
    width, shift, along, _ = best
    white = float(up.snapshot.sensor.depth_white_stddev(2.0)) / 4
    stddev = float(np.linalg.norm((0.01, white * 2, up.snapshot.sensor.pose_position_m)))
    return Door(
        rooms=pair,
        centre=middle + shift * along,
        width_m=width,
        width_stddev_m=stddev,
        across=np.array([-along[1], along[0]]),
    )


def _end(places: NDArray[np.float64]) -> float:
    """Where a jamb is, from how far away its points are: the nearest, less what noise does."""
    nearest = np.sort(places)[: max(3, len(places) // 4)]
    return float(np.median(nearest[nearest < nearest[0] + 0.04]))
