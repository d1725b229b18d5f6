"""The model, and the predictor of geometry from color, that the parameters name: each loaded in a process of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from spatial_mllm_ros.nodes.parameters import Settings
from spatial_mllm_ros.serving.checkpoints.hub import has_random_weights, resolve_model
from spatial_mllm_ros.serving.geometry_process import GeometryOptions, ProcessPredictor
from spatial_mllm_ros.serving.interface import (
    GeometryPredictor,
    ModelOptions,
    ModelStatus,
    ModelTimeout,
    ModelUnavailable,
    SpatialModel,
)
from spatial_mllm_ros.serving.onnx_file import is_export
from spatial_mllm_ros.serving.process import ProcessModel

log = logging.getLogger(__name__)
LOOK_S = 0.2


class ConfigurationError(Exception):
    """Something that a parameter names cannot be had. ``str()`` says what and what to do."""


class ServedPredictor(GeometryPredictor, Protocol):
    """A predictor of geometry from color that fares somehow, as geometry_process.ProcessPredictor."""

    def status(self) -> ModelStatus:
        """Never waits; ``failed`` for good when nothing more is to be expected of it."""

    def close(self) -> None:
        """End it; a window in progress is given up."""


def model_options(settings: Settings) -> ModelOptions:
    """How the parameters want the model loaded and run."""
    return ModelOptions(
        settings.model,
        settings.model_precision,
        settings.model_device,
        settings.model_attention,
        settings.model_min_pixels,
        settings.model_max_pixels,
        max_new_tokens=settings.model_max_new_tokens,
        cache_mib=settings.model_cache_mib,
        max_context_frames=settings.model_max_frames,
        threads=settings.model_threads,
        encoder_runtime=settings.model_encoder_runtime,
        encoder_file=settings.model_encoder_file,
        encoder_providers=settings.model_encoder_providers,
        encoder_engine_folder=settings.model_encoder_engine_folder,
    )


def load_model(settings: Settings, interrupted: Callable[[], bool] = lambda: False) -> SpatialModel:
    """The model, loaded; the log tells how that goes. interrupted: asked now and then, true gives up.

    Raises ConfigurationError.
    """
    _check_trained(settings, "model", settings.model)
    model = ProcessModel(model_options(settings), queue=settings.model_queue, python=settings.model_python)
    log.info("loading the model %s", settings.model)
    _load(model, settings, "model", interrupted)
    log.info("the model is loaded: %s", model.model_id)
    return model


def geometry_options(settings: Settings) -> GeometryOptions:
    """How the parameters want geometry from color predicted."""
    return GeometryOptions(
        settings.rgb_geometry,
        settings.rgb_geometry_precision,
        settings.rgb_geometry_device,
        settings.rgb_geometry_width_px,
        settings.rgb_geometry_window_size,
        settings.model_threads,
        settings.rgb_geometry_providers,
        settings.rgb_geometry_engine_folder,
        settings.allow_random_weights,
    )


def load_geometry(settings: Settings, interrupted: Callable[[], bool] = lambda: False) -> ServedPredictor:
    """The predictor of geometry from color, loaded; see ``load_model``."""
    if not is_export(settings.rgb_geometry):  # which its process reads, where the libraries for it are
        _check_trained(settings, "rgb_geometry", settings.rgb_geometry)
    predictor = ProcessPredictor(geometry_options(settings), python=settings.model_python)
    log.info("loading the geometry from color %s", settings.rgb_geometry)
    _load(predictor, settings, "rgb_geometry", interrupted)
    log.info("the geometry from color is loaded: %s", predictor.name)
    return predictor


def _check_trained(settings: Settings, parameter: str, model: str) -> None:
    """ConfigurationError for a checkpoint that is not there, or that nobody trained."""
    try:
        random = has_random_weights(resolve_model(model))
    except ModelUnavailable as error:
        raise ConfigurationError(f"{parameter}: {error}") from error
    if random and not settings.allow_random_weights:
        raise ConfigurationError(
            f"{parameter}: nobody trained {model} (random_weights in its config.json), so what it says means nothing; "
            "allow_random_weights takes it all the same, to try things out"
        )
    if random:
        log.warning("%s: the weights are random, and what they say is noise", parameter)


def _load(
    loads: ProcessModel | ProcessPredictor, settings: Settings, parameter: str, interrupted: Callable[[], bool]
) -> None:
    try:
        loads.start()
        _wait(loads, time.monotonic() + settings.model_load_timeout_s, interrupted)
    except ModelUnavailable as error:
        loads.close()
        raise ConfigurationError(f"{parameter}: {error}") from error
    except BaseException:
        loads.close()
        raise


def _wait(loads: ProcessModel | ProcessPredictor, deadline: float, interrupted: Callable[[], bool]) -> None:
    progress = _LoadingLog()
    while True:
        try:
            return loads.wait_loaded(LOOK_S, progress)
        except ModelTimeout as error:
            if interrupted():
                raise ModelUnavailable("loading was interrupted") from None
            if time.monotonic() > deadline:
                raise ModelUnavailable(f"{error}; model_load_timeout_s allows more") from None


class _LoadingLog:
    """Logs what loading does, and every ten percent of it."""

    def __init__(self) -> None:
        self._doing = ""
        self._next = 0.0

    def __call__(self, doing: str, done: int, total: int) -> None:
        if doing != self._doing:
            self._doing, self._next = doing, 0.1
            log.info("%s", doing)
        elif total and self._next <= done / total < 1:
            log.info("%s: %.0f %% of %.1f GiB", doing, 100 * done / total, total / 2**30)
            self._next = done / total + 0.1
