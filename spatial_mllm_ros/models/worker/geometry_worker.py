"""The process of a geometry predictor: ``python -m spatial_mllm_ros.models.worker.geometry_worker <socket's descriptor>``.

The main thread loads the predictor and works through windows; another receives what the parent says.
"""

from __future__ import annotations

import importlib
import logging
import math
import queue
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spatial_mllm_ros.models.worker.geometry_predictor import load_exported_predictor, providers_on
from spatial_mllm_ros.models.worker.local import available_cpus
from spatial_mllm_ros.models.worker.parent import Watchdog, connect_to_parent, leave
from spatial_mllm_ros.scene.window import InvalidWindow
from spatial_mllm_ros.serving.geometry_process import GeometryOptions
from spatial_mllm_ros.serving.interface import GeometryPredictor, ModelUnavailable
from spatial_mllm_ros.serving.onnx_file import INSTALL, describe, is_export
from spatial_mllm_ros.serving.supervised import OnProgress
from spatial_mllm_ros.serving.wire import Channel, Predict, Predicted, Progress, Ready, Refused, Start

log = logging.getLogger(__name__)

_PARTS = re.compile(r"(.*\.)?(aggregator|camera_head|depth_head)\..*")
_ASPECT = 0.75
"""Height to width of images, before any is seen."""
_KEPT = {"float32": 1.2, "float16": 2.0, "int8": 1.3}
"""Bytes that ONNX Runtime holds on a CPU for a byte of an exported file's weights, by precision: measured."""
_WORKSPACE = 200 << 20
"""Of Python and ONNX Runtime."""
GIB = 1 << 30


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
    """VGGT as ``options`` name it: a checkpoint, for which torch is imported and its number of threads set, or a file of
    ``spatial-mllm export geometry``, for which it is not.

    Raises ModelUnavailable with the reason: no such checkpoint, names that do not match, not enough memory, no torch.
    """
    return _load_exported(options, progress) if is_export(options.model) else _load_checkpoint(options, progress)


def _load_checkpoint(options: GeometryOptions, progress: OnProgress) -> GeometryPredictor:
    progress("importing torch", 0, 0)
    try:
        import torch

        from spatial_mllm_ros.models.weights.precision import choose_device, choose_precision
        from spatial_mllm_ros.models.weights.preflight import free_memory
        from spatial_mllm_ros.models.worker.geometry_predictor import load_predictor as load
    except ImportError as error:
        raise ModelUnavailable(
            f"geometry from color needs torch and more ({error}): pip install 'spatial_mllm_ros[model]'; or an exported "
            f"file, which needs less: {INSTALL}"
        ) from error
    torch.set_num_threads(options.threads or max(1, available_cpus() - 1))
    device = choose_device(options.device)
    check_memory(options, str(device), needed_bytes(options), free_memory(device))
    reading = f"reading the weights of {Path(options.model).name}"
    return load(
        options.model,
        str(device),
        choose_precision(options.precision, device),
        options.width,
        lambda done, total: progress(reading, done, total),
    )


def _load_exported(options: GeometryOptions, progress: OnProgress) -> GeometryPredictor:
    description = describe(options.model)
    if options.precision not in ("auto", description.precision):
        raise ModelUnavailable(
            f"{options.model} is {description.precision}, not {options.precision}: leave the precision to the file (auto), "
            "or export another"
        )
    if description.random_weights:
        if not options.allow_random_weights:
            raise ModelUnavailable(
                "it was exported from weights that nobody trained, so what it says means nothing; allow_random_weights "
                "takes it all the same, to try things out"
            )
        log.warning("%s: the weights are random, and what they say is noise", options.model)
    providers = providers_on(options.device, options.providers)
    needed = needed_bytes(options)
    try:
        from spatial_mllm_ros.models.onnx.providers import choose, free_gpu_memory
        from spatial_mllm_ros.models.weights.main_memory import free_main_memory
    except ImportError as error:
        raise ModelUnavailable(f"an exported file needs onnxruntime and more ({error}): {INSTALL}") from error
    first = choose(providers)[0]
    check_memory(options, first, needed, free_main_memory() if first == "cpu" else free_gpu_memory())
    return load_exported_predictor(
        options.model,
        providers=providers,
        width=options.width,
        engine_folder=options.engine_folder,
        threads=options.threads or max(1, available_cpus() - 1),
        progress=lambda what, done, total: progress(what, 0, 0),  # steps are no bytes
    )


def check_memory(options: GeometryOptions, device: str, needed: int, free: int | None) -> None:
    """Raises ModelUnavailable where the bytes that are free do not do. free: None where that is not known."""
    if free is not None and needed > free:
        raise ModelUnavailable(
            f"there is not enough memory on {device}: {needed / GIB:.1f} GiB are needed for windows of "
            f"{options.window_size} images {options.width} px wide, and {free / GIB:.1f} GiB are free; choose smaller windows, "
            "narrower images or another device"
        )


def needed_bytes(options: GeometryOptions) -> int:
    """Bytes of memory that a predictor needs, from the headers of its checkpoint or from what an exported file says about
    itself: weights, and the maps of one window. Raises ModelUnavailable.
    """
    if is_export(options.model):
        return _needed_exported(options)
    from spatial_mllm_ros.models.weights.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(options.model)
    shapes = checkpoint.shapes()
    sizes = checkpoint.config.get("spatial_config") or checkpoint.config
    weights = 4 * sum(math.prod(shape) for name, shape in shapes.items() if _PARTS.fullmatch(name))
    # Weights are read in float32. The depth head takes up to eight images at once.
    return weights + max(_maps(options, sizes, min(options.window_size, 8)))


def _needed_exported(options: GeometryOptions) -> int:
    """The depth head takes one image at a time, while what the aggregator said is kept. When the camera head is loaded,
    ONNX Runtime holds most of its weights twice for a moment.
    """
    description = describe(options.model)
    sizes = description.config
    weights = int(_KEPT.get(description.precision, 2.0) * description.data_bytes)
    head = 12 * int(sizes["camera_trunk_depth"]) * (2 * description.embed_dim) ** 2 * 4
    return _WORKSPACE + weights + max(int(0.8 * head), sum(_maps(options, sizes, 1)))


def _maps(options: GeometryOptions, sizes: Mapping[str, Any], at_once: int) -> tuple[int, int]:
    """Bytes of the maps of one window in the aggregator and in the depth head, counted, not measured: per token of the
    aggregator about twenty times its width and what it says, and in the head, of so many images at once, for every pixel
    twice its features and half as many again.
    """
    pixels = int(_ASPECT * options.width**2)
    tokens = options.window_size * (pixels // int(sizes.get("patch_size") or 14) ** 2 + 5)
    aggregator = tokens * int(sizes.get("embed_dim") or 1024) * (20 + 8) * 4
    head = at_once * pixels * int(2.5 * int(sizes.get("dpt_features") or 256)) * 4
    return aggregator, head


def main() -> None:
    channel, start = connect_to_parent()
    GeometryWorker(channel).run(start)


if __name__ == "__main__":
    main()
