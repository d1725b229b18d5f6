"""Messages to and from what they mean, over the encoding that ROS 2 uses on the wire."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_messages import INTERFACES, MAKE, over_the_wire
from small_recording import SmallSource

from spatial_mllm_ros.memory.keyframes.coverage import Selection
from spatial_mllm_ros.memory.stored import StoredFrame
from spatial_mllm_ros.nodes import convert
from spatial_mllm_ros.nodes.batch import BatchAnswer
from spatial_mllm_ros.nodes.diagnosis import Finding, Level
from spatial_mllm_ros.nodes.inbox import Kind
from spatial_mllm_ros.nodes.keyframes import KeyframeSet
from spatial_mllm_ros.nodes.parameters import PARAMETERS
from spatial_mllm_ros.queries.answer import Answer, Evidence, ImageBox, ImagePoint, Pixel, PoseStamped, Request
from spatial_mllm_ros.queries.asks import Value
from spatial_mllm_ros.queries.codes import AnswerSource, AnswerType, ErrorCode, EvidenceKind, QueryError, ScaleSource
from spatial_mllm_ros.queries.measures import Depth
from spatial_mllm_ros.queries.operands import Point
from spatial_mllm_ros.queries.query import Query
from spatial_mllm_ros.scene.images import EncodedImage
from spatial_mllm_ros.scene.pose import Transform
from spatial_mllm_ros.scene.rigid import matrix
from spatial_mllm_ros.sources import messages
from spatial_mllm_ros.sources.writers import encoded_color

STAMPS = st.integers(0, 2**31 * 10**9 - 1)
# NUL ends a string of DDS.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
FRAMES = TEXTS.map(lambda text: text.lstrip("/"))
NUMBERS = st.floats(allow_nan=False)
POINTS = st.builds(ImagePoint, STAMPS, FRAMES, NUMBERS, NUMBERS)
BOXES = st.builds(ImageBox, STAMPS, FRAMES, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
REQUESTS = st.builds(
    Request,
    question=TEXTS,
    choices=st.lists(TEXTS, max_size=3).map(tuple),
    window_start=STAMPS,
    window_end=STAMPS,
    frame_id=FRAMES,
    points=st.lists(POINTS, max_size=3).map(tuple),
    boxes=st.lists(BOXES, max_size=3).map(tuple),
    times=st.lists(STAMPS, max_size=3).map(tuple),
    max_keyframes=st.integers(0, 65535),
    timeout=STAMPS,
)
TRIPLES = st.tuples(NUMBERS, NUMBERS, NUMBERS)
POSES = st.builds(PoseStamped, STAMPS, TEXTS, TRIPLES, st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS))
EVIDENCE = st.builds(
    Evidence,
    st.sampled_from(EvidenceKind),
    st.integers(0, 2**64 - 1),
    STAMPS,
    TEXTS,
    POSES,
    TEXTS,
    *[NUMBERS] * 6,
)
ANSWERS = st.builds(
    Answer,
    error_code=st.sampled_from(ErrorCode),
    error_msg=TEXTS,
    answer=TEXTS,
    answer_type=st.sampled_from(AnswerType),
    value=NUMBERS,
    stddev=NUMBERS,
    unit=st.sampled_from(["", "m", "m2"]),
    pose=POSES,
    pixel=st.builds(Pixel, NUMBERS, NUMBERS),
    choice_index=st.integers(-1, 2**31 - 1),
    confidence=st.floats(0, 1, width=32),
    confidence_method=TEXTS,
    source=st.sampled_from(AnswerSource),
    scale_source=st.sampled_from(ScaleSource),
    evidence=st.lists(EVIDENCE, max_size=3).map(tuple),
    **dict.fromkeys(
        ("first_stamp", "last_stamp", "time_queued", "time_selecting", "time_encoding", "time_generating"), STAMPS
    ),
    model_id=TEXTS,
)


@settings(deadline=None)
@given(REQUESTS)
def test_requests_survive_the_wire(request: Request) -> None:
    message = over_the_wire(convert.request_message(request, MAKE))
    assert convert.request_of(message) == request


@settings(deadline=None)
@given(ANSWERS)
def test_answers_survive_the_wire(answer: Answer) -> None:
    assert convert.answer_of(over_the_wire(convert.response_message(answer, MAKE))) == answer


def test_every_field_of_the_interface_is_filled() -> None:
    """A field that is added to the .srv must be thought of here, too."""
    for kind, name in ((Request, convert.REQUEST), (Answer, convert.RESPONSE)):
        fields = {f.name for f in dataclasses.fields(INTERFACES.message_class(name)) if f.name == f.name.lower()}
        assert fields - {"__msgtype__"} == {f.name for f in dataclasses.fields(kind)}


def test_an_answer_without_numbers_holds_nan() -> None:
    message = over_the_wire(convert.response_message(Answer(), MAKE))
    assert math.isnan(message.value)
    assert math.isnan(message.pixel.u)
    assert math.isnan(message.pose.pose.position.x)


def test_text_that_no_message_can_hold_is_cleaned() -> None:
    """An answer quotes the question, and a question may hold half a surrogate pair."""
    message = over_the_wire(convert.response_message(Answer(answer="a\0b\ud800c"), MAKE))
    assert message.answer == "ab?c"


def test_codes_of_a_newer_node_are_not_fatal() -> None:
    """A client may be older than the node."""
    message = convert.response_message(Answer(), MAKE)
    message.error_code, message.answer_type, message.source = 1199, 99, 99
    answer = convert.answer_of(message)
    assert (answer.error_code, answer.answer_type, answer.source) == (
        ErrorCode.UNKNOWN,
        AnswerType.TEXT,
        AnswerSource.NONE,
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"question": "x" * 20_000}, "question has 20000 characters"),
        ({"choices": ["a"] * 2000}, "choices holds 2000 items"),
        ({"times": [None] * 1001}, "times holds 1001 items"),
    ],
)
def test_requests_of_absurd_size_are_refused(change: dict, fault: str) -> None:
    """The wire allows strings and arrays of gigabytes; looking at them is not worth anybody's time."""
    message = convert.request_message(Request("?"), MAKE)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(QueryError, match=fault) as caught:
        convert.request_of(message)
    assert caught.value.code is ErrorCode.INVALID_REQUEST


def test_a_stamp_with_too_many_nanoseconds_is_refused() -> None:
    message = convert.request_message(Request("?", points=(ImagePoint(1, "c", 2.0, 3.0),)), MAKE)
    message.points[0].header.stamp.nanosec = 4_000_000_000
    with pytest.raises(QueryError, match=r"points\[0\].header.stamp has 4000000000 nanoseconds"):
        convert.request_of(message)


def test_numbers_that_are_none_reach_the_engine() -> None:
    """Which refuses them with the name that the question uses."""
    request = Request("?", points=(ImagePoint(1, "c", math.nan, math.inf),))
    point = convert.request_of(over_the_wire(convert.request_message(request, MAKE))).points[0]
    assert math.isnan(point.u)
    assert math.isinf(point.v)


def test_ros_1_frame_names_lose_their_slash() -> None:
    request = Request("?", frame_id="/map", points=(ImagePoint(1, "/camera", 1.0, 1.0),))
    read = convert.request_of(convert.request_message(request, MAKE))
    assert (read.frame_id, read.points[0].camera_frame) == ("map", "camera")


def test_frames_survive_the_wire() -> None:
    """What a camera publishes is what the readers of recordings understand."""
    frame = next(iter(SmallSource(1).frames()))
    sent = {kind: over_the_wire(message) for kind, message in convert.camera_messages(frame, MAKE)}
    assert list(sent) == [Kind.TF, Kind.CAMERA_INFO, Kind.DEPTH_CAMERA_INFO, Kind.COLOR, Kind.DEPTH]
    assert (messages.color_image(sent[Kind.COLOR]) == frame.image).all()
    assert (messages.depth_image(sent[Kind.DEPTH]) == frame.depth).all()
    assert messages.camera_model(sent[Kind.CAMERA_INFO]) == frame.camera
    parent, child, stamp, T = messages.transform(sent[Kind.TF].transforms[0])
    assert (parent, child, stamp) == (frame.world_frame, frame.camera_frame, frame.stamp_ns)
    assert np.allclose(matrix(T), frame.T_world_camera, atol=1e-12)


def test_compressed_images_stay_as_they_are() -> None:
    frame = next(iter(SmallSource(1).frames()))
    assert isinstance(frame.image, np.ndarray)
    data = encoded_color(frame.image, png=True)
    compressed = dataclasses.replace(frame, image=EncodedImage(data, lambda _: frame.image), depth=None)
    sent = {kind: over_the_wire(message) for kind, message in convert.camera_messages(compressed, MAKE)}
    assert Kind.DEPTH not in sent
    image, size = messages.compressed_color(sent[Kind.COLOR])
    assert size == (32, 24)
    assert (image.decode() == frame.image).all()


def test_depth_in_metres_keeps_its_type() -> None:
    frame = next(iter(SmallSource(1).frames()))
    assert frame.depth is not None
    metres = np.where(frame.depth, frame.depth / np.float32(1000), np.nan).astype(np.float32)
    sent = dict(convert.camera_messages(dataclasses.replace(frame, depth=metres), MAKE))
    assert sent[Kind.DEPTH].encoding == "32FC1"
    assert np.array_equal(messages.depth_image(over_the_wire(sent[Kind.DEPTH])), metres, equal_nan=True)


def test_poses_can_be_moved_to_a_level_frame() -> None:
    frame = next(iter(SmallSource(1).frames()))
    T_up: Transform = np.array([[1.0, 0, 0, 1], [0, 0, 1, 2], [0, -1, 0, 3], [0, 0, 0, 1]])
    message = dict(convert.camera_messages(frame, MAKE, T_up))[Kind.TF]
    assert np.allclose(matrix(messages.transform(message.transforms[0])[3]), T_up @ frame.T_world_camera)


def test_keyframes() -> None:
    frames = list(SmallSource(2).frames())
    stored = (StoredFrame(7, frames[1]), StoredFrame(3, frames[0]))
    selection = Selection((7, 3), (50, 20), 0.05, 70, 90)
    keyframes = KeyframeSet(selection, stored, (50, 40), frames[1].stamp_ns, "map")
    message = over_the_wire(convert.keyframes_message(keyframes, MAKE))
    assert (message.header.frame_id, message.covered, message.total, message.voxel_size) == ("map", 70, 90, 0.05)
    rows = [(k.keyframe_id, k.rank, k.voxels, k.marginal_voxels) for k in message.keyframes]
    assert rows == [(7, 0, 50, 50), (3, 1, 40, 20)]
    assert messages.stamp_ns(message.keyframes[0].header.stamp) == frames[1].stamp_ns
    assert frames[1].T_world_camera is not None
    assert message.keyframes[0].camera_pose.pose.position.x == frames[1].T_world_camera[0, 3]


def test_diagnostics() -> None:
    found = [Finding("memory", Level.WARN, "text", (("frames", "3"),))]
    message = over_the_wire(convert.diagnostics_message(found, "/robot/spatial_mllm", 5_000_000_001, MAKE))
    (status,) = message.status
    assert (status.name, status.level, status.message) == ("robot/spatial_mllm: memory", 1, "text")
    assert (status.values[0].key, status.values[0].value, message.header.stamp.nanosec) == ("frames", "3", 1)


def test_parameter_descriptors() -> None:
    """What `ros2 param describe` shows."""
    described = {n: over_the_wire(convert.parameter_descriptor(p, MAKE)) for n, p in PARAMETERS.items()}
    timeout = described["timeout_s"]
    assert (timeout.type, timeout.floating_point_range[0].to_value, timeout.read_only) == (3, 3600.0, False)
    assert (described["max_frames"].type, described["max_frames"].integer_range[0].from_value) == (2, 1)
    assert described["auto_activate"].read_only
    assert described["level"].additional_constraints == "one of estimate, fixed_frame; set while unconfigured"


def test_a_batch_survives_the_wire() -> None:
    p0 = ImagePoint(5, "camera", 1.0, 2.0)
    query = Query(ask=Value(of=Depth(of=Point(index=0))))
    requests = [Request("What is the depth of <p0>?", points=(p0,), query=query, timeout=9, frame_id="map")] * 2
    assert convert.requests_of(over_the_wire(convert.batch_message(requests, MAKE))) == requests
    bare = [Request(points=(p0,), query=query)]
    assert convert.requests_of(over_the_wire(convert.batch_message(bare, MAKE))) == bare


def test_answers_of_a_batch_survive_the_wire() -> None:
    batch = BatchAnswer(answers=(Answer(answer="a"), Answer(answer="b")), memory_version=7)
    sent = convert.batch_of(over_the_wire(convert.batch_response(batch, MAKE)))
    assert ([a.answer for a in sent.answers], sent.memory_version) == (["a", "b"], 7)


def test_a_batch_that_is_none_is_refused() -> None:
    empty = convert.batch_message([Request("x")], MAKE)
    empty.questions = []
    with pytest.raises(QueryError, match="0 questions and 0 queries"):
        convert.requests_of(empty)
    empty.questions = ["x"] * 65
    with pytest.raises(QueryError, match="1 to 64"):
        convert.requests_of(empty)
    error = QueryError(ErrorCode.INVALID_REQUEST, "no")
    with pytest.raises(QueryError, match="no"):
        convert.batch_of(over_the_wire(convert.batch_refusal(error, MAKE)))
