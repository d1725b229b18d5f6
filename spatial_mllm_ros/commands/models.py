"""What the commands that use a model share."""

from __future__ import annotations

from spatial_mllm_ros.commands import common


def gigabytes(count: int) -> str:
    """Bytes as people write them, from kilobytes to gigabytes."""
    if count >= 1_000_000_000:
        return f"{count / 1e9:.1f} GB"
    return common.megabytes(count) if count >= 100_000 else f"{count / 1e3:.0f} kB"
