"""A client of a live node's SpatialQuery service and action, without ROS 2 installed.

    with SpatialQueryClient() as client:
        p0, p1 = ImagePoint(stamp_ns, "", 320, 240), ImagePoint(stamp_ns, "", 100, 90)
        answer = client.questions.distance(p0, p1)           # typed: no words are read
        answer = client.ask("How far is <p0>?", points=[p0])  # in words
        print(answer.answer if not answer.error_code else answer.error_msg)

It calls the node of ROS 2 (on Cyclone DDS) and the one without alike.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from spatial_mllm_ros.dds import ActionClient, DdsNode
from spatial_mllm_ros.nodes import convert
from spatial_mllm_ros.nodes.batch import BatchAnswer
from spatial_mllm_ros.queries.answer import Answer, Request
from spatial_mllm_ros.queries.builders import Questions

SERVICE, BATCH_SERVICE = "spatial_query", "spatial_queries"
ANSWER_TIME_S = 30.0
"""The node's own limit by default."""
GRACE_S = 5.0
"""A node answers TIMEOUT by itself when its limit passes; the client waits for that a little longer."""
_ENDS = ("How far did the camera travel?", "Where was the camera at the start?")
"""Of the past, so that they are answered also when no camera has sent for a while; the second one where one pose is all."""
_AT = "Where was the camera at <t0>?"


class SpatialQueryClient:
    """Asks a live node. Any number of threads may ask at the same time.

    service: its name, and the action's, before remapping by ros_args. node: one to be part of; None: a node of its own,
    called ``name``, in domain_id (None: ROS_DOMAIN_ID). wait_s: how long the service is waited for.

    A context manager. Raises DdsNotInstalled, DdsError, DomainError, InvalidName and RosArgumentError.
    """

    def __init__(
        self,
        service: str = SERVICE,
        *,
        node: DdsNode | None = None,
        name: str = "spatial_query_client",
        domain_id: int | None = None,
        ros_args: Sequence[str] = (),
        wait_s: float = 10.0,
    ) -> None:
        self.wait_s = wait_s
        self._own = None if node is not None else DdsNode(name, domain_id=domain_id, ros_args=ros_args)
        used = node or self._own
        assert used is not None
        self._make = convert.RosbagsMaker(used.message)
        self._client = used.create_client(convert.SERVICE_TYPE, service)
        self._new_action = partial(used.create_action_client, convert.ACTION_TYPE, service)
        self._action: ActionClient | None = None
        self._new_batch = partial(used.create_client, convert.BATCH_TYPE, BATCH_SERVICE)
        self._batch: Any = None
        self._lock = threading.Lock()
        self.questions: Questions[Answer] = Questions(self.ask)
        """Typed questions as methods: ``questions.distance(a, b)``, ``questions.camera_pose()`` …"""

    def __enter__(self) -> SpatialQueryClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def service_name(self) -> str:
        """The full name of the service."""
        return self._client.name

    def wait_for_service(self, timeout_s: float | None = None) -> bool:
        """Whether a node serves, or begins to within the time (None: wait_s)."""
        return self._client.wait_for_service(self.wait_s if timeout_s is None else timeout_s)

    def ask(self, question: str | Request, *, on_text: Callable[[str], None] | None = None, **fields: Any) -> Answer:
        """The answer. question: a Request, or its text, with the Request's other fields by name.

        on_text: given the text of a model that answers, piece by piece, in another thread. Whatever ends the waiting for
        the answer, Ctrl-C for one, then gives the question up in the node, too.

        What is wrong with a question comes back as the answer's code. Raises ServiceNotAvailable when no node serves,
        ServiceTimeout when it does not answer within the request's time limit, MalformedPayload and DdsError.
        """
        request = _request(question, fields)
        limit = request.timeout / 1e9 if request.timeout > 0 else ANSWER_TIME_S
        available = self.wait_for_service()  # if not, ``call`` says so at once
        wait = limit + GRACE_S if available else 0.0
        if on_text is None:
            return convert.answer_of(self._client.call(convert.request_message(request, self._make), wait))
        goal = convert.request_message(request, self._make, convert.GOAL)
        with self._lock:
            if self._action is None:  # a client of the service alone takes less discovery
                self._action = self._new_action()
        _, result = self._action.call(goal, wait, _Pieces(on_text))
        return convert.answer_of(result)

    def ask_all(self, requests: Sequence[Request]) -> BatchAnswer:
        """Answers to several requests over one state of the node's memory.

        They share marks, window, frame and time limit. Raises QueryError for a batch that does not, or that is not answered
        as a whole, and what ``ask`` raises.
        """
        message = convert.batch_message(requests, self._make)
        with self._lock:
            if self._batch is None:
                self._batch = self._new_batch()
        limit = requests[0].timeout / 1e9 if requests[0].timeout > 0 else ANSWER_TIME_S
        wait = limit + GRACE_S if self._batch.wait_for_service(self.wait_s) else 0.0
        return convert.batch_of(self._batch.call(message, wait))

    def ask_async(self, question: str | Request, **fields: Any) -> Future[Answer]:
        """A Future of the answer; nothing ends it when none comes, so wait for it with a time limit and cancel it then.

        A question sent while no node serves is lost. Raises ValueError and DdsError.
        """
        answer: Future[Answer] = Future()
        sent = self._client.call_async(convert.request_message(_request(question, fields), self._make))

        def pass_on(response: Future[Any]) -> None:
            if response.cancelled():
                answer.cancel()
            elif answer.set_running_or_notify_cancel():
                error = response.exception()
                if error is None:
                    answer.set_result(convert.answer_of(response.result()))
                else:
                    answer.set_exception(error)

        sent.add_done_callback(pass_on)
        answer.add_done_callback(lambda given_up: given_up.cancelled() and sent.cancel())
        return answer

    def seen(self) -> tuple[int, int] | None:
        """Stamps (ns) of the first and the last image that the node remembers a pose of; None when there is none."""
        answers = (answer for question in _ENDS if not (answer := self.ask(question)).error_code and answer.last_stamp)
        return next(((answer.first_stamp, answer.last_stamp) for answer in answers), None)

    def nearest(self, stamp_ns: int) -> int | None:
        """Stamp (ns) of the image nearest to a moment, as near as the node's moment_tolerance_s; None: there is none."""
        answer = self.ask(_AT, times=[stamp_ns])
        return None if answer.error_code else answer.first_stamp or None

    def close(self) -> None:
        """End it, and its node if it is its own."""
        self._client.close()
        for client in (self._action, self._batch):
            if client is not None:
                client.close()
        if self._own is not None:
            self._own.close()


class _Pieces:
    """Passes on what is new in each feedback."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text, self._passed = on_text, 0

    def __call__(self, feedback: Any) -> None:
        piece = feedback.partial_answer[self._passed :]
        self._passed += len(piece)
        self._on_text(piece)


def _request(question: str | Request, fields: dict[str, Any]) -> Request:
    if isinstance(question, Request):
        if fields:
            raise TypeError("give a Request, or a question with fields, not both")
        return question
    for name in ("choices", "points", "boxes", "times"):
        if name in fields:
            fields[name] = tuple(fields[name])
    return Request(question, **fields)
