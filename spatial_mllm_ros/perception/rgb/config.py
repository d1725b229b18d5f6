"""How color becomes geometry."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from spatial_mllm_ros.perception.rgb.window_chain import ChainConfig
from spatial_mllm_ros.scene.metric_scale import ScaleConfig


@dataclass(frozen=True)
class RgbGeometryConfig:
    """How color becomes geometry.

    window_size: images that the predictor sees at once. overlap: of these, shared with the window before.
    min_translation_m, min_rotation_rad: an image joins once the camera has moved or turned so much since the last one
    (where poses are known; else once the image has changed), or when it comes with depth after a while without.
    min_interval_s: and no sooner than this. max_wait_s: an image waits no longer than this for its window to fill.
    max_load: share of the time that the predictor may run; 1: no limit, and every image has its turn. max_waiting: images
    waiting. max_failures: windows in a row whose images do not fit, after which the chain breaks. max_held: images kept back
    until their metres are known, or until they are found to show what was seen before a break. min_confidence: depth less
    sure than this, relative to the median of its image, is no data. dense_depth: from this share of valid pixels on,
    measured depth is kept instead.
    """

    window_size: int = 8
    overlap: int = 3
    min_translation_m: float = 0.05
    min_rotation_rad: float = 0.09
    min_interval_s: float = 0.1
    max_wait_s: float = 2.0
    max_load: float = 0.5
    max_waiting: int = 64
    max_failures: int = 3
    max_held: int = 64
    min_confidence: float = 0.2
    dense_depth: float = 0.2
    chain: ChainConfig = field(default_factory=ChainConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)

    def __post_init__(self) -> None:
        if not 1 <= self.overlap < self.window_size:
            raise ValueError(f"overlap must be between 1 and window_size - 1, not {self.overlap} of {self.window_size}")
        if not 0 < self.max_load <= 1:
            raise ValueError(f"max_load must be above 0 and at most 1, not {self.max_load}")
        if self.max_waiting < 2 * self.window_size or self.max_failures < 1 or self.max_held < 1:
            raise ValueError("max_waiting must be at least twice window_size, max_failures and max_held at least 1")
        if not 0 <= self.min_confidence < 1 or not 0 < self.dense_depth <= 1:
            raise ValueError("min_confidence must be at least 0 and below 1, dense_depth above 0 and at most 1")

    @classmethod
    def for_recordings(cls, **changes: object) -> RgbGeometryConfig:
        """Every image takes part and none is dropped, however long that takes."""
        return replace(
            cls(min_translation_m=0.0, min_rotation_rad=0.0, min_interval_s=0.0, max_wait_s=1e9, max_load=1.0),
            **changes,  # type: ignore[arg-type]
        )
