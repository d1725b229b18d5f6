"""The loop of one model: contexts encoded in small steps, questions answered between two of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from spatial_mllm_ros.models.interface import Generated, ModelFrame, ModelOptions, ModelQuestion, ModelStatus


class ModelEngine:
    """One loaded model and what it has encoded. Single-threaded: one thread owns it and calls everything but ``status``.

    The owner calls ``step`` again and again while ``context_pending``, and ``answer`` between two steps when a question
    has come; a step takes as long as one frame, one frame pair, one block or one piece of the prefix.
    """

    def __init__(self, loaded: Any, options: ModelOptions) -> None:
        """``loaded``: a model as ``plain.load`` returns it."""
        raise NotImplementedError

    @property
    def model_id(self) -> str:
        """The checkpoint, its precision and the runtime."""
        raise NotImplementedError

    @property
    def context_pending(self) -> bool:
        """Whether ``step`` has something to do."""
        raise NotImplementedError

    def set_context(self, frames: Sequence[ModelFrame]) -> None:
        """Frames to encode in the steps that follow. Takes no time itself.

        An update in progress goes on to its end, so that contexts are completed however often they change; of those
        that wait only the newest is kept. No frames: everything is forgotten at once, an update in progress too.
        """
        raise NotImplementedError

    def step(self) -> bool:
        """Advance the update of the context by one step; False when there was nothing to do.

        Never raises for a context that cannot be encoded (out of memory, too large for the caches): ``status`` says
        why, and so does the ``ModelError`` of the next question that needs it.
        """
        raise NotImplementedError

    def answer(
        self,
        question: ModelQuestion,
        frames: Sequence[ModelFrame] | None = None,
        *,
        deadline: float = float("inf"),
        cancelled: Callable[[], bool] = lambda: False,
        on_text: Callable[[str], None] | None = None,
        wait_for_context: bool = False,
    ) -> Generated:
        """Answer now, as ``interface.SpatialModel.ask`` says. deadline: on the clock of ``time.monotonic``, in seconds.

        ``cancelled`` is asked between tokens and between steps of encoding. An update in progress is left where it is,
        unless the question has to wait for it.
        Raises ModelError (out of memory too: caches are dropped, the engine lives on and encodes the context again),
        ModelCancelled, ModelTimeout; ValueError without any frames.
        """
        raise NotImplementedError

    def status(self) -> ModelStatus:
        """From any thread, at any time; ``waiting`` is left to the owner."""
        raise NotImplementedError

    def drop_caches(self) -> None:
        """Free every cache, the contexts too; the context asked for last is encoded again in the steps that follow."""
        raise NotImplementedError
