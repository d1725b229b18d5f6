"""``spatial-mllm bench service``: what a question costs beyond its answer, and many clients at once."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from spatial_mllm_ros.bench import wire
from spatial_mllm_ros.clients.client import SpatialQueryClient
from spatial_mllm_ros.queries.answer import Answer, ImagePoint, Request
from spatial_mllm_ros.simulation.rendered import RenderedSource

Progress = Callable[[str, int, int | None], None]
FRAMES, WIDTH, HEIGHT = 60, 320, 240
SCENE = f"rendered:rooms=1,frames={FRAMES},size={WIDTH}x{HEIGHT}"
CLIENTS = 64
SHORT_QUEUE = 8
"""Questions that may wait at the node that is asked by more than it can serve."""


def run(count: int = 500, each: int = 20, progress: Progress = lambda what, done, total: None) -> dict[str, Any]:
    """Round trips of ``count`` questions one by one, and CLIENTS clients asking ``each`` questions at the same time: a
    node with its usual queue, and one whose queue is too short for them."""
    with wire.alone():
        with wire.processes([["-m", "spatial_mllm_ros.bench.service", "64"]]) as (node,):
            progress("starting a node", 0, None)
            assert wire.read_line(node) == "ready"
            alone = one_by_one(count, progress)
            together = at_once(each, progress)
        with wire.processes([["-m", "spatial_mllm_ros.bench.service", str(SHORT_QUEUE)]]) as (node,):
            assert wire.read_line(node) == "ready"
            crowded = at_once(each, progress)
    inside = in_process(count, progress)
    return {
        "one_by_one": alone,
        "in_process": inside,
        "round_trip_to_in_process": alone["round_trip_median_ms"] / inside["round_trip_median_ms"],
        "runs": [{"query_queue": 64, **together}, {"query_queue": SHORT_QUEUE, **crowded}],
        "questions_a_second_many_clients_to_one": together["answers_a_second"] / alone["answers_a_second"],
        "lost": alone["lost"] + together["lost"] + crowded["lost"],
    }


def one_by_one(count: int, progress: Progress) -> dict[str, Any]:
    """One client that asks again when it has its answer."""
    with SpatialQueryClient(ros_args=[]) as client:
        question = _question(client)
        client.ask(question)
        trips, engine = [], []
        begin = time.monotonic()
        for i in range(count):
            progress("one by one", i, count)
            start = time.perf_counter()
            answer = client.ask(question)
            trips.append(time.perf_counter() - start)
            engine.append(answer.time_generating / 1e9)
            assert not answer.error_code, answer.error_msg
        wall = time.monotonic() - begin
    return {"questions": count, "lost": count - len(trips), "answers_a_second": count / wall, **_figures(trips, engine)}


def in_process(count: int, progress: Progress) -> dict[str, Any]:
    """The same with the engine in this process: what is left of a round trip without the wire."""
    from spatial_mllm_ros.nodes.live import LiveEngine

    engine = LiveEngine(_settings(64))
    source = RenderedSource.from_spec(SCENE)
    for frame in source.frames():
        engine.memory.add(frame)
    question = Request("How far is <p0>?", points=(ImagePoint(int(source.stamps[-1]), "", WIDTH / 2, HEIGHT / 2),))
    trips, generating = [], []
    engine.start()
    try:
        for i in range(count):
            progress("in this process", i, count)
            start = time.perf_counter()
            answer = engine.ask(question).result()
            trips.append(time.perf_counter() - start)
            generating.append(answer.time_generating / 1e9)
    finally:
        engine.stop()
    return _figures(trips, generating)


def at_once(each: int, progress: Progress) -> dict[str, Any]:
    """CLIENTS clients, each with endpoints and a thread of its own."""
    from spatial_mllm_ros.dds import DdsNode

    counts: Counter[str] = Counter()
    trips: list[float] = []
    lock = threading.Lock()
    with DdsNode("crowd", ros_args=[]) as node:
        clients = [SpatialQueryClient(node=node) for _ in range(CLIENTS)]
        question = _question(clients[0])
        if not all(client.wait_for_service(20.0) for client in clients):
            raise RuntimeError("the node is not found by all clients")
        start = threading.Barrier(CLIENTS)

        def work(client: SpatialQueryClient) -> None:
            start.wait()
            for _ in range(each):
                begin = time.perf_counter()
                try:
                    outcome = client.ask(question).error_code.name
                except TimeoutError:
                    outcome = "lost"
                with lock:
                    counts[outcome] += 1
                    trips.append(time.perf_counter() - begin)
                    progress(f"{CLIENTS} clients", len(trips), CLIENTS * each)

        begin = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as threads:
            list(threads.map(work, clients))
        wall = time.monotonic() - begin
    asked = CLIENTS * each
    return {
        "clients": CLIENTS,
        "questions": asked,
        "answered": counts["NONE"],
        "told_busy": counts["BUSY"],
        "other": asked - counts["NONE"] - counts["BUSY"] - counts["lost"],
        "lost": counts["lost"],
        "answers_a_second": asked / wall,
        "round_trip_p99_ms": 1e3 * float(np.percentile(trips, 99)),
    }


def _figures(trips: list[float], engine: list[float]) -> dict[str, float]:
    beyond = np.subtract(trips, engine)
    return {
        "round_trip_median_ms": 1e3 * float(np.median(trips)),
        "engine_median_ms": 1e3 * float(np.median(engine)),
        "beyond_engine_median_ms": 1e3 * float(np.median(beyond)),
        "beyond_engine_p99_ms": 1e3 * float(np.percentile(beyond, 99)),
    }


def _question(client: SpatialQueryClient) -> Request:
    """A measurement at a pixel of the last image: what a planner asks most."""
    until = time.monotonic() + 30.0
    while (seen := client.seen()) is None:
        if time.monotonic() > until:
            raise RuntimeError("the node has seen nothing")
        time.sleep(0.05)
    question = Request("How far is <p0>?", points=(ImagePoint(seen[1], "", WIDTH / 2, HEIGHT / 2),))
    answer: Answer = client.ask(question)
    if answer.error_code:
        raise RuntimeError(f"the node does not answer: {answer.error_msg}")
    return question


def _settings(queue: int) -> Any:
    from spatial_mllm_ros.nodes.parameters import Settings

    return Settings(fixed_frame="map", query_queue=queue)


def _node(queue: int) -> None:
    """The node as a process, which has seen a short walk."""
    from spatial_mllm_ros.nodes.dds_node import SpatialMllmDdsNode

    with SpatialMllmDdsNode(values={"fixed_frame": "map", "query_queue": queue}) as node:
        if not node.start():
            raise SystemExit(node.failure)
        assert node.engine is not None
        for frame in RenderedSource.from_spec(SCENE).frames():
            node.engine.memory.add(frame)
        print("ready", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    _node(int(sys.argv[1]))
