"""Who is there: telling ROS 2 about our node's endpoints, and seeing those of all others."""

from __future__ import annotations

import ctypes as ct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatial_mllm_ros.dds import library as dds
from spatial_mllm_ros.dds.endpoints import Writer, type_hash_data
from spatial_mllm_ros.dds.names import ros_type, service_from_dds, topic_from_dds
from spatial_mllm_ros.dds.qos import LATCHED, QosProfile, profile_of

if TYPE_CHECKING:
    from spatial_mllm_ros.dds.node import DdsNode

TOPIC = "ros_discovery_info"
TYPE = "rmw_dds_common/msg/ParticipantEntitiesInfo"
MANY = 4096
"""Endpoints that are looked at; more than any robot has."""


@dataclass(frozen=True)
class TopicEndpoint:
    """A publisher or subscription anywhere in the domain. ``guid``: 16 bytes, the first 12 its participant's."""

    topic: str
    type_name: str
    is_publisher: bool
    qos: QosProfile
    guid: bytes


class Graph:
    """Our part of ros_discovery_info, from which ROS 2 knows which node an endpoint belongs to."""

    def __init__(self, node: DdsNode) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._owned: dict[object, tuple[list[bytes], list[bytes]]] = {}
        self._held = 0
        self._writer = Writer(node, TOPIC, TYPE, LATCHED, type_hash_data(node.interfaces, TYPE), TOPIC)

    def add(self, owner: object, readers: Sequence[bytes] = (), writers: Sequence[bytes] = ()) -> None:
        """Tell of endpoints by their GUIDs."""
        with self._lock:
            self._owned[owner] = (list(readers), list(writers))
            self._tell()

    def remove(self, owner: object) -> None:
        """They are gone."""
        with self._lock:
            if self._owned.pop(owner, None) is not None:
                self._tell()

    def tell(self) -> None:
        """Tell of the node as it is now."""
        with self._lock:
            self._tell()

    def close(self) -> None:
        """Say that the node is gone."""
        make = self._node.interfaces.message
        with self._lock:
            self._owned.clear()
            gone = make(TYPE, gid=self._gid(dds.guid(self._node.participant)))
            self._writer.write([self._node.interfaces.encode(gone, TYPE)])
            self._writer.close()

    def _tell(self) -> None:
        interfaces, name = self._node.interfaces, self._node.name
        node = interfaces.message(
            "rmw_dds_common/msg/NodeEntitiesInfo",
            node_namespace=name.namespace,
            node_name=name.name,
            reader_gid_seq=[self._gid(guid) for readers, _ in self._owned.values() for guid in readers],
            writer_gid_seq=[self._gid(guid) for _, writers in self._owned.values() for guid in writers],
        )
        gid = self._gid(dds.guid(self._node.participant))
        info = interfaces.message(TYPE, gid=gid, node_entities_info_seq=[node])
        self._writer.write([interfaces.encode(info, TYPE)])

    def _gid(self, guid: bytes) -> object:
        return self._node.interfaces.message("rmw_dds_common/msg/Gid", data=np.frombuffer(guid, np.uint8))


def endpoints(participant: int) -> Iterator[TopicEndpoint]:
    """All publishers and subscriptions of ROS 2 topics that discovery has found so far, our own included."""
    for dds_topic, type_name, is_writer, qos, guid in _discovered(participant):
        topic, ros_name = topic_from_dds(dds_topic), ros_type(type_name)
        if topic is not None and ros_name is not None:
            yield TopicEndpoint(topic, ros_name, is_writer, qos, guid)


def services(participant: int) -> dict[str, str]:
    """All services that discovery has found a server of, with their types."""
    found = {}
    for dds_topic, type_name, is_writer, _, _ in _discovered(participant):
        service, ros_name = service_from_dds(dds_topic), ros_type(type_name)
        if service is not None and ros_name is not None and not is_writer:
            found[service] = ros_name.removesuffix("_Request")
    return dict(sorted(found.items()))


def _discovered(participant: int) -> Iterator[tuple[str, str, bool, QosProfile, bytes]]:
    lib = dds.library()
    for builtin, is_writer in ((dds.PUBLICATIONS, True), (dds.SUBSCRIPTIONS, False)):
        reader = dds.check(lib.dds_create_reader(participant, builtin, None, None), "reading who is there")
        samples, infos = (ct.c_void_p * MANY)(), (dds.Sample * MANY)()
        count = dds.check(lib.dds_read(reader, samples, infos, MANY, MANY), "reading who is there")
        try:
            for address, info in zip(samples[:count], infos[:count], strict=True):
                if info.has_data and info.instance_state == dds.ALIVE:
                    endpoint = dds.Endpoint.from_address(address or 0)
                    names = endpoint.topic.decode("utf-8", "replace"), endpoint.type.decode("utf-8", "replace")
                    yield *names, is_writer, profile_of(endpoint.qos), bytes(endpoint.guid)
        finally:
            lib.dds_return_loan(reader, samples, count)
            lib.dds_delete(reader)
