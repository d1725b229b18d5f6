"""MultiSPA's answers computed again from frames, poses and depth alone: nothing here uses what made the questions."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.simulation.rendered import RenderedSource

NEARER = ("nearer", "closer", "less deep", "smaller depth", "less far")
FARTHER = ("farther", "more distant", "deeper", "larger depth", "farther ahead")
Record = dict[str, Any]


@lru_cache(maxsize=8)
def recording(spec: str) -> tuple[Any, dict[str, Frame]]:
    source = open_source(spec)
    names = getattr(source, "name_of", lambda stamp: None)
    frames = {}
    for frame in source.frames():
        frames[names(frame.stamp_ns) or f"{frame.stamp_ns / 1e9:.9f}"] = frame
    return source, frames


class Truth:
    """Says what is wrong with a record, '' where its answer is right."""

    def __init__(self, spec: str, images: Path) -> None:
        self.source, self.frames = recording(spec)
        self.images = images

    def check(self, record: Record) -> str:
        views = [self.frames[name] for name in record["frames"]]
        kind = record["subtask"]
        if "marked" in record["image"][0] and (wrong := self.dots_missing(record)):
            return wrong
        if said := self.answer_differs(record):
            return said
        if kind.startswith("depth_estimation"):
            return self.depth(record, views[0])
        if kind.startswith("depth_comparison"):
            return self.comparison(record, views[0])
        if kind.startswith("visual_correspondence"):
            return self.correspondence(record, views)
        if kind.startswith("object_movement"):
            return self.movement(record, views)
        return self.size(record) if kind.startswith("object_") else self.camera(record, views)

    def depth(self, record: Record, view: Frame) -> str:
        ((u, v),) = record["points"][0]
        measured = _metres(view, u, v) * 1000
        asked = _coordinates(_question(record))
        if record["subtask"].endswith("coor") and asked[0] != _scaled(view, u, v):
            return f"asked at {asked[0]}, but the point is at {_scaled(view, u, v)}"
        return "" if round(measured) == record["gt_value"] else f"measured {measured}"

    def comparison(self, record: Record, view: Frame) -> str:
        (a, b) = record["points"][0]
        nearer = any(word in _question(record) for word in NEARER)
        if nearer == any(word in _question(record) for word in FARTHER):
            return "the question says neither nearer nor farther, or both"
        z = [_metres(view, *a), _metres(view, *b)]
        first = (z[0] < z[1]) == nearer
        if record["subtask"].endswith("_dot"):
            return "" if record["gt_value"] == record["letters"][0 if first else 1] else f"depths {z}"
        right = _scaled(view, *(a if first else b))
        return "" if tuple(record["gt_value"]) == right else f"depths {z}, so {right}"

    def correspondence(self, record: Record, views: list[Frame]) -> str:
        ((u, v),) = record["points"][0]
        z = _metres(views[0], u, v)
        there, ahead = _projected(views[1], _lifted(views[0], u, v, z))
        seen = _metres(views[1], *np.rint(there))
        if not abs(seen - ahead) < 0.05 + 0.03 * ahead:
            return f"the second image has {seen} m there, the point is at {ahead} m"
        if record["subtask"].endswith("multichoice"):
            dots = np.array(record["points"][1])
            off = np.linalg.norm(dots - there, axis=1)
            right = "ABCD"[int(off.argmin())]
            if np.sort(off)[1] < 0.04 * views[1].camera.width:
                return f"two dots are near the right place: {np.sort(off)}"
            hard = record["distractors"] == "hard"
            if hard != bool(np.sort(off)[3] <= 0.16 * views[1].camera.width):
                return f"{record['distractors']} distractors at {np.sort(off)}"
            return "" if record["gt_value"] == right and off.min() < 1 else f"the right one is {right}"
        right = _scaled(views[1], *there)
        return "" if np.abs(np.subtract(record["gt_value"], right)).max() <= 1 else f"it is at {right}"

    def camera(self, record: Record, views: list[Frame]) -> str:
        first, second = (view.T_world_camera for view in views)
        move = (np.linalg.inv(first) @ second)[:3, 3]
        kind, gt = record["subtask"], record["gt_value"]
        if kind in ("x_movement", "y_movement", "z_movement"):
            axis = "xyz".index(kind[0])
            word = (("left", "right"), ("up", "down"), ("backward", "forward"))[axis][int(move[axis] > 0)]
            return "" if gt == word and abs(move[axis]) >= 0.05 else f"moved {move}"
        if kind == "total_distance":
            return "" if abs(gt - 1000 * np.linalg.norm(move)) <= 1 else f"moved {move}"
        if kind == "displacement_vector":
            return "" if np.allclose(gt, move, atol=1e-6) else f"moved {move}"
        looks = [T[:3, 2] for T in (first, second)]
        elevation = [np.degrees(np.arctan2(z[2], np.hypot(z[0], z[1]))) for z in looks]
        flat = [z[:2] / np.linalg.norm(z[:2]) for z in looks]
        left = np.degrees(np.arctan2(flat[0][0] * flat[1][1] - flat[0][1] * flat[1][0], flat[0] @ flat[1]))
        turn = left if kind.startswith("yaw") else elevation[1] - elevation[0]
        if kind.endswith("angle"):
            return "" if abs(gt - abs(turn)) <= 1.5 else f"turned {turn}"
        word = ("right", "left") if kind.startswith("yaw") else ("down", "up")
        return "" if gt == word[int(turn > 0)] and abs(turn) > 2 else f"turned {turn}"

    def size(self, record: Record) -> str:
        assert isinstance(self.source, RenderedSource)
        number = next(k for k, t in enumerate(self.source.house.things) if t.name == record["object"])
        thing = self.source.house.things[number]
        base = sorted(thing.size[:2])
        size = {"object_height": thing.size[2], "object_length": base[1], "object_width": base[0]}[record["subtask"]]
        if thing.category not in _question(record):
            return f"{thing.category} is not what is asked about"
        seen = np.concatenate([self._surface(name, number) for name in record["frames"]])
        if not len(seen):
            return "no image shows it"
        c, s = np.cos(thing.yaw), np.sin(thing.yaw)
        axes = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        of_size = [2] if record["subtask"] == "object_height" else np.flatnonzero(np.isclose(thing.size[:2], size))
        span = max(np.ptp(seen @ axes[k]) for k in of_size)  # of a square base, both sides are its length
        if not 0.8 * size <= span <= 1.05 * size:
            return f"the images show {span:.2f} m of {size:.2f} m"
        return "" if record["gt_value"] == round(1000 * size) else f"it measures {size}"

    def _surface(self, name: str, number: int) -> np.ndarray:
        """World points of a thing that a frame shows, exactly."""
        index = int(name.removeprefix("frame-"))
        view = self.source.view(index, color=False)
        rows, columns = np.nonzero(view.thing == number)
        camera = self.source.camera
        z = view.depth[rows, columns]
        local = np.stack([(columns - camera.cx) / camera.fx * z, (rows - camera.cy) / camera.fy * z, z], axis=1)
        T = self.source.true_pose(index)
        return local @ T[:3, :3].T + T[:3, 3]

    def movement(self, record: Record, views: list[Frame]) -> str:
        assert isinstance(self.source, RenderedSource)
        per_thing = len(self.source.movers[0].points)
        mover = self.source.movers[record["point"] // per_thing]
        local = np.append(mover.points[record["point"] % per_thing], 1.0)
        start = int(self.source.stamps[0])
        world = [(mover.pose((view.stamp_ns - start) / 1e9) @ local)[:3] for view in views]
        for view, place, marked in zip(views, world, record["points"], strict=True):
            at, _ = _projected(view, place)
            if np.linalg.norm(at - marked[0]) > 0.01:
                return f"the point is at {at}, not {marked[0]}"
        shift = world[1] - world[0]
        if np.linalg.norm(shift) < 0.01:
            shift = np.zeros(3)
        still = bool(np.linalg.norm(views[1].T_world_camera[:3, 3] - views[0].T_world_camera[:3, 3]) < 0.01)
        if still != record["subtask"].endswith("still_camera") or still == bool(record["cam_moving"]):
            return f"the camera is {'still' if still else 'moving'}"
        if "conversations" in record and bool(record["point_moving"]) == _says_rest(record):
            return f"the point moved {shift}, but the answer says {record['conversations'][1]['value']!r}"
        if "distance" in record["subtask"]:
            return "" if abs(record["gt_value"] - 1000 * np.linalg.norm(shift)) <= 0.51 else f"moved {shift}"
        right = views[0].T_world_camera[:3, :3].T @ shift
        return "" if np.allclose(record["gt_value"], right, atol=1e-6) else f"moved {right}"

    def dots_missing(self, record: Record) -> str:
        """Whether the image has a dot of one color wherever a point is marked."""
        for name, points in zip(record["image"], record["points"], strict=False):
            if "marked" not in name:
                continue
            image = cv2.imread(str(self.images / name)).astype(int)
            for u, v in points:
                at = image[round(v) - 1 : round(v) + 2, round(u) - 1 : round(u) + 2].reshape(-1, 3)
                if np.ptp(at, axis=0).max() > 60:
                    return f"there is no dot at {u}, {v} of {name}"
        return ""

    def answer_differs(self, record: Record) -> str:
        """Whether the sentence of the answer says another thing than the truth of the record."""
        if "conversations" not in record:
            return ""
        (told,) = re.findall(r"`([^`]*)`", record["conversations"][1]["value"])
        gt = record["gt_value"]
        if isinstance(gt, list):
            vector = len(gt) == 3
            said = [int(x) for x in re.findall(r"-?\d+", told)]
            return (
                ""
                if np.abs(np.subtract(said, np.multiply(gt, 1000 if vector else 1))).max() <= 1
                else f"it says {told}"
            )
        return "" if told == str(gt) else f"it says {told}"


def _question(record: Record) -> str:
    return record["conversations"][0]["value"] if "conversations" in record else record["text"]


def _says_rest(record: Record) -> bool:
    return any(word in record["conversations"][1]["value"] for word in ("stayed", "Nothing", "rest", "was before"))


def _coordinates(text: str) -> list[tuple[int, ...]]:
    return [(int(x), int(y)) for x, y in re.findall(r"\[ (\d+) , (\d+) \]", text)]


def _metres(view: Frame, u: float, v: float) -> float:
    value = view.depth[int(v), int(u)]
    return float(value) / 1000 if view.depth.dtype == np.uint16 else float(value)


def _scaled(view: Frame, u: float, v: float) -> tuple[int, int]:
    return round(u / view.camera.width * 1000), round(v / view.camera.height * 1000)


def _lifted(view: Frame, u: float, v: float, z: float) -> np.ndarray:
    camera = view.camera
    local = np.array([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z, 1.0])
    return (view.T_world_camera @ local)[:3]


def _projected(view: Frame, world: np.ndarray) -> tuple[np.ndarray, float]:
    x, y, z = (np.linalg.inv(view.T_world_camera) @ np.append(world, 1.0))[:3]
    return np.array([view.camera.fx * x / z + view.camera.cx, view.camera.fy * y / z + view.camera.cy]), float(z)
