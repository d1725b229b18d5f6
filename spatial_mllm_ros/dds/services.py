"""Services and clients: a request and a reply are samples with a header that says whose they are.

The header, between CDR's and the body, is what ROS 2's layer on Cyclone DDS puts there: the instance handle of the
client's request writer (uint64) and a number of the client's own (int64). The server sends it back unchanged.
"""

from __future__ import annotations

import ctypes as ct
import itertools
import logging
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any

from spatial_mllm_ros.dds import library as dds
from spatial_mllm_ros.dds.endpoints import Reader, Writer, type_hash_data
from spatial_mllm_ros.dds.interfaces import HEADER_SIZE, MalformedPayload
from spatial_mllm_ros.dds.names import service_to_dds
from spatial_mllm_ros.dds.qos import Qos
from spatial_mllm_ros.dds.workers import WorkerPool

if TYPE_CHECKING:
    from spatial_mllm_ros.dds.node import DdsNode

IDENTITY = struct.Struct("<Qq")
BODY = HEADER_SIZE + IDENTITY.size
REPLY_READER_WAIT_S = 0.1
"""How long a reply waits until the client's reader has been discovered, as in ROS 2."""
POLL_S = 0.01
KNOWN_CLIENTS = 1024


class ServiceNotAvailable(TimeoutError):
    """No server of a service was found in time."""


class ServiceTimeout(TimeoutError):
    """A server was found, but it did not answer in time."""


class _Ends:
    """The writer and the reader that a service or a client consists of."""

    def __init__(
        self,
        node: DdsNode,
        type_name: str,
        name: str,
        qos: Qos,
        owner: Service | Client,
    ) -> None:
        server = isinstance(owner, Service)
        request, reply = service_to_dds(name)
        identity = f"{'serviceid' if server else 'clientid'}={node.next_endpoint_id()};"
        kinds = [(request, f"{type_name}_Request"), (reply, f"{type_name}_Response")]
        (read_topic, read_type), (write_topic, write_type) = kinds if server else reversed(kinds)

        def user_data(part: str) -> str:
            return identity + type_hash_data(node.interfaces, part)

        self.writer = Writer(node, write_topic, write_type, qos, user_data(write_type), name, owner)
        self.reader = Reader(
            node, read_topic, read_type, qos, user_data(read_type), name, owner.take, owner, in_events=True
        )

    def write(self, identity: bytes, body: memoryview) -> bool:
        return self.writer.write([bytes(body[:HEADER_SIZE]) + identity, body[HEADER_SIZE:]])

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


class Service:
    """Answers requests of one type. Made by DdsNode.create_service.

    ``handler`` gets a request and gives the response, or a Future of it, and runs in ``pool``. ``busy``, if given,
    makes the response to a request for which the pool's queue has no room, and ``failed`` that to one for which the
    handler (or its Future) raised; without them such a request is counted, logged and stays without a reply.
    """

    def __init__(
        self,
        node: DdsNode,
        type_name: str,
        name: str,
        handler: Callable[[Any], Any],
        pool: WorkerPool,
        qos: Qos,
        busy: Callable[[Any], Any] | None,
        failed: Callable[[Any, BaseException], Any] | None,
    ) -> None:
        self.name = name
        self.type_name = type_name
        self._node = node
        self._handler = handler
        self._pool = pool
        self._busy = busy
        self._failed = failed
        self._known: dict[int, None] = {}
        self._ends = _Ends(node, type_name, name, qos, self)
        node.graph.add(self, readers=[self._ends.reader.guid], writers=[self._ends.writer.guid])
        self._ends.reader.start()

    def close(self) -> None:
        """Stop answering; the node does it too when it closes."""
        if self._node.forget(self):
            self._node.graph.remove(self)
            self._ends.close()

    def take(self, data: bytes, info: dds.Sample) -> None:
        """Handle a request as it came."""
        try:
            request = _decode(self._node, data, f"{self.type_name}_Request")
        except MalformedPayload as error:
            self._node.troubles.add("malformed", self.name, f"dropped a request: {error}")
            return
        identity, writer = data[HEADER_SIZE:BODY], int(info.writer)
        if not self._pool.submit(lambda: self._answer(request, identity, writer)):
            self._node.troubles.add("busy", self.name, "too many requests are waiting")
            if self._busy is not None:
                self._reply(self._busy(request), identity, writer)

    def _answer(self, request: Any, identity: bytes, writer: int) -> None:
        try:
            response = self._handler(request)
        except Exception as error:  # noqa: BLE001 - whatever the handler raises is told to the caller, or at least to the log
            self._fail(request, identity, writer, error)
            return
        if isinstance(response, Future):
            response.add_done_callback(lambda future: self._answer_later(future, request, identity, writer))
        else:
            self._reply(response, identity, writer)

    def _answer_later(self, future: Future[Any], request: Any, identity: bytes, writer: int) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._reply(future.result(), identity, writer)
        else:
            self._fail(request, identity, writer, error)

    def _fail(self, request: Any, identity: bytes, writer: int, error: BaseException) -> None:
        message = f"the handler failed: {type(error).__name__}: {error}"
        self._node.troubles.add("handler_failed", self.name, message, level=logging.ERROR, error=error)
        if self._failed is not None:
            self._reply(self._failed(request, error), identity, writer)

    def _reply(self, response: Any, identity: bytes, writer: int) -> None:
        troubles = self._node.troubles
        try:
            body = self._node.interfaces.encode(response, f"{self.type_name}_Response")
            if not self._wait_for_reader(writer):
                troubles.add("client_gone", self.name, "a client went away before its reply", level=logging.DEBUG)
                return
            self._ends.write(identity, body)
        except (ValueError, dds.DdsError) as error:
            troubles.add("reply_failed", self.name, f"no reply was sent: {error}", level=logging.ERROR)

    def _wait_for_reader(self, writer: int) -> bool:
        """Wait until the client's reader is known here, since a reply written before is lost; False: it is gone."""
        reader, replies = self._ends.reader.entity, self._ends.writer.entity
        client = _matched_id(reader, writer, "clientid", of_writer=True)
        if client is None:
            return False
        if not client or writer in self._known:  # without an id nothing can be waited for
            return True
        until = time.monotonic() + REPLY_READER_WAIT_S
        while client not in _matched_ids(replies, "clientid", of_writers=False):
            if time.monotonic() > until:
                return False
            time.sleep(POLL_S)
        if len(self._known) >= KNOWN_CLIENTS:
            self._known.clear()
        self._known[writer] = None
        return True


class Client:
    """Calls one service. Made by DdsNode.create_client; any number of threads may call at the same time."""

    def __init__(self, node: DdsNode, type_name: str, name: str, qos: Qos) -> None:
        self.name = name
        self.type_name = type_name
        self._node = node
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._ends = _Ends(node, type_name, name, qos, self)
        self._handle = dds.instance_handle(self._ends.writer.entity)
        node.graph.add(self, readers=[self._ends.reader.guid], writers=[self._ends.writer.guid])
        self._ends.reader.start()

    def is_available(self) -> bool:
        """Whether a server is there whose both ends have been discovered."""
        writer, reader = self._ends.writer, self._ends.reader
        servers = set(_matched_ids(writer.entity, "serviceid", of_writers=False))
        repliers = set(_matched_ids(reader.entity, "serviceid", of_writers=True))
        return bool((servers & repliers) - {""} or ("" in servers and "" in repliers))

    def wait_for_service(self, timeout_s: float) -> bool:
        """Wait until a server is there; False when none came within the time."""
        until = time.monotonic() + timeout_s
        while not self.is_available():
            if time.monotonic() >= until:
                return False
            time.sleep(POLL_S)
        return True

    def call(self, request: Any, timeout_s: float) -> Any:
        """The response to a request, within ``timeout_s`` altogether, waiting for the server included.

        Raises ServiceNotAvailable, ServiceTimeout, MalformedPayload (the reply is not of this type), ValueError (the
        request is not) and DdsError.
        """
        until = time.monotonic() + timeout_s
        if not self.wait_for_service(timeout_s):
            raise ServiceNotAvailable(
                f"no server of {self.name} ({self.type_name}) was found within {timeout_s:g} s in domain "
                f"{self._node.domain_id}: is its node running and active, in the same ROS_DOMAIN_ID, on a Cyclone DDS "
                "(RMW_IMPLEMENTATION=rmw_cyclonedds_cpp)?"
            )
        number, future = self._send(request)
        try:
            return future.result(max(0.0, until - time.monotonic()))
        except FutureTimeout:
            raise ServiceTimeout(f"{self.name} did not answer within {timeout_s:g} s") from None
        finally:
            self._waiting.pop(number, None)

    def call_async(self, request: Any) -> Future[Any]:
        """A Future of the response. Nothing ends it when no reply comes: cancel it then, which forgets the request.

        A request sent while no server is there is lost. Raises ValueError and DdsError.
        """
        number, future = self._send(request)
        future.add_done_callback(lambda _: self._waiting.pop(number, None))
        return future

    def close(self) -> None:
        """Give up what is waiting for replies; the node does it too when it closes."""
        if self._node.forget(self):
            self._node.graph.remove(self)
            self._ends.close()
            for future in list(self._waiting.values()):
                future.cancel()

    def _send(self, request: Any) -> tuple[int, Future[Any]]:
        body = self._node.interfaces.encode(request, f"{self.type_name}_Request")
        number, future = next(self._numbers), Future[Any]()
        self._waiting[number] = future
        try:
            sent = self._ends.write(IDENTITY.pack(self._handle, number), body)
        except BaseException:
            del self._waiting[number]
            raise
        if not sent:
            del self._waiting[number]
            raise ServiceTimeout(f"{self.name} does not take requests: its queue is full")
        return number, future

    def take(self, data: bytes, info: dds.Sample) -> None:
        """Handle a reply as it came, perhaps to another client."""
        if len(data) < BODY:
            self._node.troubles.add("malformed", self.name, f"dropped a reply of {len(data)} bytes")
            return
        handle, number = IDENTITY.unpack_from(data, HEADER_SIZE)
        future = self._waiting.pop(number, None) if handle == self._handle else None
        if future is None or not future.set_running_or_notify_cancel():
            return  # another client's reply, or one that nobody waits for any more
        try:
            future.set_result(_decode(self._node, data, f"{self.type_name}_Response"))
        except MalformedPayload as error:
            self._node.troubles.add("malformed", self.name, f"dropped a reply: {error}")
            future.set_exception(error)


def _decode(node: DdsNode, data: bytes, type_name: str) -> Any:
    if len(data) < BODY:
        raise MalformedPayload(f"{len(data)} bytes, which is less than a service's header")
    return node.interfaces.decode(data[:HEADER_SIZE] + data[BODY:], type_name)


def _matched(entity: int, of_writers: bool) -> list[int]:
    """Instance handles of the remote ends that an entity talks to."""
    lib = dds.library()
    ask = lib.dds_get_matched_publications if of_writers else lib.dds_get_matched_subscriptions
    count = max(0, ask(entity, None, 0))
    while count:
        handles = (ct.c_uint64 * count)()
        now = max(0, ask(entity, handles, count))
        if now <= count:
            return list(handles[:now])
        count = now
    return []


def _matched_id(entity: int, handle: int, key: str, of_writer: bool) -> str | None:
    """An id from a matched end's USER_DATA, '' when it has none; None when the end is not matched any more."""
    lib = dds.library()
    ask = lib.dds_get_matched_publication_data if of_writer else lib.dds_get_matched_subscription_data
    endpoint = ask(entity, handle)
    if not endpoint:
        return None
    try:
        return dds.user_data(endpoint.contents.qos).get(key, "")
    finally:
        lib.dds_builtintopic_free_endpoint(endpoint)


def _matched_ids(entity: int, key: str, of_writers: bool) -> Iterator[str]:
    for handle in _matched(entity, of_writers):
        found = _matched_id(entity, handle, key, of_writers)
        if found is not None:
            yield found
