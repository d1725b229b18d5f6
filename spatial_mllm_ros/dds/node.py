"""A node of ROS 2 without ROS 2: to others on Cyclone DDS it is like any of theirs."""

from __future__ import annotations

import atexit
import itertools
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from spatial_mllm_ros.dds import domain, graph
from spatial_mllm_ros.dds import library as dds
from spatial_mllm_ros.dds.actions import ActionClient, ActionServer, Execute
from spatial_mllm_ros.dds.endpoints import Payload, Publisher, SampleInfo, Subscription
from spatial_mllm_ros.dds.interfaces import interfaces
from spatial_mllm_ros.dds.loop import Loop
from spatial_mllm_ros.dds.qos import DEFAULT, SERVICES, Qos, QosMismatch, dds_qos, qos_profile
from spatial_mllm_ros.dds.ros_args import RosArguments
from spatial_mllm_ros.dds.services import Client, Service
from spatial_mllm_ros.dds.troubles import Troubles
from spatial_mllm_ros.dds.workers import WorkerPool

LOG = logging.getLogger(__name__)
_Owned = TypeVar("_Owned", Publisher, Subscription, Service, Client)


class DdsNode:
    """A node: publishers, subscriptions, services and clients in a DDS domain.

    name, namespace: before remapping. domain_id: None takes ROS_DOMAIN_ID. ros_args: the command line without the
    program's name, of which what follows --ros-args counts; None takes sys.argv. on_qos_mismatch is called, besides a
    warning in the log, when another's endpoint cannot be talked to for its quality of service.

    Callbacks of subscriptions run one at a time, in one thread of the node's own; those of services run in their pools,
    and both may call clients. What goes wrong with single messages does not raise: it is logged, and counted in
    ``troubles.counts`` (malformed, callback_failed, not_written, busy, handler_failed, reply_failed, client_gone).

    A context manager; ``close`` takes everything away, also at the interpreter's end. Raises DdsNotInstalled, DdsError,
    DomainError, InvalidName and RosArgumentError.
    """

    def __init__(
        self,
        name: str,
        namespace: str = "/",
        *,
        domain_id: int | None = None,
        ros_args: Sequence[str] | None = None,
        on_qos_mismatch: Callable[[QosMismatch], None] | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self.arguments = RosArguments.parse(sys.argv[1:] if ros_args is None else ros_args)
        self.name = self.arguments.node_name(name, namespace)
        self.logger = logger or LOG
        self.troubles = Troubles(self.logger)
        self.domain_id = domain.domain_id(domain_id)
        self.interfaces = interfaces()
        self._on_qos_mismatch = on_qos_mismatch
        self._numbers = itertools.count(1)
        self._owned: dict[Publisher | Subscription | Service | Client, None] = {}
        self._lock = threading.RLock()
        self._closed = False
        domain.join(self.domain_id)
        try:
            with dds_qos(None, f"enclave={self.arguments.enclave};") as qos:
                self.participant = dds.check(
                    dds.library().dds_create_participant(self.domain_id, qos, None),
                    f"creating a participant in domain {self.domain_id}",
                )
        except BaseException:
            domain.leave(self.domain_id)
            raise
        self.data = Loop(self.participant, f"{name}-data", self.troubles)
        self.events = Loop(self.participant, f"{name}-events", self.troubles)
        self._default_pool: WorkerPool | None = None
        self.graph = graph.Graph(self)
        self.graph.tell()
        atexit.register(self.close)

    def __enter__(self) -> DdsNode:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create_publisher(self, type_name: str, topic: str, qos: str | Qos = DEFAULT) -> Publisher:
        """A publisher. topic: relative to the namespace, ~/private or /absolute; remapped. qos: a name in PROFILES, or
        a QosProfile. Raises UnknownType, InvalidName, ValueError and DdsError."""
        full = self.arguments.resolve(self.name, topic, "topic")
        return self._keep(lambda: Publisher(self, type_name, full, qos_profile(qos)))

    def create_subscription(
        self, type_name: str, topic: str, callback: Callable[[Payload, SampleInfo], None], qos: str | Qos = DEFAULT
    ) -> Subscription:
        """A subscription, whose callback gets every message, not decoded yet, and where it comes from.

        A callback that lets MalformedPayload from ``decode`` pass drops the message, which is counted and logged. While
        it runs, messages of this node's other subscriptions wait too, ``depth`` of each: hand work on to other threads.
        """
        full = self.arguments.resolve(self.name, topic, "topic")
        return self._keep(lambda: Subscription(self, type_name, full, qos_profile(qos), callback))

    def create_service(
        self,
        type_name: str,
        name: str,
        handler: Callable[[Any], Any],
        *,
        pool: WorkerPool | None = None,
        qos: str | Qos = SERVICES,
        busy: Callable[[Any], Any] | None = None,
        failed: Callable[[Any, BaseException], Any] | None = None,
    ) -> Service:
        """A service (see there for handler, busy and failed). pool None: one that the node's small services share."""
        full = self.arguments.resolve(self.name, name, "service")
        chosen = pool or self._pool()
        return self._keep(lambda: Service(self, type_name, full, handler, chosen, qos_profile(qos), busy, failed))

    def create_client(self, type_name: str, name: str, qos: str | Qos = SERVICES) -> Client:
        """A client of a service."""
        full = self.arguments.resolve(self.name, name, "service")
        return self._keep(lambda: Client(self, type_name, full, qos_profile(qos)))

    def create_action_server(self, type_name: str, name: str, execute: Execute, **options: Any) -> ActionServer:
        """An action server (see there)."""
        return ActionServer(self, type_name, name, execute, **options)

    def create_action_client(self, type_name: str, name: str) -> ActionClient:
        """A client of an action."""
        return ActionClient(self, type_name, name)

    def parameter_overrides(self) -> dict[str, Any]:
        """Values for this node's parameters from --params-file and -p."""
        return self.arguments.parameters(self.name)

    def message(self, type_name: str, **values: Any) -> Any:
        """A message of a type with the given fields, the others zero or empty."""
        return self.interfaces.message(type_name, **values)

    def endpoints(self) -> list[graph.TopicEndpoint]:
        """All publishers and subscriptions in the domain that discovery has found so far, this node's included."""
        return list(graph.endpoints(self.participant))

    def topics(self) -> dict[str, list[str]]:
        """All topics with a publisher or a subscription, and the types they have."""
        found: dict[str, list[str]] = {}
        for endpoint in sorted(self.endpoints(), key=lambda e: (e.topic, e.type_name)):
            types = found.setdefault(endpoint.topic, [])
            if endpoint.type_name not in types:
                types.append(endpoint.type_name)
        return found

    def services(self) -> dict[str, str]:
        """All services with a server, and their types."""
        return graph.services(self.participant)

    def close(self) -> None:
        """Take the node and all that was made by it out of the domain. May be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self.close)
        for owned in list(self._owned):
            owned.close()
        if self._default_pool is not None:
            self._default_pool.close()
        self.graph.close()
        self.data.close()
        self.events.close()
        dds.library().dds_delete(self.participant)
        domain.leave(self.domain_id)

    @contextmanager
    def topic(self, dds_name: str, dds_type_name: str) -> Iterator[int]:
        """A DDS topic to make an endpoint of, which goes on using it afterwards."""
        entity = dds.create_topic(self.participant, dds_name, dds_type_name)
        try:
            yield entity
        finally:
            dds.library().dds_delete(entity)

    def next_endpoint_id(self) -> str:
        """An id for a service or client that no other has: participant's prefix and a number, as ROS 2 writes it."""
        octets = dds.guid(self.participant)[:12] + next(self._numbers).to_bytes(4, "big")
        return ".".join(f"{octet:x}" for octet in octets)

    def tell_mismatch(self, mismatch: QosMismatch) -> None:
        """Log a quality of service that does not fit, and hand it to who asked for it."""
        self.troubles.add("qos_mismatch", mismatch.topic, str(mismatch))
        if self._on_qos_mismatch is not None:
            self._on_qos_mismatch(mismatch)

    def forget(self, owned: Publisher | Subscription | Service | Client) -> bool:
        """Whether ``owned`` was still open; from now on it is not."""
        with self._lock:
            return self._owned.pop(owned, 0) is None

    def _keep(self, make: Callable[[], _Owned]) -> _Owned:
        """What ``make`` makes, to be closed with the node; who closes it before it is made waits."""
        with self._lock:
            if self._closed:
                raise dds.DdsError(f"node {self.name.full} is closed")
            made = make()
            self._owned[made] = None
            return made

    def _pool(self) -> WorkerPool:
        with self._lock:
            if self._default_pool is None:
                self._default_pool = WorkerPool(2, 256, f"{self.name.name}-services")
            return self._default_pool
