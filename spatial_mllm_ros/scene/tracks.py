"""Tracked points: where points of things are in space, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

_CHANGE_M = 0.01
_RIGID_M = 0.1
_MORE_THAN = 5
"""As in the data engine of Multi-SpatialMLLM: changes of a distance below 1 cm a frame are noise; bodies are joined up to
0.1 m of changes in all; a body has more than five points."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Tracks:
    """stamps: int64 [f], ns. world: metres [f, n, 3]; NaN where not known. visible: bool [f, n]: seen by the camera at
    that stamp. group: int [n], points of one rigid body share a number; None: not known."""

    stamps: NDArray[np.int64]
    world: NDArray[np.float64]
    visible: NDArray[np.bool_]
    group: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        f, n = len(self.stamps), self.world.shape[1] if self.world.ndim == 3 else -1
        if self.world.shape != (f, n, 3) or self.visible.shape != (f, n):
            raise ValueError(
                f"tracks of {f} stamps must be [{f}, points, 3] with visibility [{f}, points], not "
                f"{list(self.world.shape)} and {list(self.visible.shape)}"
            )
        if self.group is not None and self.group.shape != (n,):
            raise ValueError(f"tracks have {n} points but groups of {self.group.shape}")

    def at(self, stamps: NDArray[np.int64]) -> Tracks:
        """The tracks at other stamps; points are not visible at a stamp that is none of theirs."""
        order = np.argsort(self.stamps)
        where = order[np.clip(np.searchsorted(self.stamps[order], stamps), 0, len(order) - 1)]
        known = self.stamps[where] == stamps
        return replace(self, stamps=stamps, world=self.world[where], visible=self.visible[where] & known[:, None])

    def bodies(self) -> list[NDArray[np.int64]]:
        """Points of each rigid body that has more than five.

        By ``group``, or else as published: how much the distance of two points changed in all, joined by average linkage.
        """
        if self.group is None:
            with np.errstate(invalid="ignore"):
                distances = np.stack([pdist(frame) for frame in self.world])
                change = np.abs(np.diff(distances, axis=0))
                total = np.where(change > _CHANGE_M, change, 0.0).sum(axis=0)
            if len(total) == 0:
                return []
            labels = np.asarray(fcluster(linkage(total, "average"), _RIGID_M, criterion="distance"), dtype=np.int64)
        else:
            labels = self.group
        found = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        return [points for points in found if len(points) > _MORE_THAN]
