"""The context that is kept ready: encoded in small steps when frames change, the last complete one at hand meanwhile."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from spatial_mllm_ros.models.mllm.cache import FeatureCache
from spatial_mllm_ros.models.mllm.context import Context, Encoder, Steps, Store
from spatial_mllm_ros.serving.interface import ModelError, ModelFrame, ModelOptions

MIB = 1 << 20


@dataclass
class Stage:
    """Steps of one kind: how many there were, and how long they took."""

    steps: int = 0
    seconds: float = 0.0


class PendingContext:
    """A context that is being made, step by step."""

    def __init__(self, frames: tuple[ModelFrame, ...], steps: Steps, *, last_try: bool = False) -> None:
        self.frames, self.steps, self.last_try = frames, steps, last_try
        self.nbytes = 0
        """Bytes that it has reserved."""
        self.stages: dict[str, Stage] = {}
        """What was done so far."""

    @property
    def frame_ids(self) -> tuple[int, ...]:
        return frame_ids(self.frames)

    @property
    def seconds(self) -> float:
        """Time that it took so far."""
        return sum(stage.seconds for stage in self.stages.values())


class WarmContext:
    """Contexts of one model within a bound of memory: the last complete one, the one being made, encoded images.

    An update in progress goes on to its end even if frames change meanwhile, so that contexts are completed however
    often they change; of the sets of frames that wait only the newest is kept.
    """

    def __init__(self, encoder: Encoder, options: ModelOptions) -> None:
        self.current: Context | None = None
        """The last complete context."""
        self.failure = ""
        """Why the newest frames could not be encoded."""
        self.updates = 0
        self.last_update: dict[str, Stage] = {}
        """How long it took to make ``current``, by what was done."""
        self._encoder = encoder
        self._bound = options.cache_mib * MIB
        self._most_frames = options.max_context_frames
        self._features = FeatureCache(self._bound)
        self._making: PendingContext | None = None
        self._waiting: tuple[ModelFrame, ...] = ()
        self._asked: tuple[ModelFrame, ...] = ()

    @property
    def pending(self) -> bool:
        """Whether a context is being made, or waits to be."""
        return self._making is not None or bool(self._waiting)

    def select(self, frames: Sequence[ModelFrame]) -> tuple[ModelFrame, ...]:
        """Those that a context of these frames has, in time order: as many as allowed, and as the model takes them."""
        return tuple(self._encoder.select(frames, self._most_frames))

    def set(self, frames: Sequence[ModelFrame]) -> None:
        """Frames of the context to come; none: everything is forgotten at once."""
        self._asked, self._waiting, self.failure = self.select(frames), (), ""
        if not frames:
            self.drop()
            return
        ahead = self._making or self.current
        if ahead is None or ahead.frame_ids != frame_ids(self._asked):
            self._waiting = self._asked

    def drop(self) -> None:
        """Free everything that was encoded, what is being encoded too; nothing is pending then."""
        self.current = self._making = None
        self._waiting = ()
        self._features.clear()
        self._encoder.free()

    def again(self) -> None:
        """Encode the frames that were asked for last once more, after a drop."""
        self.set(self._asked)

    def newest_only(self) -> None:
        """Give up an update of older frames than those that wait, since somebody waits for these."""
        if self._waiting:
            self._making = None

    def step(self) -> bool:
        """Advance by one step; False when there is nothing to do. A context that cannot be made leaves ``failure``.

        After running out of memory it starts again once, with everything else freed.
        """
        if self._making is None:
            if not self._waiting:
                return False
            self._making, self._waiting = self._make(self._waiting), ()
        making, context, ran_out = self._making, None, False
        try:
            context = self.advance(making)
        except ModelError as error:
            self._give_up(str(error))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            ran_out = True  # dealt with below: while the error lives, so do the tensors of where it was raised
        if ran_out:
            self._start_again(making)
        if context is not None:
            self.current, self._making = context, None
            self.updates, self.last_update = self.updates + 1, making.stages
            if frame_ids(self._waiting) == context.frame_ids:
                self._waiting = ()
        self.fit()
        return True

    def own(self, frames: Sequence[ModelFrame]) -> PendingContext:
        """A context for one question alone, to be advanced until it is complete. The others stay as they are."""
        return self._make(self.select(frames), own=True)

    def advance(self, making: PendingContext) -> Context | None:
        """One step of a context; the context itself once it is complete."""
        start = time.perf_counter()
        context: Context | None = None
        with torch.inference_mode():
            try:
                done = next(making.steps)
            except StopIteration as finished:
                context, done = finished.value, "prefill"
            self._encoder.wait()
        stage = making.stages.setdefault(done, Stage())
        stage.steps += context is None
        stage.seconds += time.perf_counter() - start
        return context

    def fit(self) -> None:
        """Keep encoded images within what the contexts leave of the bound."""
        self._features.limit(self._bound - self._contexts_nbytes())

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by name: the contexts, and encoded images by kind."""
        return {
            "context": self.current.cache.nbytes if self.current is not None else 0,
            "next_context": self._making.nbytes if self._making is not None else 0,
            **self._features.nbytes_by_kind,
        }

    def _make(self, frames: tuple[ModelFrame, ...], *, own: bool = False, last_try: bool = False) -> PendingContext:
        def reserve(nbytes: int) -> Context | None:
            making.nbytes = nbytes
            self._make_room(making, own)
            return self.current

        making = PendingContext(frames, self._encoder.encode(frames, Store(self._features, reserve)), last_try=last_try)
        return making

    def _make_room(self, making: PendingContext, own: bool) -> None:
        """Before ``making`` takes its bytes: encoded images give way first, then the update or the context before it."""
        count, size = len(making.frames), math.ceil(making.nbytes / MIB)
        beside = 0 if making is self._making else making.nbytes
        if own and self._making is not None and self._contexts_nbytes() + beside > self._bound:
            self._waiting, self._making = self._waiting or self._making.frames, None
        if not own and self._contexts_nbytes() > self._bound:
            self.current = None
        if self._contexts_nbytes() + beside > self._bound:
            warm = " beside the one that is kept" if own and self.current is not None else ""
            raise ModelError(
                f"a context of {count} frames takes {size} MiB{warm}, and all caches together may have"
                f" {self._bound // MIB} MiB: use fewer frames, or raise cache_mib"
            )
        self._features.limit(self._bound - self._contexts_nbytes() - beside)

    def _contexts_nbytes(self) -> int:
        held = self.nbytes
        return held["context"] + held["next_context"]

    def _start_again(self, making: PendingContext) -> None:
        waiting = self._waiting
        self.drop()
        self._waiting = waiting
        if making.last_try:
            self._give_up(f"out of memory while {len(making.frames)} frames were encoded: use fewer or smaller ones")
        else:
            self._making = self._make(making.frames, last_try=True)

    def _give_up(self, reason: str) -> None:
        self._making = None
        if not self._waiting:
            self.failure = reason


def frame_ids(frames: Sequence[ModelFrame]) -> tuple[int, ...]:
    """Their ids, in their order, each once."""
    return tuple(dict.fromkeys(frame.frame_id for frame in frames))


def out_of_memory(error: BaseException) -> bool:
    """Whether this is torch, on any device, or Python saying that memory is used up."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        said in words for said in ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    )
