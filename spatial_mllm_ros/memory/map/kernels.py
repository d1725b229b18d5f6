"""Loops over pixels and voxels.

A frame's depth is first reduced to cells of a pinhole image (``nearest_layer``), then compared with voxels: cells say where a
surface is (``add_points``), voxels are projected among the cells to see whether they are free (``add_views``). All evidence is
kept in integers, so that what was added can be taken away again exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spatial_mllm_ros.memory.map.compiled import compiled

SIDE = 8
"""Voxels along each side of a block."""
CELLS = SIDE**3
QUANTUM = 1024
"""Positions within a voxel are kept in so many parts of its edge."""
PART = SIDE // 2
"""Voxels along each side of an eighth of a block. Voxels of one eighth lie together, see ``cell_number``."""
LATER = np.int64(2**63 - 1)
EARLIER = np.int64(-1)
"""First and last stamp of a voxel that no frame has shown."""

Array = Any  # numba infers its own types; numpy's would only repeat the docstrings


@compiled
def cell_number(i: int, j: int, k: int) -> int:
    """Which of a block's cells a voxel is, by its place in the block."""
    return ((((i >> 2) * 2 + (j >> 2)) * 2 + (k >> 2)) << 6) | ((i & 3) << 4) | ((j & 3) << 2) | (k & 3)


@compiled
def nearest_layer(depth: Array, unit: float, order: Array, start: Array, out: Array) -> int:
    """Depth of the nearest surface in each cell, metres, 0 where there is too little data; how many cells have some.

    depth [pixels]: in ``unit`` metres. order: pixels, cell after cell; start [cells + 1]: where those of each cell begin. A
    surface needs an eighth of a cell's pixels, so that single stray ones do not make one, and half of them must have data.
    """
    known = 0
    for c in range(out.size):
        least, data = np.inf, 0
        begin, end = start[c], start[c + 1]
        for p in range(begin, end):
            z = depth[order[p]] * unit
            if z > 0 and z < 1000.0:
                data += 1
                least = min(least, z)
        out[c] = 0
        if data == 0 or 2 * data < end - begin:
            continue
        limit = least * 1.02 + 0.02
        total, members = 0.0, 0
        for p in range(begin, end):
            z = depth[order[p]] * unit
            if z > 0 and z < limit:
                total += z
                members += 1
        if 8 * members >= end - begin:
            out[c] = total / members
            known += 1
    return known


@compiled
def pyramids(depth: Array, near: Array, far: Array) -> None:
    """Smallest and largest depth of squares of 1, 2, 4 ... cells, one level after the other.

    depth [h, w]: metres, 0 = unknown. near, far [levels, h, w]: level k fills its first rows and columns. Where half of a
    square or more is unknown its smallest depth is 0, so that nothing there is taken for free.
    """
    h, w = depth.shape
    for v in range(h):
        for u in range(w):
            near[0, v, u] = depth[v, u]
            far[0, v, u] = depth[v, u]
    for k in range(1, near.shape[0]):
        below_h, below_w = h, w
        h, w = (h + 1) // 2, (w + 1) // 2
        for v in range(h):
            for u in range(w):
                unknown, least, most = 0, np.float32(np.inf), np.float32(0)
                for dv in range(2):
                    for du in range(2):
                        a, b = min(2 * v + dv, below_h - 1), min(2 * u + du, below_w - 1)
                        z = near[k - 1, a, b]
                        if z <= 0:
                            unknown += 1
                        else:
                            least = min(least, z)
                        most = max(most, far[k - 1, a, b])
                near[k, v, u] = np.float32(0) if unknown >= 2 else least
                far[k, v, u] = most


@compiled
def blocks_in_view(
    far: Array, f: float, cu: float, cv: float, R: Array, t: Array, edge: float, low: Array, shape: Array, reach: float
) -> Array:
    """Blocks [n, 3] (integer coordinates) that a frame may show something of.

    far: as of ``pyramids``. f, cu, cv: focal length and centre in cells. R, t: world to camera. low, shape: the box of
    blocks to look at. reach: nothing is free or seen beyond so many metres of depth.
    """
    h, w = far.shape[1], far.shape[2]
    levels = far.shape[0]
    side = edge * SIDE
    radius = side * 0.8660255
    out = np.empty((shape[0] * shape[1] * shape[2], 3), np.int32)
    n = 0
    for i in range(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                x, y, z = (low[0] + i + 0.5) * side, (low[1] + j + 0.5) * side, (low[2] + k + 0.5) * side
                zc = R[2, 0] * x + R[2, 1] * y + R[2, 2] * z + t[2]
                if zc < -radius or zc > reach + radius:
                    continue
                xc = R[0, 0] * x + R[0, 1] * y + R[0, 2] * z + t[0]
                yc = R[1, 0] * x + R[1, 1] * y + R[1, 2] * z + t[1]
                nearest = zc - radius
                if nearest < 0.2:  # so near that its shadow on the image has no bounds
                    if xc * xc + yc * yc + zc * zc < (radius + 1.0) ** 2:
                        out[n, 0], out[n, 1], out[n, 2] = low[0] + i, low[1] + j, low[2] + k
                        n += 1
                    continue
                # bounds of a sphere's projection: generous by up to the ratio of far to near side
                spread = radius * f / nearest * (1 + np.hypot(xc, yc) / zc)
                u, v = f * xc / zc + cu, f * yc / zc + cv
                u0, u1, v0, v1 = u - spread, u + spread, v - spread, v + spread
                if u1 < 0 or v1 < 0 or u0 > w - 1 or v0 > h - 1:
                    continue
                u0, v0, u1, v1 = max(u0, 0.0), max(v0, 0.0), min(u1, w - 1.0), min(v1, h - 1.0)
                level = 0
                span = max(u1 - u0, v1 - v0)
                while (1 << level) < span and level < levels - 1:
                    level += 1
                most = np.float32(0)
                for b in range(int(v0 + 0.5) >> level, (int(v1 + 0.5) >> level) + 1):
                    for a in range(int(u0 + 0.5) >> level, (int(u1 + 0.5) >> level) + 1):
                        most = max(most, far[level, b, a])
                if most >= nearest - 0.05:
                    out[n, 0], out[n, 1], out[n, 2] = low[0] + i, low[1] + j, low[2] + k
                    n += 1
    return out[:n]


@compiled
def add_points(
    depth: Array, f: float, cu: float, cv: float, R: Array, t: Array, edge: float, reach: float, noise: Array,
    low: Array, number: Array, kept: Array, sign: int, weight: Array, sums: Array, hit: Array, struck: Array,
) -> int:  # fmt: skip
    """Put the surface points of a frame into their voxels (sign 1), take them out (-1), or only mark the voxels (0).

    depth [h, w] metres, 0 = unknown. R, t: camera to world. noise: (base, per square metre, offset, share of depth) of the
    deviation of a cell's depth, as SensorModel. number [i, j, k]: of the blocks of a box whose corner is ``low``, -1 = none.
    kept [n]: their slots, -1 = none. weight [slots, CELLS], sums [slots, CELLS, 3]: the voxels' evidence. hit uint8 [n, CELLS]:
    set where a point falls, and struck [n, 8] for the eighths of blocks. Returns how many points there were.
    """
    h, w = depth.shape
    points = 0
    per_f, per_edge = 1.0 / f, 1.0 / edge
    M, x0, y0, z0 = R * per_edge, t[0] * per_edge, t[1] * per_edge, t[2] * per_edge
    for v in range(h):
        for u in range(w):
            z = np.float64(depth[v, u])
            if z <= 0 or z > reach:
                continue
            a, b = (u - cu) * per_f * z, (v - cv) * per_f * z
            x = M[0, 0] * a + M[0, 1] * b + M[0, 2] * z + x0
            y = M[1, 0] * a + M[1, 1] * b + M[1, 2] * z + y0
            zz = M[2, 0] * a + M[2, 1] * b + M[2, 2] * z + z0
            i, j, k = int(np.floor(x)), int(np.floor(y)), int(np.floor(zz))
            bi, bj, bk = (i >> 3) - low[0], (j >> 3) - low[1], (k >> 3) - low[2]
            if bi < 0 or bj < 0 or bk < 0 or bi >= number.shape[0] or bj >= number.shape[1] or bk >= number.shape[2]:
                continue
            n = number[bi, bj, bk]
            if n < 0 or kept[n] < 0:
                continue
            cell = cell_number(i & 7, j & 7, k & 7)
            hit[n, cell] = 1
            struck[n, cell >> 6] = 1
            points += 1
            if sign != 0:
                slot = kept[n]
                off = z - noise[2]
                white = noise[0] + noise[1] * off * off
                share = noise[3] * z
                # a deviation of 1 cm counts 16
                worth = 16e-4 / (white * white / 8 + share * share + 1e-8)
                weighs = sign * int(min(max(worth, 1.0), 64.0))
                weight[slot, cell] += weighs
                sums[slot, cell, 0] += weighs * int((x - i) * QUANTUM)
                sums[slot, cell, 1] += weighs * int((y - j) * QUANTUM)
                sums[slot, cell, 2] += weighs * int((zz - k) * QUANTUM)
    return points


@compiled
def _window(pyramid: Array, u: float, v: float, radius: float, largest: bool) -> float:
    """Smallest (or largest) value of a pyramid in a square of cells round (u, v); -1 where it is not wholly in the image."""
    levels, h, w = pyramid.shape
    u0, u1, v0, v1 = u - radius + 0.5, u + radius + 0.5, v - radius + 0.5, v + radius + 0.5
    if u0 < 0 or v0 < 0 or u1 >= w or v1 >= h:
        return -1.0
    level = 0
    while (1 << level) < 2 * radius and level < levels - 1:
        level += 1
    found = pyramid[level, int(v0) >> level, int(u0) >> level]
    for b in range(int(v0) >> level, (int(v1) >> level) + 1):
        for a in range(int(u0) >> level, (int(u1) >> level) + 1):
            found = max(found, pyramid[level, b, a]) if largest else min(found, pyramid[level, b, a])
    return found


@compiled
def _stamped(first: Array, last: Array, slot: int, cell: int, sign: int, stamp: int) -> int:
    """Keep the stamps of a voxel that a frame shows; 1, or 3 where a stamp was taken away that another frame must replace."""
    a, b = first[slot, cell], last[slot, cell]
    if sign >= 0:
        first[slot, cell] = min(a, stamp)
        last[slot, cell] = max(b, stamp)
        return 1
    if stamp not in (a, b):
        return 1
    first[slot, cell] = LATER if a == b else max(a, b) if a == stamp else a
    last[slot, cell] = EARLIER if a == b else min(a, b) if b == stamp else b
    return 3


@compiled
def add_views(
    near: Array, far: Array, f: float, cu: float, cv: float, R: Array, t: Array, edge: float, reach: float, noise: Array,
    blocks: Array, kept: Array, sign: int, stamp: int,
    hits: Array, free: Array, first: Array, last: Array, hit: Array, struck: Array, told: Array,
) -> None:  # fmt: skip
    """Tell the voxels of blocks what a frame shows of them: add (sign 1), take away (-1), or only the stamps (0).

    near, far: as of ``pyramids``. R, t: world to camera. blocks [n, 3], kept [n]: coordinates and slots. hit, struck: as of
    ``add_points``. A voxel is free where every cell that its shadow may touch is further than it, by the deviations of depth.
    Parts of a block that are wholly free, hidden or out of the image are recognised as a whole. told uint8 [n]: 1 where
    anything of a block was seen, 3 where a stamp was taken away that another frame must now replace.
    """
    half = 0.5 * edge
    ahead = half * (abs(R[2, 0]) + abs(R[2, 1]) + abs(R[2, 2]))  # how far a voxel reaches along the optical axis
    across = half * max(abs(R[0, 0]) + abs(R[0, 1]) + abs(R[0, 2]), abs(R[1, 0]) + abs(R[1, 1]) + abs(R[1, 2]))
    part = PART
    for n in range(blocks.shape[0]):
        slot = kept[n]
        if slot < 0:
            continue
        for octant in range(8):
            i0, j0, k0 = (octant >> 2) * part, ((octant >> 1) & 1) * part, (octant & 1) * part
            x = (blocks[n, 0] * SIDE + i0 + 0.5 * part) * edge
            y = (blocks[n, 1] * SIDE + j0 + 0.5 * part) * edge
            z = (blocks[n, 2] * SIDE + k0 + 0.5 * part) * edge
            zc = R[2, 0] * x + R[2, 1] * y + R[2, 2] * z + t[2]
            if zc < 0.1 - part * ahead or zc > reach + part * ahead:
                continue
            everything = False
            nearest = zc - part * ahead
            if nearest > 0.3:
                xc = R[0, 0] * x + R[0, 1] * y + R[0, 2] * z + t[0]
                yc = R[1, 0] * x + R[1, 1] * y + R[1, 2] * z + t[1]
                u, v = f * xc / zc + cu, f * yc / zc + cv
                spread = part * (across + ahead * max(abs(xc), abs(yc)) / zc) * f / nearest
                if u + spread < -1 or v + spread < -1 or u - spread > near.shape[2] or v - spread > near.shape[1]:
                    continue
                most = _window(far, u, v, spread, True)
                if 0 <= most < nearest - 0.05:
                    continue
                least = _window(near, u, v, spread, False)
                if least > 0:
                    off = least - noise[2]
                    margin = 1.5 * (noise[0] + noise[1] * off * off) + 3 * noise[3] * least + 0.005
                    everything = zc + part * ahead <= reach and least > zc + part * ahead + margin
            begin = octant << 6
            if everything and not struck[n, octant] and sign >= 0:  # many at once
                for cell in range(begin, begin + 64):
                    free[slot, cell] += sign
                    first[slot, cell] = min(first[slot, cell], stamp)
                    last[slot, cell] = max(last[slot, cell], stamp)
                told[n] |= 1
                continue
            for cell in range(begin, begin + 64):
                if hit[n, cell]:
                    hits[slot, cell] += sign
                elif everything:
                    free[slot, cell] += sign
                else:
                    x = (blocks[n, 0] * SIDE + i0 + ((cell >> 4) & 3) + 0.5) * edge
                    y = (blocks[n, 1] * SIDE + j0 + ((cell >> 2) & 3) + 0.5) * edge
                    z = (blocks[n, 2] * SIDE + k0 + (cell & 3) + 0.5) * edge
                    zc = R[2, 0] * x + R[2, 1] * y + R[2, 2] * z + t[2]
                    if zc < 0.1 or zc > reach:
                        continue
                    scale = f / zc
                    u = (R[0, 0] * x + R[0, 1] * y + R[0, 2] * z + t[0]) * scale + cu
                    v = (R[1, 0] * x + R[1, 1] * y + R[1, 2] * z + t[1]) * scale + cv
                    least = _window(near, u, v, across * scale, False)
                    if least <= 0 or least < zc - ahead:
                        continue
                    off = least - noise[2]
                    margin = 1.5 * (noise[0] + noise[1] * off * off) + 3 * noise[3] * least + 0.005
                    if least > zc + ahead + margin:
                        free[slot, cell] += sign
                told[n] |= _stamped(first, last, slot, cell, sign, stamp)
