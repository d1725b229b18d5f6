"""The live half of spatial-mllm demo: node, camera and client as separate processes over DDS."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.text import Text

from spatial_mllm_ros.commands import common
from spatial_mllm_ros.nodes.client import SpatialQueryClient
from spatial_mllm_ros.queries.answer import Answer
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.session.questions import Asked, Question
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.session.verdict import judge

PATIENCE_S = 30.0
POLL_S = 0.25


def ask_live(
    recording: Path, session: Session, questions: Sequence[Question], of_the_whole: tuple[str, ...]
) -> list[Asked]:
    """Answers of a node that hears a camera play ``recording`` in real time, both in processes of their own.

    Each question is asked as soon as the node has seen what it refers to, those of the kinds ``of_the_whole`` at the
    end. session: knows the recording's frame names. On a DDS domain of their own, on this machine alone. Raises
    common.Failure when one of the processes ends early.
    """
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": os.environ.get("ROS_DOMAIN_ID", str(random.randrange(100, 200))),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    os.environ.update({k: environment[k] for k in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE")})
    log = recording.parent / "node.log"
    with log.open("w") as output, _process(["up"], environment, output) as node:
        with SpatialQueryClient(wait_s=PATIENCE_S) as client:
            if not client.wait_for_service(PATIENCE_S):
                raise common.Failure(f"the node did not come up; see {log}")
            common.say(f"node (process {node.pid}) is up; a camera plays {recording}; questions go over DDS")
            with _process(["play", str(recording)], environment, subprocess.DEVNULL) as camera:
                begin = time.monotonic()
                duration = session.source.info.duration_s or 0.0
                answers: dict[str, Asked] = {}
                with common.progress_bar("playing in real time") as update:
                    while camera.poll() is None:
                        update(min(int(time.monotonic() - begin), int(duration)), int(duration))
                        seen = client.seen()
                        for question in questions:
                            if question.id not in answers and _answerable(question, session, seen, of_the_whole):
                                answers[question.id] = _ask(client, session, question, True)
                        time.sleep(POLL_S)
                        if node.poll() is not None:
                            raise common.Failure(f"the node ended early; see {log}")
            for question in questions:
                if question.id not in answers:
                    answers[question.id] = _ask(client, session, question, False)
        common.err().print(Text(f"the node's own words: {log}"))
    return [answers[q.id] for q in questions]


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
def _process(command: list[str], environment: dict[str, str], output: object) -> Iterator[subprocess.Popen[bytes]]:
    """A ``spatial-mllm`` command in a process of its own, ended at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "spatial_mllm_ros.cli", *command],
        env=environment,
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
