"""Who answers a benchmark's questions: chance, the most frequent answer, geometry, a model, or both."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.learning.evaluation.items import Item
from spatial_mllm_ros.serving.interface import ModelError, ModelFrame, ModelQuestion, ModelUnavailable, SpatialModel
from spatial_mllm_ros.sources.compressed import decode_rgb


class Answerer(Protocol):
    """Raises Refused where it does not answer."""

    name: str

    def answer(self, item: Item) -> str: ...


class Refused(Exception):
    """The question is not answered. ``str()`` says why."""


class Failed(Refused):
    """The question could not be put, or its answer was lost. It is put again when the run is resumed."""


class Chance:
    """One of the options at random; a number between the least and the largest truth of its type, vectors and coordinates
    each part by itself; of answers in words any. It sees no image: what it scores is what the truths alone give away."""

    name = "chance"

    def __init__(self, items: Sequence[Item], seed: int = 0) -> None:
        self._seed = seed
        self._truths: dict[str, list[Any]] = {}
        for item in items:
            self._truths.setdefault(item.kind, []).append(item.truth)

    def answer(self, item: Item) -> str:
        rng = np.random.default_rng([self._seed, zlib.crc32(item.id.encode())])
        truths = self._truths[item.kind]
        if item.options:
            letters = _letters(item)
            return letters[int(rng.integers(len(letters)))]
        drawn = truths[int(rng.integers(len(truths)))]
        if isinstance(drawn, tuple):
            return str(drawn[0])
        figures = [_figures(truth) for truth in truths]
        if any(figure is None for figure in figures):
            return str(drawn)
        low, high = (f(np.array(figures), axis=0) for f in (np.min, np.max))
        return _written(item, rng.uniform(low, high))


class Frequency:
    """The most frequent truth of a type, as VSI-Bench's baseline of that name; of numbers with many values their median,
    part by part. It sees the truths, and no image."""

    name = "frequency"

    def __init__(self, items: Sequence[Item]) -> None:
        truths: dict[str, list[Any]] = {}
        for item in items:
            truths.setdefault(item.kind, []).append(item.truth[0] if isinstance(item.truth, tuple) else item.truth)
        self._truths = truths

    def answer(self, item: Item) -> str:
        truths = self._truths[item.kind]
        figures = [_figures(truth) for truth in truths]
        if item.options or any(figure is None for figure in figures):
            return str(Counter(map(str, truths)).most_common(1)[0][0])
        top, count = Counter(map(str, truths)).most_common(1)[0]
        if count > 0.1 * len(truths) and len(truths) > 1 and not isinstance(truths[0], list):
            return top
        return _written(item, np.median(np.array(figures), axis=0))


def _letters(item: Item) -> list[str]:
    """What can be said to choose each option, in the form of the truth: "A", "(A)", or the option's words."""
    if item.truth in item.options:
        return list(item.options)
    form = "({})" if str(item.truth).startswith("(") else "{}"
    return [form.format("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[k]) for k in range(len(item.options))]


def _figures(truth: Any) -> NDArray[np.float64] | None:
    try:
        return np.atleast_1d(np.asarray(truth, dtype=np.float64))
    except (TypeError, ValueError):
        return None


def _written(item: Item, value: NDArray[np.float64]) -> str:
    """A number or a bracketed list; vectors of MultiSPA are kept in metres and told in mm."""
    if len(value) == 1:
        return f"{value[0]:.6g}"
    scale = 1000 if len(value) == 3 else 1
    return "`[ " + " , ".join(str(round(scale * x)) for x in value) + " ]`"


class ModelAnswerer:
    """A model that is shown the question's images, or evenly spaced frames of its video."""

    def __init__(self, model: SpatialModel, frames: int = 16, timeout_s: float = 300.0) -> None:
        self.name, self._model, self._frames, self._timeout_s = "model", model, frames, timeout_s

    def answer(self, item: Item) -> str:
        """Raises Failed where the images cannot be read, or the model fails; ModelUnavailable when it is gone for good."""
        images = images_of(item, self._frames)
        if len(images) % 2:
            images.append(images[-1])  # its frames come in pairs
        frames = [ModelFrame(k, k * 250_000_000, image) for k, image in enumerate(images)]
        try:
            return self._model.ask(ModelQuestion(prompt_of(item)), frames, timeout_s=self._timeout_s).text
        except ModelUnavailable:
            raise
        except ModelError as error:
            raise Failed(f"the model failed: {error}") from error


class Both:
    """Geometry, and the model where geometry refuses."""

    name = "both"

    def __init__(self, first: Answerer, second: Answerer) -> None:
        self._first, self._second = first, second

    def answer(self, item: Item) -> str:
        try:
            return self._first.answer(item)
        except Refused:
            return self._second.answer(item)


def prompt_of(item: Item) -> str:
    """The question, its options and in which form to answer, in our own words: suites differ in theirs."""
    if item.options and item.truth not in item.options:
        listed = [o if o[:2] in ("A.", "B.", "C.", "D.") else f"({c}) {o}" for c, o in zip("ABCDEFGH", item.options)]  # noqa: B905
        return "\n".join([item.question, *listed, "Reply with the letter of the right option and nothing else."])
    if isinstance(item.truth, str) and not item.options:
        return f"{item.question}\nReply with one word or number and nothing else."
    return item.question.replace("<image>", "").strip()


def images_of(item: Item, frames: int) -> list[NDArray[np.uint8]]:
    """RGB images that a question is about. Raises Failed where there are none."""
    embedded = [value for key, value in sorted(item.record.items()) if key.startswith("image") and value is not None]
    found: list[NDArray[np.uint8]] = []
    for value in embedded:
        for part in value if isinstance(value, list) else [value]:
            data = part.get("bytes") if isinstance(part, dict) else None
            if data:
                found.append(decode_rgb(data))
    for path in item.media:
        found += _read(path, frames)
    if not found:
        raise Failed("the question has no image here")
    return found


def _read(path: Path, frames: int) -> list[NDArray[np.uint8]]:
    if not path.is_file():
        raise Failed(f"{path} is missing: download the benchmark's images or videos too")
    if path.suffix.lower() not in (".mp4", ".mov", ".avi", ".mkv", ".webm"):
        try:
            return [decode_rgb(path.read_bytes())]
        except ValueError as error:
            raise Failed(f"{path} does not decode: {error}") from error
    video = cv2.VideoCapture(str(path))
    try:
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        found: list[NDArray[np.uint8]] = []
        for index in np.unique(np.linspace(0, max(count - 1, 0), frames).round().astype(int)):
            video.set(cv2.CAP_PROP_POS_FRAMES, int(index))
            good, image = video.read()
            if good:
                found.append(np.ascontiguousarray(image[..., ::-1], dtype=np.uint8))
    finally:
        video.release()
    if not found:
        raise Failed(f"{path} cannot be read as a video")
    return found


Progress = Callable[[str, int, int | None], None]
