"""The live half of spatial-mllm demo: node, camera and client as separate processes over DDS."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.text import Text

from spatial_mllm_ros.clients.client import SpatialQueryClient
from spatial_mllm_ros.commands import common
from spatial_mllm_ros.dds import DdsNode, Payload, domain
from spatial_mllm_ros.nodes import convert
from spatial_mllm_ros.queries.answer import Answer
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.session.questions import Asked, Question
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.session.verdict import judge

PATIENCE_S = 60.0
"""A node that does nothing for so long has failed; starting takes this long on a busy machine."""
STALLED_S = 15.0
"""A memory that has not grown for so long, after the camera has ended, will not."""
NEAR_NS = 10_000_000
POLL_S = 0.25
BEHIND_S = 3.0
"""A node whose memory is further behind the camera is told of."""
BUSY_SHARE = 0.75
"""A program alone has the whole of a processor; with less than this share the machine is busy."""
NEVER_DROP = ("image_queue:=1000", "qos_depth:=1000", "tf_queue:=10000")
"""More than the recording has: what a slow machine cannot take in at once waits."""


def ask_live(
    recording: Path, session: Session, questions: Sequence[Question], of_the_whole: tuple[str, ...], last_ns: int
) -> list[Asked]:
    """Answers of a node that hears a camera play ``recording``, both in processes of their own; in real time where the
    machine has time for that, else slower.

    Each question is asked as soon as the node has seen what it refers to, those of the kinds ``of_the_whole`` once it has
    seen everything, up to the stamp ``last_ns``. session: knows the recording's frame names; what the node took of them goes
    into its report. On a DDS domain that nobody else can join. Raises common.Failure when one of the processes ends early.
    """
    os.environ.update(domain.private())
    log = recording.parent / "node.log"
    rate = _pace()
    parameters = [argument for value in NEVER_DROP for argument in ("-p", value)]
    camera_log = recording.parent / "camera.log"
    with (
        log.open("w") as output,
        camera_log.open("w") as camera_output,
        _process(["up", "--ros-args", *parameters], output) as process,
    ):
        with DdsNode("demo", ros_args=[]) as node, SpatialQueryClient(node=node, wait_s=PATIENCE_S) as client:
            health = _Health(node)
            if not client.wait_for_service(PATIENCE_S):
                raise common.Failure(f"the node did not come up; see {log}")
            common.say(f"node (process {process.pid}) is up; a camera plays {recording}; questions go over DDS")
            with _process(["play", str(recording), "--rate", f"{rate:g}"], camera_output) as camera:
                answers = _interview(client, session, questions, of_the_whole, last_ns, rate, (process, camera))
                if camera.poll() not in (0, 1):  # 1: it dropped messages, which is told
                    raise common.Failure(f"the camera failed; see {camera_log}")
            if process.poll() is not None:
                raise common.Failure(f"the node ended early; see {log}")
            for question in questions:
                if question.id not in answers:
                    answers[question.id] = _ask(client, session, question, False)
            session.report.live = health.words()
        common.err().print(Text(f"the node's own words: {log}"))
    return [answers[q.id] for q in questions]


def _interview(
    client: SpatialQueryClient,
    session: Session,
    questions: Sequence[Question],
    of_the_whole: tuple[str, ...],
    last_ns: int,
    rate: float,
    processes: tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]],
) -> dict[str, Asked]:
    """Questions while the camera plays; returns once the node has taken everything in, or nothing comes any more."""
    node, camera = processes
    info = session.source.info
    answers: dict[str, Asked] = {}
    newest, moved, told = 0, time.monotonic(), False
    begin = time.monotonic()
    with common.progress_bar("playing in real time" if rate == 1 else f"playing at {rate:g} of real time") as update:
        while node.poll() is None:
            seen = client.seen()
            if seen is not None and seen[1] > newest:
                newest, moved = seen[1], time.monotonic()
            shown_s = 0.0 if seen is None else (seen[1] - seen[0]) / 1e9
            update(int(shown_s), int(info.duration_s or 0.0))
            for question in questions:
                if question.id not in answers and _answerable(question, session, seen, of_the_whole):
                    answers[question.id] = _ask(client, session, question, True)
            played_s = min((time.monotonic() - begin) * rate, info.duration_s or 0.0)
            if not told and seen is not None and played_s - shown_s > BEHIND_S:
                told = True
                common.say("this machine is busy: the node is behind the camera; nothing is lost, it takes longer")
            if camera.poll() is not None and (newest >= last_ns - NEAR_NS or time.monotonic() - moved > STALLED_S):
                break
            time.sleep(POLL_S)
    return answers


def _pace() -> float:
    """1, or less where others keep this machine's processors busy."""
    begin, used = time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < 0.4:
        pass
    share = (time.process_time() - used) / (time.perf_counter() - begin)
    if share > BUSY_SHARE:
        return 1.0
    rate = 0.5 if share > BUSY_SHARE / 2 else 0.25
    common.say(
        f"this machine is busy (a program gets {share:.0%} of a processor): the camera walks at {rate:g} of its pace"
    )
    return rate


class _Health:
    """What a node says of itself in /diagnostics."""

    def __init__(self, node: DdsNode) -> None:
        self._values: dict[str, dict[str, str]] = {}
        node.create_subscription(convert.DIAGNOSTICS, "/diagnostics", self._on_diagnostics)

    def words(self) -> str:
        """Images taken in, dropped and refused, once the latest diagnostics have come."""
        time.sleep(1.5)  # the node tells them once a second
        memory, inputs = self._values.get("memory", {}), [v for n, v in self._values.items() if n.startswith("input: ")]
        dropped = sum(int(values.get("dropped", "0")) for values in inputs)
        refused = sum(
            int(n) for values in (memory, *inputs) for name, n in values.items() if name.startswith("refused_")
        )
        return (
            f"{memory.get('frames', '?')} in the node's memory, {dropped or 'no'} messages dropped, "
            f"{refused or 'none'} refused"
        )

    def _on_diagnostics(self, payload: Payload, _: Any) -> None:
        for status in payload.decode().status:
            self._values[status.name.partition(": ")[2]] = {v.key: v.value for v in status.values}


def _answerable(
    question: Question, session: Session, seen: tuple[int, int] | None, of_the_whole: tuple[str, ...]
) -> bool:
    if seen is None or not question.frames or question.id.endswith(of_the_whole):
        return False
    return all(session.source.stamp_of(name) < seen[1] for name in question.frames)


def _ask(client: SpatialQueryClient, session: Session, question: Question, while_streaming: bool) -> Asked:
    request = question.request(session)
    begin = time.perf_counter()
    try:
        answer = client.ask(request)
    except (TimeoutError, OSError) as error:
        answer = Answer(error_code=ErrorCode.TIMEOUT, error_msg=str(error))
    latency_ms = (time.perf_counter() - begin) * 1e3
    verdict = None if question.expect is None else judge(question.expect, answer, question.options)
    return Asked(question, request, answer, latency_ms, verdict, while_streaming)


@contextmanager
def _process(command: list[str], output: object) -> Iterator[subprocess.Popen[bytes]]:
    """A ``spatial-mllm`` command in a process of its own, ended at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "spatial_mllm_ros.cli", *command],
        stdin=subprocess.DEVNULL,
        stdout=output,  # type: ignore[call-overload]
        stderr=output,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
