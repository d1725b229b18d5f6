"""Scores as a picture: bars by type, one color for each answerer."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from spatial_mllm_ros.learning.evaluation.run import Outcome

COLORS = ("#9aa0a6", "#c98b2b", "#2f6fb0", "#3f8f5f")
ROW, BAR, LEFT, WIDE = 22, 9, 330, 420


def scores_svg(title: str, outcomes: Sequence[Outcome], variant: str) -> str:
    """An SVG image of the figures of one variant, in percent."""
    rows = list(outcomes[0].figures[variant])
    step = max(ROW, BAR * len(outcomes) + 8)
    height = 50 + step * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDE + 60} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/><text x="10" y="20" font-weight="bold">'
        f"{escape(title)}: {escape(variant)}, percent</text>"
    ]
    for k, outcome in enumerate(outcomes):
        x = LEFT + 110 * k
        parts.append(
            f'<rect x="{x}" y="11" width="10" height="10" fill="{COLORS[k % len(COLORS)]}"/>'
            f'<text x="{x + 15}" y="20">{escape(outcome.answerer)}</text>'
        )
    for number, row in enumerate(rows):
        top = 38 + step * number
        parts.append(f'<text x="{LEFT - 8}" y="{top + step / 2}" text-anchor="end">{escape(row)}</text>')
        for k, outcome in enumerate(outcomes):
            value = outcome.figures[variant].get(row, 0.0)
            y = top + BAR * k
            parts.append(
                f'<rect x="{LEFT}" y="{y}" width="{WIDE * value / 100:.1f}" height="{BAR - 1}" '
                f'fill="{COLORS[k % len(COLORS)]}"/>'
                f'<text x="{LEFT + WIDE * value / 100 + 4:.1f}" y="{y + BAR - 1}" font-size="9">{value:.1f}</text>'
            )
    return "".join([*parts, "</svg>\n"])
