"""The process of a geometry predictor: ``python -m spatial_mllm_ros.models.geometry_worker <socket's descriptor>``.

The main thread loads the predictor and works through windows; another receives what the parent says.
"""

from __future__ import annotations

import importlib
import logging
import math
import queue
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatial_mllm_ros.models.geometry_predictor import GeometryPredictor
from spatial_mllm_ros.models.geometry_process import GeometryOptions
from spatial_mllm_ros.models.interface import ModelUnavailable
from spatial_mllm_ros.models.local import available_cpus
from spatial_mllm_ros.models.parent import Watchdog, leave, meet_parent
from spatial_mllm_ros.models.supervised import OnProgress
from spatial_mllm_ros.models.wire import Channel, Predict, Predicted, Progress, Ready, Refused, Start
from spatial_mllm_ros.scene.window import InvalidWindow

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_PARTS = re.compile(r"(.*\.)?(aggregator|camera_head|depth_head)\..*")
_ASPECT = 0.75
"""Height to width of images, before any is seen."""


class GeometryWorker:
    """Loads what its parent names and serves it until the parent closes the channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._windows: queue.SimpleQueue[Predict] = queue.SimpleQueue()

    def run(self, start: Start) -> None:
        threading.Thread(target=self._receive, name="receive", daemon=True).start()
        try:
            module, _, function = start.engine.partition(":")
            predictor = getattr(importlib.import_module(module), function)(start.options, self._on_progress)
        except Exception as error:
            if not isinstance(error, ModelUnavailable):
                log.exception("loading failed")
            reason = "" if isinstance(error, ModelUnavailable) else f"{type(error).__name__}: "
            self._send(Refused(f"{start.options.model} cannot be loaded: {reason}{error}"))
            return
        self._send(Ready(predictor.name))
        watchdog = Watchdog(start.stuck_s)
        while True:
            watchdog.on_work(False)
            window = self._windows.get()
            watchdog.on_work(True)
            self._send(predicted(predictor, window))

    def _on_progress(self, doing: str, done: int, total: int) -> None:
        self._send(Progress(doing, done, total))

    def _send(self, message: Any) -> None:
        try:
            self._channel.send(message)
        except OSError:
            leave()

    def _receive(self) -> None:
        """Until the parent is gone, and this process with it."""
        try:
            while True:
                self._windows.put(self._channel.receive())
        except (EOFError, OSError):
            leave()
        except Exception:
            log.exception("a message from the node could not be read")
            leave(1)


def predicted(predictor: GeometryPredictor, window: Predict) -> Predicted:
    """The geometry of a window, or why there is none."""
    try:
        return Predicted(predictor.predict(window.images))
    except InvalidWindow as error:
        return Predicted(None, error.reason, str(error))
    except Exception as error:
        log.exception("the geometry of a window of %d images could not be predicted", len(window.images))
        return Predicted(None, "predictor_failed", f"{type(error).__name__}: {error}")


def load_predictor(options: GeometryOptions, progress: OnProgress = lambda *_: None) -> GeometryPredictor:
    """VGGT as ``options`` name it. Imports torch, whose number of threads it sets.

    Raises ModelUnavailable with the reason: no such checkpoint, names that do not match, not enough memory, no torch.
    """
    progress("importing torch", 0, 0)
    try:
        import torch

        from spatial_mllm_ros.models.geometry_predictor import load_predictor as load
        from spatial_mllm_ros.models.precision import choose_device, choose_precision
    except ImportError as error:
        raise ModelUnavailable(
            f"geometry from colour needs torch and more ({error}): pip install 'spatial_mllm_ros[model]'"
        ) from error
    torch.set_num_threads(options.threads or max(1, available_cpus() - 1))
    device = choose_device(options.device)
    check_memory(options, device)
    progress(f"reading the weights of {Path(options.model).name}", 0, 0)
    return load(options.model, str(device), choose_precision(options.precision, device), options.width)


def check_memory(options: GeometryOptions, device: torch.device) -> None:
    """Raises ModelUnavailable where the memory that is free does not do."""
    from spatial_mllm_ros.models.preflight import GIB, free_memory

    needed, free = needed_bytes(options), free_memory(device)
    if needed > free:
        raise ModelUnavailable(
            f"there is not enough memory on {device}: {needed / GIB:.1f} GiB are needed for windows of "
            f"{options.window_size} images {options.width} px wide, and {free / GIB:.1f} GiB are free; choose smaller windows, "
            "narrower images or another device"
        )


def needed_bytes(options: GeometryOptions) -> int:
    """Bytes of memory that a predictor needs, from the headers of its checkpoint: weights, and the maps of one window.

    Weights are read in float32. The maps are counted, not measured: per token of the aggregator about twenty times its
    width, and the depth head's maps of up to eight images at once, for every pixel twice its features and half as many
    again. Raises CheckpointError.
    """
    from spatial_mllm_ros.models.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(options.model)
    shapes = checkpoint.shapes()
    sizes = checkpoint.config.get("spatial_config") or checkpoint.config
    weights = 4 * sum(math.prod(shape) for name, shape in shapes.items() if _PARTS.fullmatch(name))
    pixels = int(_ASPECT * options.width**2)
    tokens = options.window_size * (pixels // int(sizes.get("patch_size") or 14) ** 2 + 5)
    aggregator = tokens * int(sizes.get("embed_dim") or 1024) * (20 + 8) * 4
    head = min(options.window_size, 8) * pixels * int(2.5 * int(sizes.get("dpt_features") or 256)) * 4
    return weights + max(aggregator, head)


def main() -> None:
    channel, start = meet_parent()
    GeometryWorker(channel).run(start)


if __name__ == "__main__":
    main()
