"""The page of what can be asked: complete, and up to date."""

from __future__ import annotations

from pathlib import Path

from spatial_mllm_ros.answering.catalogue import ASKS, MEASURES, kinds, page
from spatial_mllm_ros.queries.asks import Ask, Value
from spatial_mllm_ros.queries.measures import Measure
from spatial_mllm_ros.queries.serialization import concrete


def test_everything_that_can_be_asked_has_an_example() -> None:
    assert {type(m) for m in MEASURES} == set(concrete(Measure))
    assert {type(a) for a in ASKS} == set(concrete(Ask)) - {Value}
    assert all(kind.example for kind in kinds())


def test_the_page_is_up_to_date() -> None:
    """It is made from the dataclasses: python -m spatial_mllm_ros.answering.catalogue docs/questions.md."""
    written = (Path(__file__).parents[1] / "docs" / "questions.md").read_text(encoding="utf-8")
    assert written == page()
