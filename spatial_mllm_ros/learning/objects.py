"""True objects of a recording: upright boxes, from a file beside it or from the rendered house."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.sources.source import Source, SourceError

FILE = "objects.json"
"""Beside a recording: ``{"objects": [{"name": "chair-1", "category": "chair", "centre": [x, y, z], "size": [x, y, z],
"yaw": 0.0}]}``, metres and radians in the recording's upright frame; ``size`` is along the box's own axes, which are
turned by ``yaw`` about z."""
UNTELLING = ("window", "picture", "rug", "ceiling lamp")
"""Categories of a rendered house that are flat or hang: their three sizes are no use (the published engine leaves out
walls, floors, ceilings, windows and "object")."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ObjectBox:
    """The upright box that just holds an object; metres, radians. ``size``: along its own axes, the last is up."""

    name: str
    category: str
    centre: NDArray[np.float64]
    size: NDArray[np.float64]
    yaw: float = 0.0

    def local(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points [n, 3] in the box's axes, from its centre."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        shifted = points - self.centre
        return np.stack(
            [c * shifted[:, 0] + s * shifted[:, 1], c * shifted[:, 1] - s * shifted[:, 0], shifted[:, 2]], axis=1
        )

    @property
    def axis_of(self) -> dict[str, int]:
        """The axis of each dimension: length is the longer side of the base, width the shorter one."""
        longer = 0 if self.size[0] >= self.size[1] else 1
        return {"height": 2, "length": longer, "width": 1 - longer}


def objects_of(source: Source, place: Path | None) -> tuple[ObjectBox, ...]:
    """The true objects of a recording; none where nothing tells them.

    place: the recording's folder or file. Raises SourceError, with the entry, for a file that cannot be used.
    """
    if isinstance(source, RenderedSource):
        return tuple(
            ObjectBox(name=t.name, category=t.category, centre=t.centre, size=t.size, yaw=t.yaw)
            for t in source.house.things
            if not t.is_structure and t.category not in UNTELLING
        )
    path = None if place is None else (place if place.is_dir() else place.parent) / FILE
    if path is None or not path.is_file():
        return ()
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["objects"]
        return tuple(_box(entry) for entry in listed)
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path} is not a list of objects: {error}; it must look like\n{_EXAMPLE}") from error


def save_objects(path: Path, boxes: Sequence[ObjectBox]) -> None:
    """Write objects.json."""
    listed = [
        {"name": b.name, "category": b.category, "centre": b.centre.tolist(), "size": b.size.tolist(), "yaw": b.yaw}
        for b in boxes
    ]
    path.write_text(json.dumps({"objects": listed}, indent=1) + "\n", encoding="utf-8")


def owners_of(source: Source, boxes: Sequence[ObjectBox]) -> Callable[[int], NDArray[np.int64]] | None:
    """Where a recording knows it: for a stamp, which of the objects each pixel is on, flat, -1 for none."""
    if not isinstance(source, RenderedSource):
        return None
    number = {box.name: k for k, box in enumerate(boxes)}
    table = np.array([number.get(thing.name, -1) for thing in source.house.things] + [-1] * (len(source.movers) + 1))

    def owner(stamp_ns: int) -> NDArray[np.int64]:
        return table[source.view(int(np.searchsorted(source.stamps, stamp_ns)), color=False).thing].ravel()

    return owner


_EXAMPLE = (
    '{"objects": [{"name": "chair-1", "category": "chair", "centre": [0, 0, 0.4], "size": [0.5, 0.5, 0.8], "yaw": 0}]}'
)


def _box(entry: Mapping[str, Any]) -> ObjectBox:
    centre, size = (np.asarray(entry[key], dtype=np.float64) for key in ("centre", "size"))
    yaw = float(entry.get("yaw", 0.0))
    if centre.shape != (3,) or size.shape != (3,) or not (np.isfinite(centre).all() and np.isfinite(yaw)):
        raise ValueError(f"{entry.get('name')}: centre and size are three numbers each")
    if not (np.isfinite(size).all() and (size > 0).all()):
        raise ValueError(f"{entry.get('name')}: sizes are positive, not {size.tolist()}")
    return ObjectBox(name=str(entry["name"]), category=str(entry["category"]), centre=centre, size=size, yaw=yaw)
