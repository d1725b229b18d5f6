"""Processes that measure: what they take of the machine is their own, and they end with the command."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from spatial_mllm_ros.models.worker.parent import end_with, go_first

END_S = 10.0


class Failed(RuntimeError):
    """What was to be measured did not work. ``str()`` says why."""


@contextmanager
def process(target: Callable[..., object], *args: Any) -> Iterator[Connection]:
    """Runs ``target(pipe, *args)`` in a process of its own, at the other end of a pipe, which is closed at the block's end.

    The process is killed where the block fails, where it goes on all the same, and when this process dies.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=_run, args=(os.getpid(), target, there, *args), daemon=True)
    with _without_interrupts():
        child.start()
    there.close()
    try:
        yield here
        here.close()
        child.join(END_S)
    finally:
        child.kill()
        child.join()
        here.close()


def receive(pipe: Connection) -> Any:
    """What the process says next. Raises Failed with its error, or when it died."""
    try:
        answer = pipe.recv()
    except (EOFError, ConnectionError) as error:
        raise Failed("the process that measures died: the machine may be out of memory") from error
    if isinstance(answer, Failed):
        raise answer
    return answer


@contextmanager
def ends_tidily() -> Iterator[None]:
    """Within, SIGTERM ends the program as an exit does, so that folders and processes are cleared away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _exit(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C is the parent's affair: a process that is started within never sees it, and it reaches the parent later."""
    resource_tracker.ensure_running()  # starting it would unblock the signal
    former = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _run(parent: int, target: Callable[..., object], pipe: Connection, *args: Any) -> None:
    end_with(parent)
    go_first()
    try:
        target(pipe, *args)
    except EOFError:  # the other end has what it wanted
        return
    except Exception as error:  # noqa: BLE001  # whatever it is, the other end tells it
        pipe.send(Failed(f"{type(error).__name__}: {str(error).strip() or 'without a word'}"))
