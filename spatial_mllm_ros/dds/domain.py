"""The DDS domain of this process: who finds whom, by the environment variables that ROS 2 has for it."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import quoteattr

from spatial_mllm_ros.dds.library import check, library

LOG = logging.getLogger(__name__)
RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")
LARGEST_DOMAIN = 232
PRIVATE = range(60, 101)
"""Domains for demonstrations and tests; from 102 on the ports are those that Linux gives to anyone."""
URI = "CYCLONEDDS_URI"
WHAT_TO_DO = "see what Cyclone DDS printed: is CYCLONEDDS_URI right, or are there more than 33 nodes on this host?"
_LOOPBACK = '<NetworkInterface address="127.0.0.1" multicast="false"/>'
_NETWORK = '<NetworkInterface autodetermine="true"/>'
PARTICIPANTS_PER_HOST = 32
"""As in ROS 2's own layer on Cyclone DDS: without multicast, a host's processes are looked for at this many ports."""
_PRECONDITION_NOT_MET = -4

_lock = threading.Lock()
_users: Counter[int] = Counter()
_entities: dict[int, int] = {}


class DomainError(ValueError):
    """An environment variable or a domain id that cannot be used. ``str()`` says which and what is allowed."""


def domain_id(given: int | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """The domain to join: ``given``, else ROS_DOMAIN_ID, else 0. Raises DomainError."""
    text = environment.get("ROS_DOMAIN_ID", "") if given is None else str(given)
    try:
        number = int(text or 0)
    except ValueError:
        raise DomainError(f"ROS_DOMAIN_ID must be a number from 0 to {LARGEST_DOMAIN}, not {text!r}") from None
    if not 0 <= number <= LARGEST_DOMAIN:
        raise DomainError(f"a domain id (ROS_DOMAIN_ID) is a number from 0 to {LARGEST_DOMAIN}, not {number}")
    return number


def private(number: int | None = None) -> dict[str, str]:
    """Environment variables of a domain on this computer that nobody else can join, whatever the environment says.

    number: the domain's id; None: one by this process's. A tag of Cyclone DDS keeps out those who have chosen the same.
    """
    chosen = PRIVATE[os.getpid() % len(PRIVATE)] if number is None else number
    tag = f"<CycloneDDS><Domain><Discovery><Tag>private_{os.getpid()}</Tag></Discovery></Domain></CycloneDDS>"
    return {
        "ROS_DOMAIN_ID": str(chosen),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOCALHOST_ONLY": "",
        "ROS_STATIC_PEERS": "",
        URI: tag,
    }


def configuration(environment: Mapping[str, str] = os.environ, with_loopback: bool = True) -> str:
    """Cyclone DDS's configuration: ROS_AUTOMATIC_DISCOVERY_RANGE, ROS_STATIC_PEERS, ROS_LOCALHOST_ONLY, CYCLONEDDS_URI.

    As ROS 2 Jazzy understands them, CYCLONEDDS_URI last, so that it overrides what the others lead to. Other than
    there, the loopback interface is used too (with_loopback), for Cyclone DDS 11 does not answer what arrives on an
    interface that it does not use, while nodes of ROS 2 that stay on this host announce themselves there.
    """
    reach = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE") or "SUBNET"
    if reach not in RANGES:
        LOG.warning(
            "ROS_AUTOMATIC_DISCOVERY_RANGE must be one of %s, not %r: taking LOCALHOST", ", ".join(RANGES), reach
        )
        reach = "LOCALHOST"
    peers = [peer for peer in environment.get("ROS_STATIC_PEERS", "").split(";") if peer]
    if environment.get("ROS_LOCALHOST_ONLY", "0") not in ("", "0"):
        reach, peers = "LOCALHOST", []
    if reach == "LOCALHOST":
        peers.insert(0, "localhost")
    general, discovery = "", ""
    if reach in ("LOCALHOST", "OFF"):
        general = "<AllowMulticast>false</AllowMulticast>"
    if with_loopback and reach in ("LOCALHOST", "SUBNET") and "Interface" not in _configured(environment):
        general += f"<Interfaces>{_NETWORK if reach == 'SUBNET' else ''}{_LOOPBACK}</Interfaces>"
    if reach == "OFF":
        discovery = f"<ParticipantIndex>none</ParticipantIndex><Tag>ros_discovery_off_{os.getpid()}</Tag>"
    elif reach != "SYSTEM_DEFAULT":
        discovery = (
            "<ParticipantIndex>auto</ParticipantIndex>"
            f"<MaxAutoParticipantIndex>{PARTICIPANTS_PER_HOST}</MaxAutoParticipantIndex>"
        )
        if peers:
            discovery += f"<Peers>{''.join(f'<Peer address={quoteattr(peer)}/>' for peer in peers)}</Peers>"
    fragments = [environment.get(URI, "")]
    if discovery:
        content = f"<General>{general}</General><Discovery>{discovery}</Discovery>"
        fragments.insert(0, f"<CycloneDDS><Domain>{content}</Domain></CycloneDDS>")
    return ",".join(filter(None, fragments))


def _configured(environment: Mapping[str, str]) -> str:
    """The user's own configuration, that of files included; what cannot be read is Cyclone DDS's to complain about."""
    texts = []
    for fragment in environment.get(URI, "").split(","):
        path = Path(fragment.strip().removeprefix("file://"))
        is_file = fragment.strip() and "<" not in fragment and path.is_file()
        texts.append(path.read_text(encoding="utf-8", errors="replace") if is_file else fragment)
    return ",".join(texts)


def join(number: int) -> None:
    """Make sure that the domain exists in this process. To be followed by ``leave``. Raises DdsError."""
    with _lock:
        if not _users[number]:
            create = library().dds_create_domain
            entity = create(number, configuration().encode())
            if entity < 0 and entity != _PRECONDITION_NOT_MET:
                # A host without any network: its only interface may not be named twice.
                entity = create(number, configuration(with_loopback=False).encode())
            if entity != _PRECONDITION_NOT_MET:  # someone else in this process joined it already
                _entities[number] = check(entity, f"joining domain {number} ({WHAT_TO_DO})")
        _users[number] += 1


def leave(number: int) -> None:
    """The reverse of ``join``: with the last one, Cyclone's threads and sockets go."""
    with _lock:
        _users[number] -= 1
        if not _users[number] and number in _entities:
            library().dds_delete(_entities.pop(number))
