"""What the commands that talk to others share: ROS's arguments, failures of the middleware, logs and signals."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from spatial_mllm_ros.commands import common
from spatial_mllm_ros.dds import (
    DdsError,
    DdsNotInstalled,
    DomainError,
    InvalidName,
    RosArgumentError,
    RosArguments,
)

ROS_ARGS = "--ros-args"
ROS_ARGS_HELP = """
\b
After --ros-args come ROS 2's own arguments, up to -- or the end:
  -r FROM:=TO   remap a topic or service; __node:=NAME and __ns:=/NAMESPACE rename the node
  -p NAME:=VALUE, --params-file FILE   parameters
ROS_DOMAIN_ID, ROS_AUTOMATIC_DISCOVERY_RANGE, ROS_STATIC_PEERS and CYCLONEDDS_URI hold as in ROS 2.
"""


class RosCommand(click.Command):
    """A command whose arguments after --ros-args are ROS's; it gets them as ``ros_args``.

    What the middleware refuses is one line for the user.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours, ros = split(args)
        rest = super().parse_args(ctx, ours)
        ctx.params["ros_args"] = ros
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        with failures():
            return super().invoke(ctx)


@contextmanager
def failures() -> Iterator[None]:
    """Within, what the middleware refuses becomes one line for the user."""
    try:
        yield
    except (DdsNotInstalled, DdsError, DomainError, InvalidName, RosArgumentError) as error:
        raise common.Failure(common.printable(str(error))) from error


def split(args: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The arguments before --ros-args or after its --, and those in between with --ros-args."""
    ours: list[str] = []
    ros: list[str] = []
    in_ros = False
    for argument in args:
        if argument == ROS_ARGS:
            in_ros = True
        if in_ros:
            ros.append(argument)
            in_ros = argument != "--"
        else:
            ours.append(argument)
    return ours, tuple(ros)


class Stop(threading.Event):
    """Set by SIGINT and SIGTERM. ``by``: which of them came."""

    def __init__(self) -> None:
        super().__init__()
        self.by = ""
        self._calls: list[Callable[[], None]] = []

    def call(self, function: Callable[[], None]) -> None:
        """Call a function, which must return at once, when a signal comes, or now if one came already."""
        self._calls.append(function)
        if self.is_set():
            function()

    def come(self, by: str) -> None:
        """A signal has come."""
        self.by = by
        self.set()
        for function in self._calls:
            function()


@contextmanager
def until_signal() -> Iterator[Stop]:
    """Within, SIGINT and SIGTERM set the event instead of ending the process, however often they come."""
    stop = Stop()

    def on_signal(number: int, _: object) -> None:
        stop.come(signal.Signals(number).name)

    former = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class _Plain(logging.Formatter):
    """As nodes of ROS 2 print: [INFO] [1700000000.123456789] [name]: text."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        level = {"WARNING": "WARN", "CRITICAL": "FATAL"}.get(record.levelname, record.levelname)
        text = common.printable(record.getMessage())
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return f"[{level}] [{record.created:.9f}] [{self._name}]: {text}"


@contextmanager
def logging_to_stderr(name: str, ros_args: Sequence[str], default: str = "INFO") -> Iterator[None]:
    """Within, the package's log goes to stderr as a node of that name prints it; --log-level of ROS's arguments holds."""
    logger = logging.getLogger("spatial_mllm_ros")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain(name))
    former = logger.level
    logger.setLevel(_level(RosArguments.parse(ros_args).log_levels, default))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(former)


def _level(given: Sequence[str], default: str) -> int:
    text = given[-1].rpartition(":=")[2].upper() if given else default
    text = {"WARN": "WARNING", "FATAL": "CRITICAL"}.get(text, text)
    levels = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
    if text not in levels:
        raise RosArgumentError(f"--log-level {given[-1]!r}: it is one of debug, info, warn, error, fatal")
    return int(getattr(logging, text))


def wait(event: threading.Event, seconds: float) -> bool:
    """``event.wait`` in steps that let signals through on every platform."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if event.wait(min(left, 0.25)):
            return True
    return event.is_set()
