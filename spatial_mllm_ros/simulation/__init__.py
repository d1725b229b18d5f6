"""A recording of its own: furnished rooms, rendered with exact depth, poses and objects."""

from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.simulation.truth import demo_questions, make_questions

__all__ = ["RenderedSource", "demo_questions", "make_questions"]
