"""Sizes of a VGGT. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

HEADS = ("camera", "depth", "point", "track")
NUM_REGISTERS = 4  # beside the camera token, and in DINOv2 beside the class token; every published VGGT has four
PATCH_START = 1 + NUM_REGISTERS  # index of a frame's first patch token in the aggregator's outputs


@dataclass(frozen=True)
class TrackerSizes:
    """Sizes of the tracking head, which no config file names: those of VGGT-1B, or read from a checkpoint's tensors.

    features: channels of its feature maps. out_channels: of its four pyramid levels. hidden: width of its transformer.
    mlp: width inside the transformer's MLPs. correlation: correlation values a point and frame (levels x window area).
    time_depth, space_depth: blocks along the frames and across the points. virtual_tracks: tokens that points exchange
    information through. confidence: whether it predicts a confidence beside the visibility.
    """

    features: int = 128
    out_channels: tuple[int, ...] = (256, 512, 1024, 1024)
    hidden: int = 384
    mlp: int = 1536
    correlation: int = 567
    time_depth: int = 6
    space_depth: int = 6
    virtual_tracks: int = 64
    confidence: bool = True

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]], prefix: str = "track_head.") -> TrackerSizes:
        """Read the sizes from the shapes of a checkpoint's tensors, by name; the default for what is not there."""
        own = {name.removeprefix(prefix): tuple(shape) for name, shape in shapes.items() if name.startswith(prefix)}
        default = cls()

        def size(name: str, axis: int, otherwise: int) -> int:
            shape = own.get(name, ())
            return shape[axis] if axis < len(shape) else otherwise

        def count(group: str) -> int:
            return len({name[len(group) :].split(".", 1)[0] for name in own if name.startswith(group)})

        former = "tracker.updateformer."
        return cls(
            features=size("tracker.fmap_norm.weight", 0, default.features),
            out_channels=tuple(
                size(f"feature_extractor.projects.{i}.weight", 0, c) for i, c in enumerate(default.out_channels)
            ),
            hidden=size(f"{former}input_transform.weight", 0, default.hidden),
            mlp=size(f"{former}time_blocks.0.mlp.fc1.weight", 0, default.mlp),
            correlation=size("tracker.corr_mlp.fc1.weight", 1, default.correlation),
            time_depth=count(f"{former}time_blocks.") or default.time_depth,
            space_depth=count(f"{former}space_virtual_blocks.") if own else default.space_depth,
            virtual_tracks=size(f"{former}virual_tracks", 1, default.virtual_tracks),
            confidence="tracker.conf_predictor.0.weight" in own if own else default.confidence,
        )


@dataclass(frozen=True)
class VGGTConfig:
    """Sizes of a VGGT, named as in the ``spatial_config`` of a checkpoint; the defaults are those of VGGT-1B.

    img_size: side in pixels of the square images whose patches the position embedding has entries for (it is
    interpolated for other images). patch_size: pixels. embed_dim: width of the aggregator and of the DINOv2 inside.
    depth, num_heads: alternating-attention blocks of each kind (frame, global) and their heads. patch_embed_depth,
    patch_embed_num_heads: DINOv2. camera_trunk_depth, camera_num_heads: camera head. dpt_features, dpt_out_channels,
    dpt_layers: depth and point heads, the last being the aggregator's outputs that they read. track_head: whether the
    checkpoint has a tracking head. tracker: its sizes.

    Raises ValueError, which names the key, for sizes of which no VGGT can be built.
    """

    img_size: int = 518
    patch_size: int = 14
    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    patch_embed_depth: int = 24
    patch_embed_num_heads: int = 16
    camera_trunk_depth: int = 4
    camera_num_heads: int = 16
    dpt_features: int = 256
    dpt_out_channels: tuple[int, ...] = (256, 512, 1024, 1024)
    dpt_layers: tuple[int, ...] = (4, 11, 17, 23)
    track_head: bool = True
    tracker: TrackerSizes = field(default_factory=TrackerSizes)

    def __post_init__(self) -> None:
        for name in _SIZES:
            _check(name, getattr(self, name), _is_size(getattr(self, name)), "must be a whole number of at least 1")
        _check("track_head", self.track_head, isinstance(self.track_head, bool), "must be true or false")
        _check("img_size", self.img_size, self.img_size >= self.patch_size, f"is less than a patch ({self.patch_size})")
        for name in ("dpt_out_channels", "dpt_layers"):
            value = getattr(self, name)
            fit = isinstance(value, tuple) and len(value) == 4 and all(type(item) is int for item in value)
            _check(name, value, fit, "must be a list of four whole numbers")
        for heads, width in (
            ("num_heads", self.embed_dim),
            ("patch_embed_num_heads", self.embed_dim),
            ("camera_num_heads", 2 * self.embed_dim),
        ):
            value = getattr(self, heads)
            _check(heads, value, width % value == 0, f"does not divide the width {width} that its heads share")
        head_dim = self.embed_dim // self.num_heads
        _check("num_heads", self.num_heads, head_dim % 4 == 0, f"leaves {head_dim} a head, not a multiple of 4 (RoPE)")
        fit = all(channels > 0 and channels % 4 == 0 for channels in self.dpt_out_channels)
        _check("dpt_out_channels", self.dpt_out_channels, fit, "must be positive multiples of 4")
        _check("dpt_features", self.dpt_features, self.dpt_features % 8 == 0, "must be a multiple of 8")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VGGTConfig:
        """Take the keys known here from a ``spatial_config``; a key that is absent or null has the size of VGGT-1B.

        Other keys (``model_type``, those of transformers) are ignored, as the published classes ignore them.
        Raises ValueError for a bad value.
        """
        given = {name: values[name] for name in (*_SIZES, "track_head") if values.get(name) is not None}
        for name in ("dpt_out_channels", "dpt_layers"):
            value = values.get(name)
            if value is not None:
                given[name] = tuple(value) if isinstance(value, (list, tuple)) else value
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """The ``spatial_config`` of this VGGT, as JSON types; ``from_dict`` reads it."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "tracker"}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    def with_tracker_of(self, shapes: Mapping[str, Sequence[int]], prefix: str = "track_head.") -> VGGTConfig:
        """The same VGGT with the tracking head that a checkpoint's tensors, given by name and shape, belong to."""
        return replace(self, tracker=TrackerSizes.from_shapes(shapes, prefix))


_SIZES = tuple(f.name for f in fields(VGGTConfig) if f.type == "int")


def _is_size(value: object) -> bool:
    return type(value) is int and value >= 1


def _check(name: str, value: object, fit: bool, reason: str) -> None:
    if not fit:
        raise ValueError(f"spatial_config: {name} = {value!r} {reason}")
