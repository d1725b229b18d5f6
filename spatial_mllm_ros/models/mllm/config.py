"""The configuration of Spatial-MLLM: that of Qwen2.5-VL, with a spatial encoder and a connector."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, Qwen2_5_VLConfig

V1_0_ARCHITECTURE = "Qwen2_5_VL_VGGTForConditionalGeneration"
"""How a v1.0 checkpoint calls itself; its ``model_type`` is that of plain Qwen2.5-VL."""

MERGE_ORDERS = ("space_channel_time", "time_space_channel")
"""Order in which a block of patches is flattened: v1.1's (time innermost) and v1.0's (channel innermost)."""

HEADS = ("camera", "depth", "point", "track")
"""VGGT's heads; answering needs none of them."""

_SPATIAL_DEFAULTS = {"model_type": "vggt_spatial_encoder", "img_size": 518, "patch_size": 14, "embed_dim": 1024}
_V1_1_CONNECTOR = {"connector_type": "mlp_add", "spatial_embeds_layer_idx": -1}
_V1_0_CONNECTOR = {"connector_type": "token_merge", "spatial_embeds_layer_idx": -1}
_DEFAULT_ORDERS = {"mlp_add": MERGE_ORDERS[0], "token_merge": MERGE_ORDERS[1]}


class SpatialMLLMConfig(Qwen2_5_VLConfig):
    """Configuration of a Spatial-MLLM, read from the flat ``config.json`` of transformers 4.51 or a nested one.

    spatial_config: sizes of VGGT; absent keys have the full-size value. ``heads``, if present, names the heads whose
    tensors the checkpoint holds. connector_config: ``connector_type`` ("mlp_add" of v1.1, "token_merge" of v1.0),
    ``spatial_embeds_layer_idx`` (which output of the aggregator is used), and ``merge_order``, one of MERGE_ORDERS, which
    follows from the type when absent. random_weights: nobody trained these weights.
    Raises ValueError for a connector that is not known.
    """

    model_type = "spatial-mllm"

    spatial_config: dict[str, Any] | None = None
    connector_config: dict[str, Any] | None = None
    random_weights: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.spatial_config = _SPATIAL_DEFAULTS | dict(self.spatial_config or {})
        is_v1_0 = V1_0_ARCHITECTURE in (getattr(self, "architectures", None) or ())
        self.connector_config = (_V1_0_CONNECTOR if is_v1_0 else _V1_1_CONNECTOR) | dict(self.connector_config or {})
        if self.connector_config["connector_type"] not in _DEFAULT_ORDERS:
            raise ValueError(
                f"connector_type {self.connector_config['connector_type']!r} is not known: it is one of "
                f"{', '.join(_DEFAULT_ORDERS)}"
            )
        if self.merge_order not in MERGE_ORDERS:
            raise ValueError(f"merge_order {self.merge_order!r} is not known: it is one of {', '.join(MERGE_ORDERS)}")

    @property
    def connector_type(self) -> str:
        """The connector: "mlp_add" (v1.1) or "token_merge" (v1.0)."""
        return str((self.connector_config or {})["connector_type"])

    @property
    def merge_order(self) -> str:
        """Order in which the connector flattens a block of patches, one of MERGE_ORDERS."""
        config = self.connector_config or {}
        return str(config.get("merge_order", _DEFAULT_ORDERS[config["connector_type"]]))

    @property
    def spatial_layer(self) -> int:
        """Which output of VGGT's aggregator the connector takes; negative counts from the last."""
        return int((self.connector_config or {})["spatial_embeds_layer_idx"])

    @property
    def heads(self) -> tuple[str, ...]:
        """VGGT's heads whose tensors the checkpoint holds."""
        spatial = self.spatial_config or {}
        listed = spatial.get("heads")
        if listed is not None:
            return tuple(listed)
        return HEADS if spatial.get("track_head", True) else HEADS[:3]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> SpatialMLLMConfig:
        """Read ``config.json`` of a checkpoint: a folder, or an id on the hub.

        A v1.0 checkpoint (which says ``qwen2_5_vl``) is recognised by its architecture. Fields may be overridden by name.
        """
        values, rest = cls.get_config_dict(pretrained_model_name_or_path, **kwargs)
        if V1_0_ARCHITECTURE in (values.get("architectures") or ()):
            values = {**values, "model_type": cls.model_type}
        own = {name: rest.pop(name) for name in ("spatial_config", "connector_config") if name in rest}
        config = cls.from_dict({**values, **own}, **rest)
        return config[0] if isinstance(config, tuple) else config

    def published_dict(self) -> dict[str, Any]:
        """The same as the flat dictionary that transformers 4.51 writes and reads, for ``config.json``."""
        nested = self.to_diff_dict()
        text, vision = nested.pop("text_config"), nested.pop("vision_config")
        rope = dict(text.pop("rope_parameters"))
        theta = rope.pop("rope_theta")
        rope["type"] = rope["rope_type"]
        for unknown in ("layer_types", "model_type", "dtype"):
            text.pop(unknown, None)
        for unknown in ("rope_parameters", "dtype"):
            vision.pop(unknown, None)
        vision["model_type"] = "qwen2_5_vl"
        dtype = nested.pop("dtype", None)
        flat = {**text, **nested, "rope_theta": theta, "rope_scaling": rope, "vision_config": vision}
        if dtype is not None:
            flat["torch_dtype"] = str(dtype).removeprefix("torch.")
        if not self.random_weights:
            flat.pop("random_weights", None)
        return {key: flat[key] for key in sorted(flat) if flat[key] is not None}


AutoConfig.register(SpatialMLLMConfig.model_type, SpatialMLLMConfig)
