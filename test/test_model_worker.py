"""A model that is served: questions while contexts change, limits, cancellation, and processes that die."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import fake_engine
import numpy as np
import pytest

from spatial_mllm_ros.models.worker.local import LocalModel
from spatial_mllm_ros.serving.interface import (
    Generated,
    ModelBusy,
    ModelCancelled,
    ModelError,
    ModelFrame,
    ModelOptions,
    ModelQuestion,
    ModelTimeout,
    ModelUnavailable,
)
from spatial_mllm_ros.serving.process import ProcessModel
from spatial_mllm_ros.serving.wire import Channel, HeldFrames, SentFrames

LONG_S = 60.0
"""More than anything here takes, on any machine."""
SUM, ENDLESS = ModelQuestion("sum"), ModelQuestion("tell me everything")
EITHER = ["local", "process"]


def frame(number: int) -> ModelFrame:
    return ModelFrame(number, number, np.full((6, 8, 3), number % 200, np.uint8))


def frames(*numbers: int) -> list[ModelFrame]:
    return [frame(number) for number in numbers]


def sums(*numbers: int) -> str:
    return "".join(f"{number % 200 * 6 * 8 * 3} " for number in numbers)


def process_model(folder: Path, load: str = "load", **settings: object) -> ProcessModel:
    return ProcessModel(ModelOptions(str(folder)), engine=f"fake_engine:{load}", **settings)  # type: ignore[arg-type]


def started(model: ProcessModel) -> ProcessModel:
    model.start()
    model.wait_loaded(LONG_S)
    return model


def until(condition: Callable[[], object]) -> None:
    """Wait for what another process or thread does; fails when it never does."""
    end = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not waited for does not."""
    try:
        os.kill(pid, 0)
        if Path("/proc/self/stat").exists():
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
    return True


@pytest.fixture(params=EITHER)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalModel | ProcessModel]:
    """A model in this process, and one in its own: they behave alike."""
    local = request.param == "local"
    made = LocalModel(fake_engine.FakeEngine(tmp_path)) if local else started(process_model(tmp_path))
    yield made
    made.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(80) as threads:
        yield threads


class Endless:
    """A question that is answered until it is cancelled; made when its answer has begun."""

    def __init__(self, model: LocalModel | ProcessModel, pool: ThreadPoolExecutor) -> None:
        self.give_up = threading.Event()
        self.pieces = 0
        begun = threading.Event()

        def on_text(_: str) -> None:
            self.pieces += 1
            begun.set()

        self.future: Future[Generated] = pool.submit(
            model.ask, ENDLESS, frames(1), cancelled=self.give_up.is_set, on_text=on_text
        )
        assert begun.wait(LONG_S)


# ---- alike in this process and in another


def test_answers_about_the_context_and_about_frames_of_its_own(model: LocalModel | ProcessModel) -> None:
    model.set_context(frames(1, 2, 3))
    warm = model.ask(SUM)
    assert (warm.text, warm.frame_ids) == (sums(1, 2, 3), (1, 2, 3))
    cold = model.ask(SUM, frames(2, 9))
    assert (cold.text, cold.frame_ids, cold.context) == (sums(2, 9), (2, 9), "cold")
    status = model.status()
    assert (status.state, status.context_frames, status.pending) == ("ready", (1, 2, 3), False)
    assert (status.answered, status.failed, status.waiting, status.updates) == (2, 0, 0, 1)
    assert status.memory["weights"] == 100
    assert model.model_id == status.model_id == "fake engine"


def test_text_streams_in_order(model: LocalModel | ProcessModel) -> None:
    pieces: list[str] = []
    threads = set()

    def on_text(piece: str) -> None:
        threads.add(threading.current_thread())
        pieces.append(piece)

    answer = model.ask(SUM, frames(*range(50)), on_text=on_text)
    assert pieces == [f"{number * 144} " for number in range(50)]
    assert "".join(pieces) == answer.text
    assert threads == {threading.current_thread()}, "the asker's own thread gets the text: it may be slow, or raise"


def test_an_asker_that_fails_at_the_text_gives_the_question_up(model: LocalModel | ProcessModel) -> None:
    def on_text(_: str) -> None:
        raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError):
        model.ask(ENDLESS, frames(1), on_text=on_text)
    assert model.ask(SUM, frames(1), timeout_s=LONG_S).text == sums(1)


def test_without_frames(model: LocalModel | ProcessModel) -> None:
    with pytest.raises(ValueError, match="no frames"):
        model.ask(SUM)
    with pytest.raises(ValueError, match="no frames"):
        model.ask(SUM, [])
    model.set_context(frames(1))
    model.set_context([])
    with pytest.raises(ValueError, match="no frames"):
        model.ask(SUM)


def test_the_first_context_is_waited_for(
    model: LocalModel | ProcessModel, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    hold = tmp_path / fake_engine.CONTEXT
    hold.touch()
    model.set_context(frames(1, 2))
    waiting = pool.submit(model.ask, SUM)
    assert model.ask(SUM, frames(7)).text == sums(7), "a question with frames of its own does not wait for a context"
    assert not waiting.done()
    assert model.status().pending
    hold.unlink()
    answer = waiting.result(LONG_S)
    assert (answer.frame_ids, answer.context) == ((1, 2), "updated")
    assert answer.encoding_ns > 0


def test_the_last_complete_context_or_the_newest(
    model: LocalModel | ProcessModel, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    model.set_context(frames(1))
    assert model.ask(SUM, wait_for_context=True).frame_ids == (1,)
    hold = tmp_path / fake_engine.CONTEXT
    hold.touch()
    model.set_context(frames(1, 2))
    until(lambda: model.status().state == "updating")
    waiting = pool.submit(model.ask, SUM, wait_for_context=True)
    old = model.ask(SUM)
    assert (old.frame_ids, old.context, old.encoding_ns) == ((1,), "warm", 0)
    hold.unlink()
    new = waiting.result(LONG_S)
    assert (new.frame_ids, new.context) == ((1, 2), "updated")
    model.set_context([])
    until(lambda: model.status().context_frames == ())


def test_what_is_forgotten_does_not_answer(
    model: LocalModel | ProcessModel, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    """Nor when the next context comes at once, and takes its time: frames of another place would be passed off."""
    model.set_context(frames(1, 2))
    assert model.ask(SUM).frame_ids == (1, 2)
    hold = tmp_path / fake_engine.CONTEXT
    hold.touch()
    model.set_context([])
    model.set_context(frames(5, 6))
    asked = pool.submit(model.ask, SUM)
    until(lambda: model.status().context_frames == ())
    assert not asked.done()
    hold.unlink()
    assert asked.result(LONG_S).frame_ids == (5, 6)


def test_questions_while_contexts_change(model: LocalModel | ProcessModel, pool: ThreadPoolExecutor) -> None:
    """Each answer is from a context that was set; never older than was complete, or set, when it was asked."""
    newest = 0
    over = threading.Event()

    def change() -> None:
        nonlocal newest
        while not over.is_set():
            model.set_context(frames(newest + 1, newest + 1001))
            newest += 1
            time.sleep(0.001)

    def ask(wait: bool) -> int:
        at_least = newest if wait else max(model.status().context_frames[:1], default=1)
        answer = model.ask(SUM, timeout_s=LONG_S, wait_for_context=wait)
        first, second = answer.frame_ids
        assert second == first + 1000
        assert answer.text == sums(first, second)
        assert at_least <= first <= newest
        return first

    def ask_often(wait: bool) -> list[int]:
        return [ask(wait) for _ in range(15)]

    changing = pool.submit(change)
    until(lambda: newest)
    try:
        for asked in [pool.submit(ask_often, wait) for wait in (True, False, True, False)]:
            seen = asked.result(LONG_S)
            assert seen == sorted(seen)
    finally:
        over.set()
    changing.result(LONG_S)
    assert model.ask(SUM, wait_for_context=True).frame_ids == (newest, newest + 1000)


def test_sixty_four_at_once_and_a_bound(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    model = started(process_model(tmp_path, queue=16))
    endless = Endless(model, pool)
    asked = [pool.submit(model.ask, SUM, frames(i)) for i in range(64)]
    until(lambda: sum(future.done() for future in asked) == 64 - 16)
    assert model.status().waiting == 16
    endless.give_up.set()
    outcomes = Counter(type(future.exception(LONG_S)) for future in asked)
    assert outcomes == {ModelBusy: 48, type(None): 16}
    assert all(future.exception() or future.result().text == sums(i) for i, future in enumerate(asked))
    with pytest.raises(ModelCancelled):
        endless.future.result(LONG_S)
    assert (model.status().answered, model.status().failed, model.status().waiting) == (16, 0, 0)
    model.close()


def test_a_cancelled_question_ends_between_two_tokens(
    model: LocalModel | ProcessModel, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    latencies = []
    for _ in range(10):  # the best counts, where other programs take the processor away now and then
        (tmp_path / fake_engine.CANCELLED).unlink(missing_ok=True)
        endless = Endless(model, pool)
        begun = time.monotonic()
        endless.give_up.set()
        with pytest.raises(ModelCancelled):
            endless.future.result(LONG_S)
        until((tmp_path / fake_engine.CANCELLED).exists)
        until((tmp_path / fake_engine.CANCELLED).read_text)
        latencies.append(float((tmp_path / fake_engine.CANCELLED).read_text()) - begun)
        if latencies[-1] < fake_engine.TOKEN_S + 0.05:
            return
    pytest.fail(f"it took {latencies} s to reach the engine")


def test_a_question_that_waits_can_be_cancelled(model: LocalModel | ProcessModel, pool: ThreadPoolExecutor) -> None:
    endless = Endless(model, pool)
    give_up = threading.Event()
    waiting = pool.submit(model.ask, SUM, frames(1), cancelled=give_up.is_set)
    until(lambda: model.status().waiting == 1)
    give_up.set()
    with pytest.raises(ModelCancelled):
        waiting.result(LONG_S)
    assert not endless.future.done()
    endless.give_up.set()
    assert model.ask(SUM, frames(2)).text == sums(2)


def test_time_limits(model: LocalModel | ProcessModel, pool: ThreadPoolExecutor) -> None:
    with pytest.raises(ModelTimeout):
        model.ask(ENDLESS, frames(1), timeout_s=0.1)
    endless = Endless(model, pool)
    with pytest.raises(ModelTimeout):
        model.ask(SUM, frames(1), timeout_s=0.01)
    endless.give_up.set()
    assert model.ask(SUM, frames(1), timeout_s=LONG_S).text == sums(1)
    assert model.status().failed == 2


def test_an_error_is_that_question_s_alone(model: LocalModel | ProcessModel) -> None:
    with pytest.raises(ModelError, match="use fewer frames"):
        model.ask(ModelQuestion("run out of memory"), frames(1))
    with pytest.raises(ModelError, match="ZeroDivisionError: division by zero"):
        model.ask(ModelQuestion("divide by zero"), frames(1))
    assert model.ask(SUM, frames(1)).text == sums(1)
    assert (model.status().answered, model.status().failed) == (1, 2)


def test_closing_while_it_answers(model: LocalModel | ProcessModel, pool: ThreadPoolExecutor) -> None:
    endless = Endless(model, pool)
    waiting = pool.submit(model.ask, SUM, frames(1))
    until(lambda: model.status().waiting == 1)
    model.close()
    for future in (endless.future, waiting):
        with pytest.raises(ModelCancelled, match="closed"):
            future.result(LONG_S)
    with pytest.raises(ModelUnavailable, match="closed"):
        model.ask(SUM, frames(1))
    with pytest.raises(ModelUnavailable, match="closed"):
        model.set_context(frames(1))
    assert (model.status().state, model.status().reason) == ("failed", "the model was closed")
    model.close()


# ---- loading


def test_loading_is_reported(tmp_path: Path) -> None:
    hold = tmp_path / fake_engine.LOADING
    hold.touch()
    model = process_model(tmp_path)
    with pytest.raises(ModelUnavailable, match="not been started"):
        model.ask(SUM, frames(1))
    model.start()
    model.set_context(frames(1, 2))  # neither waits for loading
    assert (model.status().state, model.status().pending) == ("loading", True)
    seen: list[tuple[str, int, int]] = []

    def on_progress(doing: str, done: int, total: int) -> None:
        seen.append((doing, done, total))
        if done == total == 100:
            hold.unlink()

    with pytest.raises(ModelTimeout, match=r"is not loaded yet"):
        model.wait_loaded(0.001)
    model.wait_loaded(LONG_S, on_progress)
    assert seen[-1] == ("reading", 100, 100)
    assert model.ask(SUM).frame_ids == (1, 2), "what was set meanwhile is known"
    model.start()  # nothing happens
    assert model.ask(SUM).frame_ids == (1, 2)
    model.close()


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        ("refuse", r"5\.3 GB are needed and 2\.0 GB are there: choose a smaller precision"),
        ("fail", r"cannot be loaded: KeyError: 'lm_head.weight'"),
        ("leave", r"ended with status 3: the driver is too old, while loading"),
        ("no_such", r"cannot be loaded: AttributeError: .*no_such"),
    ],
)
def test_the_reason_why_it_cannot_be_loaded(tmp_path: Path, load: str, reason: str) -> None:
    model = process_model(tmp_path, load)
    model.start()
    with pytest.raises(ModelUnavailable, match=reason):
        model.wait_loaded(LONG_S)
    status = model.status()
    assert (status.state, model.pid) == ("failed", None)
    with pytest.raises(ModelUnavailable, match=reason):
        model.ask(SUM, frames(1))
    with pytest.raises(ModelUnavailable, match=reason):
        model.set_context(frames(1))
    model.close()


def test_killed_while_loading_it_is_not_tried_again(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    (tmp_path / fake_engine.LOADING).touch()
    model = process_model(tmp_path)
    model.start()
    asked = pool.submit(model.ask, SUM, frames(1))
    until(lambda: model.pid)
    assert model.pid is not None
    os.kill(model.pid, signal.SIGKILL)
    killed = r"killed \(signal 9\), often for want of memory, while loading"
    with pytest.raises(ModelUnavailable, match=killed):
        model.wait_loaded(LONG_S)
    with pytest.raises(ModelUnavailable, match=killed):
        asked.result(LONG_S)
    (tmp_path / fake_engine.LOADING).unlink()
    assert started(model).ask(SUM, frames(1)).text == sums(1), "unless it is told to"
    model.close()


def test_closing_while_it_loads(tmp_path: Path) -> None:
    (tmp_path / fake_engine.LOADING).touch()
    model = process_model(tmp_path)
    model.start()
    until(lambda: model.pid)
    pid = model.pid
    model.close()
    assert pid is not None
    assert not alive(pid)
    with pytest.raises(ModelUnavailable, match="closed"):
        model.wait_loaded(LONG_S)
    with pytest.raises(ModelUnavailable, match="closed"):
        model.start()


# ---- processes die


def test_killed_while_it_answers(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    model = started(process_model(tmp_path, restart_after_s=(0.0, 0.0)))
    model.set_context(frames(1, 2))
    assert model.ask(SUM).frame_ids == (1, 2)
    endless = Endless(model, pool)
    waiting = pool.submit(model.ask, SUM)
    until(lambda: model.status().waiting == 1)
    pid = model.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    message = r"the model's process was killed \(signal 9\), often for want of memory; it is being restarted"
    for future in (endless.future, waiting):
        with pytest.raises(ModelError, match=message):
            future.result(LONG_S)
    again = model.ask(SUM, timeout_s=LONG_S)
    assert again.frame_ids == (1, 2), "its successor is told the context"
    assert model.pid not in (None, pid)
    assert (tmp_path / fake_engine.LOADED).read_text() == "xx"
    status = model.status()
    assert (status.state, status.reason) == ("ready", "")
    assert (status.answered, status.failed, status.updates) == (2, 2, 2)
    model.close()


def test_killed_while_idle(tmp_path: Path) -> None:
    model = started(process_model(tmp_path, restart_after_s=(0.0,)))
    model.set_context(frames(1, 2))
    pid = model.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: model.pid not in (None, pid))
    model.set_context(frames(2, 3))
    assert model.ask(SUM, timeout_s=LONG_S, wait_for_context=True).text == sums(2, 3)
    assert model.status().failed == 0
    model.close()


def test_a_crash_says_where(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = started(process_model(tmp_path, restart_after_s=(0.0,)))
    with caplog.at_level(logging.INFO), pytest.raises(ModelError, match=r"crashed \(signal 11, Segmentation fault"):
        model.ask(ModelQuestion("crash"), frames(1))
    assert "fake_engine.py" in caplog.text, "the place of the crash is in the log"
    assert model.ask(SUM, frames(1), timeout_s=LONG_S).text == sums(1)
    model.close()


def test_one_that_is_stuck_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = started(process_model(tmp_path, restart_after_s=(0.0,), stuck_s=1.0))
    with caplog.at_level(logging.INFO), pytest.raises(ModelError, match=r"was stuck .* has been ended"):
        model.ask(ModelQuestion("get stuck"), frames(1))
    assert "fake_engine.py" in caplog.text, "the log says where"
    with pytest.raises(ModelTimeout):
        model.ask(ENDLESS, frames(1), timeout_s=1.5)  # long, but it goes on
    assert model.ask(SUM, frames(1), timeout_s=LONG_S).text == sums(1)
    assert (tmp_path / fake_engine.LOADED).read_text() == "xx"
    model.close()


def test_it_is_given_up_when_it_dies_again_and_again(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    model = started(process_model(tmp_path, "only_once", restart_after_s=(0.0, 0.0)))
    endless = Endless(model, pool)
    assert model.pid is not None
    os.kill(model.pid, signal.SIGKILL)
    with pytest.raises(ModelError, match="killed"):
        endless.future.result(LONG_S)
    given_up = r"killed \(signal 9\).*given up after 3 times in a row"
    with pytest.raises(ModelUnavailable, match=given_up):
        model.ask(SUM, frames(1), timeout_s=LONG_S)
    with pytest.raises(ModelUnavailable, match=given_up):
        model.set_context(frames(1))
    status = model.status()
    assert status.state == "failed"
    assert "given up" in status.reason
    model.close()


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time, test_model_worker as t; from pathlib import Path;"
        "model = t.started(t.process_model(Path(sys.argv[1]))); print(model.pid, flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    until(lambda: not alive(pid))


def test_ctrl_c_is_for_the_parent(tmp_path: Path) -> None:
    model = started(process_model(tmp_path))
    assert model.pid is not None
    os.kill(model.pid, signal.SIGINT)
    assert model.ask(SUM, frames(1)).text == sums(1)
    assert os.getpgid(model.pid) != os.getpgid(0), "and what the terminal sends does not reach it"
    model.close()


# ---- the rest of the house


def test_its_log_is_the_parents(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = started(process_model(tmp_path))
    with caplog.at_level(logging.WARNING):
        model.ask(ModelQuestion("log"), frames(1))
        until(lambda: ("fake_engine", logging.WARNING, "it is warm") in caplog.record_tuples)
    model.close()


def test_memory_of_the_process(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell the memory of processes in /proc")
    model = started(process_model(tmp_path))
    memory = model.status().memory
    assert 1 << 20 < memory["process"] <= memory["process_peak"] < 1 << 33
    model.close()


def test_memory_that_runs_out_takes_the_model_not_the_node(tmp_path: Path) -> None:
    if not Path("/proc/self/oom_score_adj").exists():
        pytest.skip("only Linux can be told whom to end first when memory runs out")
    model = started(process_model(tmp_path))
    scores = [int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in ("self", model.pid)]
    model.close()
    if scores == [0, 0]:
        pytest.skip("this container does not let a process change its oom_score_adj")
    assert scores[0] < scores[1]


def test_the_client_is_light() -> None:
    """A node starts without torch, whatever its model takes."""
    code = "import spatial_mllm_ros.serving.process, sys; print(*sorted({'torch', 'transformers'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_frames_are_sent_once() -> None:
    a, b, c, d = frames(1, 2, 3, 4)
    sent, held = SentFrames(), HeldFrames()
    first = sent.context([a, b])
    assert first == (a, b)
    assert held.context(first) == (a, b)
    question = sent.question([b, c])
    assert question == (2, c)
    assert held.question(question) == (b, c)
    second = sent.context([b, c, d])
    assert second == (2, c, d), "frames of a question are not kept"
    assert held.context(second) == (b, c, d)
    third = sent.context([a, d])
    assert third == (a, 4), "nor those of contexts before the last"
    assert held.context(third) == (a, d)


def test_images_of_any_layout_pass_the_channel() -> None:
    here, there = map(Channel, socket.socketpair())
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (480, 640, 3), dtype=np.uint8)
    constant = image.copy()
    constant.flags.writeable = False
    images = [image, image[::2, ::-1], np.asfortranarray(image), constant, image[:0]] * 120  # more than one call sends
    sender = threading.Thread(target=here.send, args=([ModelFrame(i, i, x) for i, x in enumerate(images)],))
    sender.start()
    received = there.receive()
    sender.join()
    assert all(np.array_equal(frame.image, images[frame.frame_id]) for frame in received)
    here.close()
    with pytest.raises(EOFError):
        there.receive()
    there.close()


# ---- with torch


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Spatial-MLLM with random weights."""
    pytest.importorskip("torch", reason="models need torch: pip install 'spatial_mllm_ros[model]'")
    from spatial_mllm_ros.models.mllm.random_weights import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


def tiny(checkpoint: Path, cache_mib: int = 64) -> ModelOptions:
    pixels = 28 * 28 * 6
    return ModelOptions(
        str(checkpoint), "float32", "cpu", min_pixels=pixels, max_pixels=pixels, max_new_tokens=8, cache_mib=cache_mib,
        threads=1,
    )  # fmt: skip


def test_a_checkpoint_answers_alike_here_and_there(checkpoint: Path) -> None:
    there = ProcessModel(tiny(checkpoint))
    there.start()
    seen: list[tuple[str, int, int]] = []
    there.wait_loaded(LONG_S, lambda *progress: seen.append(progress))
    assert all(0 <= done <= total for _, done, total in seen)
    assert len(seen) > 1, "nobody was told how loading goes"
    here = LocalModel.load(tiny(checkpoint))
    assert there.model_id == here.model_id
    images = [ModelFrame(i, i * 10**9, np.full((48, 64, 3), 40 * i, np.uint8)) for i in range(6)]
    either = ModelQuestion("Which is closer?", ("the chair", "the table"))
    pieces: list[str] = []
    for model in (here, there):
        model.set_context(images[:4])
    for question, own in ((SUM, None), (either, None), (SUM, images[2:])):
        answers = [
            model.ask(question, own, timeout_s=LONG_S, on_text=pieces.append if model is there else None)
            for model in (here, there)
        ]
        assert answers[0].token_ids == answers[1].token_ids
        assert answers[0].token_probabilities == pytest.approx(answers[1].token_probabilities, rel=1e-3)
        assert answers[0].choice_probabilities == pytest.approx(answers[1].choice_probabilities, rel=1e-3)
        assert answers[0].frame_ids == answers[1].frame_ids
        assert "".join(pieces) == answers[0].text
        pieces.clear()
    assert set(here.status().memory) <= set(there.status().memory)
    here.close()
    there.close()


def test_what_does_not_fit_is_refused_before_it_is_loaded(checkpoint: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"not enough memory on cpu .*needed .*free on cpu .*choose"):
        LocalModel.load(tiny(checkpoint, cache_mib=1 << 30))
