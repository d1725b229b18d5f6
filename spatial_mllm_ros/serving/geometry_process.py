"""The predictor of geometry from color in a process of its own, which it may lose and gets back.

The client's side; no torch here. geometry_worker.py is the other side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.window import InvalidWindow, WindowGeometry
from spatial_mllm_ros.serving.child import Child, process_memory
from spatial_mllm_ros.serving.interface import ModelError, ModelStatus
from spatial_mllm_ros.serving.supervised import QUICK_S, RESTART_AFTER_S, STUCK_S, Supervised
from spatial_mllm_ros.serving.wire import Predict, Predicted

WORKER = "spatial_mllm_ros.models.worker.geometry_worker"
LOADER = f"{WORKER}:load_predictor"
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class GeometryOptions:
    """How a predictor is loaded and run.

    model: folder of a checkpoint of Spatial-MLLM or VGGT, or its id on the hub when it was downloaded. precision: of the
    large part; auto is bfloat16 where the device computes in it, else float32. device: auto, cpu, cuda or cuda:N. width:
    px that images are resized to. window_size: images at once, for the memory that is needed. threads: of the CPU; 0 is
    all but one, which is left to the node.

    A model that ends in .onnx is a file of ``spatial-mllm export geometry``, run by ONNX Runtime without torch; its
    precision is its own. providers: of ONNX Runtime by preference, or auto. engine_folder: '' is the user's.
    allow_random_weights: whether an exported file may have been made from weights that nobody trained.
    """

    model: str
    precision: str = "auto"
    device: str = "auto"
    width: int = 518
    window_size: int = 8
    threads: int = 0
    providers: str = "auto"
    engine_folder: str = ""
    allow_random_weights: bool = False


class PredictorLost(InvalidWindow):
    """Nothing came out, for the process died, or was closed."""

    def __init__(self, message: str) -> None:
        super().__init__("predictor_lost", message)


class ProcessPredictor(Supervised):
    """A GeometryPredictor (see geometry_predictor.py) in a child process.

    loader: ``module:function`` that loads it in the child, see ``geometry_worker.load_predictor``. The others as for
    ``supervised.Supervised``. A window that the process had got when it died raises PredictorLost; the next waits for its
    successor. When there is to be none, ``status`` says failed, and every window raises PredictorLost at once.
    """

    def __init__(
        self,
        options: GeometryOptions,
        loader: str = LOADER,
        restart_after_s: Sequence[float] = RESTART_AFTER_S,
        quick_s: float = QUICK_S,
        stuck_s: float = STUCK_S,
        python: str = "",
    ) -> None:
        self._changed = threading.Condition()
        super().__init__(
            options,
            WORKER,
            loader,
            "the process of the geometry from color",
            "the geometry from color",
            restart_after_s,
            quick_s,
            stuck_s,
            python,
        )
        self._task: _Task | None = None
        self._predicted = self._failed = 0

    # ---- for those who use it

    @property
    def name(self) -> str:
        """See GeometryPredictor; the checkpoint asked for until it is loaded."""
        return self._model_id

    def predict(self, images: NDArray[np.uint8]) -> WindowGeometry:
        """See GeometryPredictor. Waits for a process that is being replaced; PredictorLost when it dies meanwhile."""
        try:
            outcome = self._outcome(images)
        except PredictorLost as error:
            outcome = error
        with self._changed:
            self._task = None
            self._failed += isinstance(outcome, InvalidWindow)
            self._predicted += isinstance(outcome, WindowGeometry)
        if isinstance(outcome, InvalidWindow):
            raise outcome
        return outcome

    def status(self) -> ModelStatus:
        """How it fares; never waits. answered, failed: windows."""
        with self._changed:
            child = self._child
            state = "answering" if self._state == "ready" and self._task is not None else self._state
            status = ModelStatus(state, self._reason, self.name, answered=self._predicted, failed=self._failed)
        return status if child is None else replace(status, memory=process_memory(child.process.pid))

    # ---- a window

    def _outcome(self, images: NDArray[np.uint8]) -> WindowGeometry | InvalidWindow:
        with self._changed:
            self._changed.wait_for(lambda: self._unavailable or (self._state == "ready" and self._child is not None))
            if self._unavailable:
                raise PredictorLost(self._unavailable)
            child, task = self._child, _Task()
            assert child is not None
            self._task = task
        with suppress(OSError):  # the process is gone, of which the task hears, too
            child.channel.send(Predict(images))
        with self._changed:
            self._changed.wait_for(lambda: task.outcome is not None)
        assert task.outcome is not None
        return task.outcome

    def _tell(self, outcome: WindowGeometry | InvalidWindow) -> None:
        """With the lock."""
        if self._task is not None:
            self._task.outcome = outcome
            self._changed.notify_all()

    # ---- the process; with the lock

    def _on_ready(self, child: Child) -> None:
        """Windows wait for that by themselves."""

    def _on_message(self, message: Predicted) -> None:
        self._tell(message.geometry or InvalidWindow(message.reason, message.words))

    def _on_lost(self, error: ModelError) -> None:
        self._tell(PredictorLost(str(error)))

    def _end(self, reason: str, error: Callable[[], ModelError]) -> None:
        self._unavailable = reason
        self._tell(PredictorLost(reason))
        self._changed.notify_all()


@dataclass(eq=False)
class _Task:
    """What became of a window of images."""

    outcome: WindowGeometry | InvalidWindow | None = None
