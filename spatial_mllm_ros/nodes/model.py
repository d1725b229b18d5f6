"""The model that the parameters name, loaded in a process of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from spatial_mllm_ros.models.hub import has_random_weights, resolve_model
from spatial_mllm_ros.models.interface import ModelOptions, ModelTimeout, ModelUnavailable, SpatialModel
from spatial_mllm_ros.models.process import ProcessModel
from spatial_mllm_ros.nodes.parameters import Settings

log = logging.getLogger(__name__)
LOOK_S = 0.2


class ConfigurationError(Exception):
    """Something that a parameter names cannot be had. ``str()`` says what and what to do."""


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
    )


def load_model(settings: Settings, interrupted: Callable[[], bool] = lambda: False) -> SpatialModel:
    """The model, loaded; the log tells how that goes. interrupted: asked now and then, true gives up.

    Raises ConfigurationError.
    """
    try:
        folder = resolve_model(settings.model)
    except ModelUnavailable as error:
        raise ConfigurationError(f"model: {error}") from error
    if has_random_weights(folder):
        if not settings.allow_random_weights:
            raise ConfigurationError(
                f"model: nobody trained {settings.model} (random_weights in its config.json), so what it says means "
                "nothing; allow_random_weights takes it all the same, to try things out"
            )
        log.warning("the model's weights are random: its answers are noise")
    model = ProcessModel(model_options(settings), queue=settings.model_queue, python=settings.model_python)
    log.info("loading the model %s", settings.model)
    try:
        model.start()
        _wait(model, time.monotonic() + settings.model_load_timeout_s, interrupted)
    except ModelUnavailable as error:
        model.close()
        raise ConfigurationError(f"model {settings.model!r} cannot be used: {error}") from error
    except BaseException:
        model.close()
        raise
    log.info("the model is loaded: %s", model.model_id)
    return model


def _wait(model: ProcessModel, deadline: float, interrupted: Callable[[], bool]) -> None:
    progress = _LoadingLog()
    while True:
        try:
            return model.wait_loaded(LOOK_S, progress)
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
