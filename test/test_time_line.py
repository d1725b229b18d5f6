"""Which stamps are of the time that goes on: slips of a driver among good images, and times that begin anew."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_ros.nodes.inbox import Kind, Stream
from spatial_mllm_ros.nodes.time_line import TimeLine

SECOND = 1_000_000_000
START_NS = 1_700_000_000 * SECOND
STEP_NS = SECOND // 10


def stream(kind: Kind) -> Stream:
    return Stream(kind, kind.value, "", "auto", 1, "", 30, "camera")


COLOR, DEPTH = stream(Kind.COLOR), stream(Kind.DEPTH)


class Taken:
    """A time line, and what it has given out and refused."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self.stamps: list[int] = []
        self.went_back = 0
        self.line = TimeLine(5 * SECOND, lambda _, reason, __: self.refused.update([reason]), lambda: 0.0)

    def image(self, stamp_ns: int, depth: bool = True) -> None:
        for kind in (COLOR, DEPTH)[: 1 + depth]:
            self.stamps += self.line.take(kind, stamp_ns, stamp_ns)
            self.went_back += self.line.back_to is not None


@given(
    st.dictionaries(st.integers(3, 56).map(lambda i: i - i % 3), st.integers(-(2**62), 2**62)),
    st.booleans(),
)
def test_single_wrong_stamps_lose_no_other_image_and_set_no_clock(wrong: dict[int, int], depth: bool) -> None:
    """Whatever they are, and with the depth image of the same moment or without."""
    taken = Taken()
    right = []
    for index in range(60):
        stamp = START_NS + index * STEP_NS
        if index in wrong:
            taken.image(wrong[index], depth)
        else:
            right.append(stamp)
            taken.image(stamp, depth)
    outliers = {stamp for stamp in wrong.values() if abs(stamp - START_NS) > 20 * SECOND}
    assert taken.went_back == 0
    assert [s for s in taken.stamps if s not in wrong.values()] == [s for s in right for _ in range(1 + depth)]
    assert not outliers & set(taken.stamps)
    assert sum(taken.refused.values()) >= len(outliers)


@given(st.integers(6 * SECOND, 2**60), st.integers(3, 30), st.booleans())
def test_a_time_that_begins_anew_loses_no_image(back_ns: int, count: int, depth: bool) -> None:
    taken = Taken()
    for index in range(10):
        taken.image(START_NS + index * STEP_NS, depth)
    needed = 3 if depth else 10
    anew = [START_NS - back_ns + index * STEP_NS for index in range(count)]
    if anew[0] <= 0:
        return
    for stamp in anew:
        taken.image(stamp, depth)
    if count >= needed:
        assert taken.went_back == 1
        assert taken.stamps[10 * (1 + depth) :] == [s for s in anew for _ in range(1 + depth)]
    else:
        assert taken.went_back == 0
    assert not taken.refused


def test_a_clock_that_was_set_back_needs_one_image() -> None:
    taken = Taken()
    for index in range(30):
        taken.image(START_NS + index * STEP_NS)
    taken.line.clock_set_back(START_NS + STEP_NS)
    taken.image(START_NS)
    assert taken.went_back == 1
    assert taken.stamps[-2:] == [START_NS] * 2


def test_calibrations_bear_witness() -> None:
    """A camera without depth, whose CameraInfo starts over with its images."""
    taken, info = Taken(), stream(Kind.CAMERA_INFO)
    for start in (START_NS, START_NS - 1000 * SECOND):
        for index in range(4):
            taken.line.fits(info, start + index * STEP_NS)
            taken.image(start + index * STEP_NS, depth=False)
    assert taken.went_back == 1
    assert len(taken.stamps) == 8
