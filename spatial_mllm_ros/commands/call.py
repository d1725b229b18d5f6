"""spatial-mllm call: questions to a live node."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from spatial_mllm_ros.clients.client import SERVICE, SpatialQueryClient
from spatial_mllm_ros.commands import common, models, wire
from spatial_mllm_ros.commands.asking import Asking, failed, print_answer, print_table, question_options
from spatial_mllm_ros.dds import MalformedPayload, ServiceNotAvailable, ServiceTimeout
from spatial_mllm_ros.language.own_words import OwnWords
from spatial_mllm_ros.queries.answer import Answer
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.scene.inputs import Doubt
from spatial_mllm_ros.session.names import LATEST, frame_name
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.session.questions import Asked, Question
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.session.verdict import judge
from spatial_mllm_ros.sources.source import Source, SourceInfo

EPILOG = f"""
\b
Examples:
  spatial-mllm call "How high is the ceiling?"
  spatial-mllm call "How far is <p0>?" --point latest,320,240
  spatial-mllm call "How far apart are <p0> and <p1>?" --point +4.0,320,240 --point +12.0,200,300
  spatial-mllm call "How tall is the object in <box0>?" --box 1700000012.4,100,80,220,300
  spatial-mllm call --source my_room --questions questions.json

In the question, <p0>, <p1> ... are the --point options in order, <box0> ... the --box options and <t0> ... the --time
options. FRAME is latest, a stamp in seconds, +SECONDS after the first image that the node remembers, or with --source
the name of a frame of that recording (played with its own stamps).
{wire.ROS_ARGS_HELP}
Exit code: 0 when every question got its answer, 1 for an error code, or an answer that is not right by the truth that
the questions file states, 2 for what is wrong with the command, 3 when no node answers.
"""


class NoNode(common.Failure):
    """No node answers: exit code 3."""

    exit_code = 3


@click.command(name="call", cls=wire.RosCommand, epilog=EPILOG, short_help="Ask a live node.")
@click.argument("text", metavar="[QUESTION]", default="")
@question_options
@click.option(
    "--camera-frame", default="", metavar="NAME", help="Which camera took the images, where there are several."
)
@click.option("--source", "spec", default="", metavar="SOURCE", help="The recording whose frames are named.")
@common.input_options
@click.option("--service", default=SERVICE, show_default=True, metavar="NAME", help="The service to call.")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(min=0), default=5.0, show_default=True, metavar="S",
    help="How long a node is waited for.",
)  # fmt: skip
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0.001, max=3600), metavar="S",
    help="Time limit of each question (default: the node's).",
)  # fmt: skip
@common.json_option
@click.pass_context
def call_command(
    ctx: click.Context,
    *,
    text: str,
    asking: Asking,
    camera_frame: str,
    spec: str,
    inputs: dict[str, Any],
    service: str,
    wait_s: float,
    timeout_s: float | None,
    as_json: bool,
    ros_args: tuple[str, ...],
) -> None:
    """Ask a live node about the space that it has seen: the node of ROS 2, or spatial-mllm up.

    An answer says its deviation, its confidence and the images that it rests on; where there is none, a code says why.
    """
    questions, one = [in_known_words(q, asking.own_words) for q in asking.questions(text)], asking.file is None
    source = open_source(spec, inputs) if spec else None
    with SpatialQueryClient(service, wait_s=wait_s, ros_args=ros_args) as client:
        session = Session(Remote(client, source), record_coverage=False)
        try:
            with models.words_as_they_come(one and not as_json and common.out().is_terminal, "the node") as on_text:
                asked = [put(session, client, q, camera_frame, timeout_s, on_text) for q in questions]
        except (ServiceNotAvailable, ServiceTimeout, MalformedPayload) as error:
            raise NoNode(common.printable(str(error))) from error
        if one and asked[0].answer.evidence and (seen := client.seen()):
            session.report.first_stamp = seen[0]
        if as_json:
            for a in asked:
                common.print_json(a.to_json())
        elif one:
            print_answer(common.out(), session, asked[0])
        else:
            print_table(common.out(), asked)
    if failed(asked):
        ctx.exit(1)


def in_known_words(question: Question, own_words: OwnWords) -> Question:
    """As the node can read it, which has only the own words of its parameter; what was put for what goes to stderr."""
    if not question.text:
        return question
    marks = {"points": len(question.points), "boxes": len(question.boxes), "times": len(question.times)}
    text, remarks = own_words.rewritten(question.text, **marks)
    for remark in remarks:
        common.say(f"{question.id}: {remark}")
    return replace(question, text=text)


def put(
    session: Session,
    client: SpatialQueryClient,
    question: Question,
    camera_frame: str,
    timeout_s: float | None,
    on_text: Callable[[str], None] | None = None,
) -> Asked:
    """A question with the node's answer, and how long that took all in all. Raises what ``client.ask`` raises."""
    request = None
    begin = time.perf_counter()
    try:
        request = question.request(session)
        request = replace(
            request,
            points=tuple(replace(p, camera_frame=camera_frame) for p in request.points),
            boxes=tuple(replace(b, camera_frame=camera_frame) for b in request.boxes),
            timeout=int((timeout_s or 0) * 1e9),
        )
        if not client.wait_for_service():
            client.ask(request)  # raises, with the reason
        begin = time.perf_counter()
        answer = client.ask(request, on_text=on_text)
    except KeyError as error:
        answer = Answer(error_code=ErrorCode.INVALID_REQUEST, error_msg=str(error.args[0]))
    latency_ms = (time.perf_counter() - begin) * 1e3
    verdict = None if question.expect is None else judge(question.expect, answer, question.options)
    return Asked(question, request, answer, latency_ms, verdict)


class Remote:
    """What a node remembers, as a recording whose frames have names but cannot be had.

    source: the recording that is played to the node, for the names; None: there are stamps only.
    """

    def __init__(self, client: SpatialQueryClient, source: Source | None) -> None:
        self.info = SourceInfo("live") if source is None else source.info
        self.refused: Counter[str] = Counter()
        self.doubts: list[Doubt] = []
        self._client = client
        self._source = source
        self._seen: tuple[int, int] | None = None

    def frames(self) -> Iterator[Frame]:
        """None: they are the node's."""
        return iter(())

    def stamp_of(self, name: str) -> int:
        """The stamp (ns) of ``latest``, +SECONDS, a stamp in seconds, or a frame's name. KeyError says what is wrong."""
        if name == LATEST:
            return 0  # as the node understands it
        if name.startswith("+") and (seconds := _decimal(name)) is not None:
            return self._near(self._ends()[0] + int(seconds * 10**9))
        try:
            if self._source is not None:
                return self._source.stamp_of(name) or 1  # as it is played
        except KeyError:
            if _decimal(name) is None:
                raise
        if (seconds := _decimal(name)) is not None:
            return self._near(int(seconds * 10**9))
        raise KeyError(
            f"{name!r} is not {LATEST}, a stamp in seconds or +SECONDS; for names of frames give --source, the "
            "recording that is played"
        )

    def name_of(self, stamp_ns: int) -> str | None:
        """The recording's name of a frame."""
        return None if self._source is None else frame_name(self._source, stamp_ns)

    def _near(self, stamp_ns: int) -> int:
        """The stamp of the image that is meant: the nearest, since people write few digits; else exactly this."""
        return self._client.nearest(stamp_ns) or stamp_ns

    def _ends(self) -> tuple[int, int]:
        """Stamps of the first and the last image; asked for once, so that one question means one moment."""
        if self._seen is None:
            self._seen = self._client.seen()
        if self._seen is None:
            raise KeyError("the node remembers no image with a pose yet: is the camera running, and TF published?")
        return self._seen


def _decimal(text: str) -> Decimal | None:
    try:
        seconds = Decimal(text)
    except InvalidOperation:
        return None
    return seconds if seconds.is_finite() and abs(seconds) < 1 << 33 else None
