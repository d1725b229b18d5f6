"""What becomes of frames: every sink gets all of them, and one that is slow or fails costs nobody else any."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from small_recording import SmallSource

from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.memory.stored import StoredFrame
from spatial_mllm_ros.session.sinks import Sinks, all_sinks


class Slow:
    """A sink that waits to be let go on."""

    name = "slow"

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.go = threading.Event()
        self.busy = threading.Event()

    def take(self, memory: SpatialMemory, stored: StoredFrame) -> None:
        self.busy.set()
        assert self.go.wait(10.0)
        self.seen.append(stored.frame_id)


class Quick:
    name = "quick"

    def __init__(self) -> None:
        self.seen: list[int] = []

    def take(self, memory: SpatialMemory, stored: StoredFrame) -> None:
        self.seen.append(stored.frame_id)


class Broken:
    name = "broken"

    def take(self, memory: SpatialMemory, stored: StoredFrame) -> None:
        raise ValueError("this sink never works")


@pytest.fixture
def stopping() -> Iterator[list[Sinks]]:
    made: list[Sinks] = []
    yield made
    for sinks in made:
        sinks.stop()


def show(sinks: Sinks, count: int) -> SpatialMemory:
    memory = SpatialMemory(on_taken=sinks.give)
    for frame in SmallSource(count).frames():
        assert memory.add(frame) is not None
    return memory


def test_a_slow_sink_loses_frames_of_its_own_and_counts_them(stopping: list[Sinks]) -> None:
    slow, quick = Slow(), Quick()
    sinks = Sinks([slow, quick], queue=4)
    stopping.append(sinks)
    sinks.start()
    frames = list(SmallSource(10).frames())
    memory = SpatialMemory(on_taken=sinks.give)
    memory.add(frames[0])
    assert slow.busy.wait(10.0)
    for frame in frames[1:]:
        memory.add(frame)
    assert len(memory) == 10, "the memory does not wait"
    slow.go.set()
    assert sinks.settle(10.0)
    assert quick.seen == list(range(10))
    assert slow.seen == [0, 6, 7, 8, 9], "the oldest that wait go first"
    told = {status.name: status for status in sinks.status()}
    assert (told["slow"].taken, told["slow"].dropped, told["slow"].waiting) == (5, 5, 0)
    assert (told["quick"].taken, told["quick"].dropped) == (10, 0)
    assert told["slow"].mean_s >= 0


def test_a_sink_that_fails_is_counted_and_the_others_go_on(
    stopping: list[Sinks], caplog: pytest.LogCaptureFixture
) -> None:
    quick = Quick()
    sinks = Sinks([Broken(), quick])
    stopping.append(sinks)
    sinks.start()
    show(sinks, 5)
    assert sinks.settle(10.0)
    assert quick.seen == list(range(5))
    assert sinks.status()[0].failed == 5
    assert caplog.text.count("broken failed on the frame") == 1


def test_in_a_session_each_frame_is_done_before_the_next_and_a_fault_is_raised() -> None:
    quick = Quick()
    show(Sinks([quick]), 5)
    assert quick.seen == list(range(5))
    with pytest.raises(ValueError, match="never works"):
        show(Sinks([Broken()]), 1)


def test_stopping_takes_what_waits_and_starting_again_goes_on(stopping: list[Sinks]) -> None:
    quick = Quick()
    sinks = Sinks([quick])
    stopping.append(sinks)
    for _ in range(3):
        sinks.start()
        show(sinks, 4)
        sinks.stop(10.0)
    assert quick.seen == list(range(4)) * 3


def test_the_selector_of_a_memory_comes_to_the_same_either_way(stopping: list[Sinks]) -> None:
    threaded, at_once = Sinks(all_sinks()), Sinks(all_sinks())
    stopping.append(threaded)
    threaded.start()
    live, recorded = show(threaded, 12), show(at_once, 12)
    assert threaded.settle(10.0)
    assert live.candidates == recorded.candidates == tuple(range(12))
    assert live.keyframes(4) == recorded.keyframes(4)
