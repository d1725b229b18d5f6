"""Publishers and subscriptions."""

from __future__ import annotations

import ctypes as ct
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spatial_mllm_ros.dds import library as dds
from spatial_mllm_ros.dds.interfaces import Interfaces, MalformedPayload
from spatial_mllm_ros.dds.names import dds_type, topic_to_dds
from spatial_mllm_ros.dds.qos import POLICIES, Qos, QosMismatch, dds_qos

if TYPE_CHECKING:
    from spatial_mllm_ros.dds.node import DdsNode

BATCH = 8
"""Samples that one reader gives before others get their turn."""


@dataclass(frozen=True)
class SampleInfo:
    """Where a message comes from. stamp_ns: when it was published, by the publisher's clock, since the Unix epoch.

    publisher: a number that tells publishers apart, as long as this process lives.
    """

    topic: str
    stamp_ns: int
    publisher: int


class Payload:
    """A message as it came, decoded when first asked for, and then kept."""

    __slots__ = ("_decoded", "_interfaces", "data", "type_name")

    def __init__(self, data: bytes, type_name: str, interfaces: Interfaces) -> None:
        self.data = data
        self.type_name = type_name
        self._interfaces = interfaces
        self._decoded: Any = None

    def decode(self) -> Any:
        """The message; its arrays of numbers look into ``data``. Raises MalformedPayload."""
        if self._decoded is None:
            self._decoded = self._interfaces.decode(self.data, self.type_name)
        return self._decoded


def type_hash_data(interfaces: Interfaces, type_name: str) -> str:
    """What ROS 2 puts into USER_DATA of an endpoint so that others see the version of its type."""
    return f"typehash={interfaces.hash(type_name)};"


class Writer:
    """A DDS writer of a type of ROS 2."""

    def __init__(
        self, node: DdsNode, dds_topic: str, type_name: str, qos: Qos, user_data: str, label: str, owner: Any = None
    ) -> None:
        self.label = label
        self._node = node
        self._owner = owner
        with node.topic(dds_topic, dds_type(type_name)) as topic, dds_qos(qos, user_data) as made:
            self.entity = dds.check(
                dds.library().dds_create_writer(node.participant, topic, made, None), f"creating a writer on {label}"
            )
        self.guid = dds.guid(self.entity)
        self._serialised = dds.serialised_type(self.entity)
        dds.library().dds_set_status_mask(self.entity, dds.OFFERED_INCOMPATIBLE_QOS)
        self._cookie = node.events.attach(self.entity, self._mismatch)

    def write(self, parts: Sequence[bytes | bytearray | memoryview]) -> bool:
        """Write one sample; False (counted: not_written) when slow readers kept the queue full. Raises DdsError."""
        status = dds.write(self.entity, self._serialised, parts)
        if status == dds.TIMEOUT:
            self._node.troubles.add(
                "not_written", self.label, "a reliable subscription does not keep up; a message was dropped"
            )
            return False
        dds.check(status, f"writing to {self.label}")
        return True

    def matched(self) -> int:
        """How many readers get what is written."""
        return max(0, dds.library().dds_get_matched_subscriptions(self.entity, None, 0))

    def close(self) -> None:
        """Delete it."""
        self._node.events.detach(self._cookie)
        dds.library().dds_delete(self.entity)

    def _mismatch(self) -> bool:
        status = dds.IncompatibleQos()
        dds.library().dds_get_offered_incompatible_qos_status(self.entity, ct.byref(status))
        if status.change > 0:
            policy = POLICIES.get(status.policy, "quality of service")
            self._node.tell_mismatch(QosMismatch(self.label, policy, True, self._owner))
        return False


class Reader:
    """A DDS reader of a type of ROS 2, which hands every sample's bytes to ``take``."""

    def __init__(
        self,
        node: DdsNode,
        dds_topic: str,
        type_name: str,
        qos: Qos,
        user_data: str,
        label: str,
        take: Callable[[bytes, dds.Sample], None],
        owner: Any,
        *,
        in_events: bool = False,
    ) -> None:
        self.label = label
        self._node = node
        self._owner = owner
        self._take = take
        self._loop = node.events if in_events else node.data
        with node.topic(dds_topic, dds_type(type_name)) as topic, dds_qos(qos, user_data) as made:
            self.entity = dds.check(
                dds.library().dds_create_reader(node.participant, topic, made, None), f"creating a reader on {label}"
            )
        self.guid = dds.guid(self.entity)
        dds.library().dds_set_status_mask(self.entity, dds.DATA_AVAILABLE | dds.REQUESTED_INCOMPATIBLE_QOS)
        self._cookie: int | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to call ``take``; what came before is not lost."""
        self._cookie = self._loop.attach(self.entity, self._on_status)

    def matched(self) -> int:
        """How many writers it hears."""
        return max(0, dds.library().dds_get_matched_publications(self.entity, None, 0))

    def close(self) -> None:
        """Delete it; when this returns, ``take`` is not being called, unless this was called from it."""
        self._closed = True
        if self._cookie is not None:
            self._loop.detach(self._cookie)
        dds.library().dds_delete(self.entity)

    def _on_status(self) -> bool:
        status = dds.IncompatibleQos()
        dds.library().dds_get_requested_incompatible_qos_status(self.entity, ct.byref(status))
        if status.change > 0:
            policy = POLICIES.get(status.policy, "quality of service")
            self._node.tell_mismatch(QosMismatch(self.label, policy, False, self._owner))
        samples = [] if self._closed else dds.take(self.entity, BATCH)
        for payload, info in samples:
            if payload and not self._closed:
                self._take(payload, info)
        return len(samples) == BATCH and not self._closed


class Publisher:
    """Publishes messages of one type on one topic. Made by DdsNode.create_publisher."""

    def __init__(self, node: DdsNode, type_name: str, topic: str, qos: Qos) -> None:
        self.topic = topic
        self.type_name = type_name
        self._node = node
        self._interfaces = node.interfaces
        self._writer = Writer(
            node, topic_to_dds(topic), type_name, qos, type_hash_data(node.interfaces, type_name), topic, self
        )
        node.graph.add(self, writers=[self._writer.guid])

    def publish(self, message: Any) -> bool:
        """Publish a message: an object with the type's fields, or its CDR with header as bytes.

        False when it was dropped because a reliable subscription does not keep up. Raises ValueError for a message that
        is not of this type, and DdsError.
        """
        is_encoded = isinstance(message, (bytes, bytearray, memoryview))
        return self._writer.write([message if is_encoded else self._interfaces.encode(message, self.type_name)])

    @property
    def subscription_count(self) -> int:
        """How many subscriptions get what is published. Skip costly messages when there is none."""
        return self._writer.matched()

    def wait_for_acks(self, timeout_s: float) -> bool:
        """Whether all reliable subscriptions have got everything within the time."""
        status = dds.library().dds_wait_for_acks(self._writer.entity, int(timeout_s * 1e9))
        return int(status) == 0

    def close(self) -> None:
        """Stop publishing; the node does it too when it closes."""
        if self._node.forget(self):
            self._node.graph.remove(self)
            self._writer.close()


class Subscription:
    """Gets messages of one type from one topic. Made by DdsNode.create_subscription."""

    def __init__(
        self, node: DdsNode, type_name: str, topic: str, qos: Qos, callback: Callable[[Payload, SampleInfo], None]
    ) -> None:
        self.topic = topic
        self.type_name = type_name
        self.received = 0
        self._node = node
        self._interfaces = node.interfaces
        self._callback = callback
        user_data = type_hash_data(node.interfaces, type_name)
        self._reader = Reader(node, topic_to_dds(topic), type_name, qos, user_data, topic, self._take, self)
        node.graph.add(self, readers=[self._reader.guid])
        self._reader.start()

    @property
    def publisher_count(self) -> int:
        """How many publishers it hears; those of an incompatible quality of service do not count."""
        return self._reader.matched()

    def close(self) -> None:
        """Stop; the node does it too when it closes."""
        if self._node.forget(self):
            self._node.graph.remove(self)
            self._reader.close()

    def _take(self, data: bytes, info: dds.Sample) -> None:
        self.received += 1
        try:
            self._callback(
                Payload(data, self.type_name, self._interfaces), SampleInfo(self.topic, info.stamp_ns, info.writer)
            )
        except MalformedPayload as error:
            self._node.troubles.add("malformed", self.topic, f"dropped {error}")
        except Exception as error:  # noqa: BLE001 - the callback's fault must not end the subscription
            self._node.troubles.add(
                "callback_failed", self.topic, f"{type(error).__name__}: {error}", level=logging.ERROR, error=error
            )
