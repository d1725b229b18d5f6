"""The models of a live engine, loaded, each in a process of its own, and what asks them."""

from __future__ import annotations

from collections.abc import Callable

from spatial_mllm_ros.answering.model_backend import ModelBackend
from spatial_mllm_ros.nodes.model import ServedPredictor
from spatial_mllm_ros.nodes.parameters import Settings
from spatial_mllm_ros.nodes.readers import make_reader
from spatial_mllm_ros.serving.interface import SpatialModel


class LoadedModels:
    """What the settings name, or None: the model, the predictor of geometry from color, and the reader of questions.

    Raises ConfigurationError, and leaves nothing loaded.
    """

    def __init__(
        self,
        settings: Settings,
        load_model: Callable[[Settings], SpatialModel],
        load_geometry: Callable[[Settings], ServedPredictor],
    ) -> None:
        self.model: SpatialModel | None = None
        self.predictor = load_geometry(settings) if settings.rgb_geometry else None
        try:
            self.model = load_model(settings) if settings.model else None
            self.reader = make_reader(settings, self.model)
        except BaseException:
            self.close()
            raise
        self.backend = None if self.model is None else ModelBackend(self.model, settings.model_max_frames)

    def close(self) -> None:
        """End the processes. There is no way back."""
        for loaded in (self.predictor, self.model):
            if loaded is not None:
                loaded.close()
