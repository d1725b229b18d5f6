"""Qualities of service as ROS 2 has them, and what to say when two do not fit together."""

from __future__ import annotations

import ctypes as ct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from spatial_mllm_ros.dds.library import FOREVER_NS, library

WRITE_WAIT_NS = 1_000_000_000
"""How long a reliable writer waits for readers that are slow to acknowledge before it drops a message."""
_XCDR1 = (ct.c_int16 * 1)(0)
_KEEP_LAST, _KEEP_ALL, _UNLIMITED = 0, 1, -1
_IGNORE_OWN_PARTICIPANT = 1

# The numbers of DDS's policies that an endpoint can be refused for, as ROS 2 names them.
POLICIES = {2: "durability", 4: "deadline", 8: "liveliness", 11: "reliability", 13: "history", 21: "lifespan"}


class Qos(Protocol):
    """What a quality of service must have at least: the history is the last ``depth`` messages."""

    @property
    def reliable(self) -> bool: ...
    @property
    def transient_local(self) -> bool: ...
    @property
    def depth(self) -> int: ...


@dataclass(frozen=True)
class QosProfile:
    """A quality of service. ``depth`` 0 keeps all messages. deadline_ns and lifespan_ns: None is infinite."""

    reliable: bool = True
    transient_local: bool = False
    depth: int = 10
    deadline_ns: int | None = None
    lifespan_ns: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.depth < 2**31:
            raise ValueError(f"a depth is the number of messages kept, or 0 for all, not {self.depth}")


DEFAULT = QosProfile()
SENSOR_DATA = QosProfile(reliable=False, depth=5)
LATCHED = QosProfile(transient_local=True, depth=1)
# Other than ROS 2, which keeps 10: all clients share two topics, so that a burst of calls would push out requests or
# replies that nobody has taken yet. What is kept is not part of what must fit together.
SERVICES = QosProfile(depth=0)
PROFILES: dict[str, QosProfile] = {
    "default": DEFAULT,
    "system_default": QosProfile(depth=1),
    "sensor_data": SENSOR_DATA,
    "services_default": SERVICES,
    "parameters": SERVICES,
    "parameter_events": QosProfile(depth=1000),
    "rosout": QosProfile(transient_local=True, depth=1000, lifespan_ns=10_000_000_000),
    "clock": QosProfile(reliable=False, depth=1),
    "tf": QosProfile(depth=100),
    "tf_static": QosProfile(transient_local=True, depth=100),
    "latched": LATCHED,
}
"""By the names that ROS 2 gives them; ``latched`` keeps the last message for those who come later."""


def qos_profile(qos: str | Qos) -> Qos:
    """A profile by its name in PROFILES, or ``qos`` itself. Raises ValueError."""
    if not isinstance(qos, str):
        return qos
    if qos not in PROFILES:
        raise ValueError(f"a quality of service is one of {', '.join(PROFILES)}, not {qos!r}")
    return PROFILES[qos]


@contextmanager
def dds_qos(qos: Qos | None, user_data: str, ignore_own: bool = False) -> Iterator[ct.c_void_p]:
    """The same for Cyclone DDS, with USER_DATA; ``qos`` None: only that."""
    lib = library()
    made = ct.c_void_p(lib.dds_create_qos())
    try:
        if qos is not None:
            history = (_KEEP_LAST, qos.depth) if qos.depth else (_KEEP_ALL, _UNLIMITED)
            lib.dds_qset_reliability(made, int(qos.reliable), WRITE_WAIT_NS if qos.reliable else 0)
            lib.dds_qset_history(made, *history)
            lib.dds_qset_durability(made, int(qos.transient_local))
            if qos.transient_local:  # what Cyclone keeps for those who come later is set here, not by the history
                lib.dds_qset_durability_service(made, 0, *history, _UNLIMITED, _UNLIMITED, _UNLIMITED)
            lib.dds_qset_liveliness(made, 0, FOREVER_NS)
            for name in ("deadline", "lifespan"):
                duration = getattr(qos, f"{name}_ns", None)
                if duration is not None:
                    getattr(lib, f"dds_qset_{name}")(made, duration)
            lib.dds_qset_writer_data_lifecycle(made, False)
            lib.dds_qset_data_representation(made, 1, _XCDR1)
            if ignore_own:
                lib.dds_qset_ignorelocal(made, _IGNORE_OWN_PARTICIPANT)
        data = user_data.encode()
        lib.dds_qset_userdata(made, data, len(data))
        yield made
    finally:
        lib.dds_delete_qos(made)


def profile_of(made: int | None) -> QosProfile:
    """What of a QosProfile can be told from one of Cyclone DDS, as discovery reports them."""
    lib = library()
    reliable, durability, history = ct.c_int(0), ct.c_int(0), ct.c_int(_KEEP_ALL)
    wait, depth = ct.c_int64(), ct.c_int32(0)
    if made:
        lib.dds_qget_reliability(made, ct.byref(reliable), ct.byref(wait))
        lib.dds_qget_durability(made, ct.byref(durability))
        lib.dds_qget_history(made, ct.byref(history), ct.byref(depth))
    return QosProfile(
        reliable=bool(reliable.value),
        transient_local=durability.value > 0,
        depth=max(depth.value, 1) if history.value == _KEEP_LAST else 0,
    )


@dataclass(frozen=True)
class QosMismatch:
    """Another's endpoint on the same topic that this one does not talk to, for its ``policy``."""

    topic: str
    policy: str
    of_publisher: bool
    """Whether it is our publisher that offers too little; else our subscription asks for too much."""
    endpoint: Any = field(default=None, compare=False, repr=False)
    """Our Publisher, Subscription, Service or Client. This may be told before the call that makes it has returned."""

    def __str__(self) -> str:
        if self.of_publisher:
            what, us, them = "reaches a subscription", "publisher offers", "it asks for"
            ours, theirs = _WORDS.get(self.policy, ("less", "more"))
        else:
            what, us, them = "arrives from a publisher", "subscription asks for", "it offers"
            theirs, ours = _WORDS.get(self.policy, ("less", "more"))
        return (
            f"nothing {what} on {self.topic}: the {self.policy} does not fit. This {us} {ours}, {them} {theirs}. Set "
            f"the {self.policy} of one of the two to that of the other; `ros2 topic info -v {self.topic}` shows both"
        )


_WORDS = {"reliability": ("best effort", "reliable"), "durability": ("volatile", "transient local")}
