"""The C library of Eclipse Cyclone DDS, by ctypes.

Only what the nodes here need, and without the Python classes of the ``cyclonedds`` wheel, for three reasons: ctypes
lets other threads run during a call, while the wheel's own write and take hold the interpreter's lock, also when a slow
reader makes a write wait; payloads stay the bytes that ROS 2 encodes, of any type, without a type description that
would have to match the other side's; and importing the classes takes a quarter of a second.
"""

from __future__ import annotations

import ctypes as ct
import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FOREVER_NS = 2**63 - 1
TIMEOUT = -10
"""What a call returns that gave up waiting."""
OFFERED_INCOMPATIBLE_QOS = 1 << 3
REQUESTED_INCOMPATIBLE_QOS = 1 << 4
DATA_AVAILABLE = 1 << 8
"""Statuses, as Cyclone DDS numbers them, which is not as the standard does."""
PUBLICATIONS = 0x7FFF0000 + 3
SUBSCRIPTIONS = 0x7FFF0000 + 4
"""Built-in topics that tell of all writers and readers in the domain."""
ALIVE = 16

WHAT_TO_DO = "install it with: pip install 'spatial_mllm_ros[dds]', or set CYCLONEDDS_HOME to Cyclone DDS 11 or newer"
SAMPLE_OF_DATA = 2  # not of a key
LARGEST_TAKE = 32


class DdsError(RuntimeError):
    """The middleware refused something. ``str()`` says what."""


class DdsNotInstalled(ImportError):
    """Cyclone DDS is not installed. ``str()`` says how to."""


class Buffer(ct.Structure):
    """A piece of memory, as the system's iovec orders it."""

    _fields_ = (
        [("length", ct.c_uint), ("address", ct.c_void_p)]
        if sys.platform == "win32"
        else [("address", ct.c_void_p), ("length", ct.c_size_t)]
    )


class Sample(ct.Structure):
    """What comes with each sample. ``stamp_ns`` is when it was written, by the writer's clock since the Unix epoch."""

    _fields_ = [
        ("sample_state", ct.c_int),
        ("view_state", ct.c_int),
        ("instance_state", ct.c_int),
        ("has_data", ct.c_bool),
        ("stamp_ns", ct.c_int64),
        ("instance", ct.c_uint64),
        ("writer", ct.c_uint64),
        ("counts", ct.c_uint32 * 5),
    ]


class Endpoint(ct.Structure):
    """A reader or writer, here or elsewhere, as discovery describes it."""

    _fields_ = [
        ("guid", ct.c_uint8 * 16),
        ("participant", ct.c_uint8 * 16),
        ("participant_instance", ct.c_uint64),
        ("topic", ct.c_char_p),
        ("type", ct.c_char_p),
        ("qos", ct.c_void_p),
    ]


class IncompatibleQos(ct.Structure):
    """How many endpoints were refused for their quality of service, and for which policy last."""

    _fields_ = [("total", ct.c_uint32), ("change", ct.c_int32), ("policy", ct.c_uint32)]


class _TypeMeta(ct.Structure):
    _fields_ = [("data", ct.c_void_p), ("size", ct.c_uint32)]


class _Topic(ct.Structure):
    _fields_ = [
        ("size", ct.c_uint32),
        ("align", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("key_count", ct.c_uint32),
        ("type", ct.c_char_p),
        ("keys", ct.c_void_p),
        ("op_count", ct.c_uint32),
        ("ops", ct.POINTER(ct.c_uint32)),
        ("meta", ct.c_char_p),
        ("type_information", _TypeMeta),
        ("type_mapping", _TypeMeta),
        ("representations", ct.c_uint32),
    ]


# One octet and the end. Cyclone checks incoming data against this, so everything that has at least an octet passes, and
# is kept whole. The types of ROS 2 always have one: that of an empty message is a dummy.
_ANYTHING = (ct.c_uint32 * 3)(0x01010000, 0, 0)

_entity, _status, _pointer, _u32, _ns = ct.c_int32, ct.c_int32, ct.c_void_p, ct.c_uint32, ct.c_int64
_iov_count = {"linux": ct.c_size_t, "win32": ct.c_ulong}.get(sys.platform, ct.c_int)
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "dds_create_domain": (_entity, [_u32, ct.c_char_p]),
    "dds_create_participant": (_entity, [_u32, _pointer, _pointer]),
    "dds_create_topic": (_entity, [_entity, ct.POINTER(_Topic), ct.c_char_p, _pointer, _pointer]),
    "dds_create_writer": (_entity, [_entity, _entity, _pointer, _pointer]),
    "dds_create_reader": (_entity, [_entity, _entity, _pointer, _pointer]),
    "dds_create_waitset": (_entity, [_entity]),
    "dds_create_guardcondition": (_entity, [_entity]),
    "dds_set_guardcondition": (_status, [_entity, ct.c_bool]),
    "dds_waitset_attach": (_status, [_entity, _entity, ct.c_ssize_t]),
    "dds_waitset_detach": (_status, [_entity, _entity]),
    "dds_waitset_wait": (_status, [_entity, ct.POINTER(ct.c_ssize_t), ct.c_size_t, _ns]),
    "dds_delete": (_status, [_entity]),
    "dds_strretcode": (ct.c_char_p, [_status]),
    "dds_get_guid": (_status, [_entity, _pointer]),
    "dds_get_instance_handle": (_status, [_entity, ct.POINTER(ct.c_uint64)]),
    "dds_get_entity_sertype": (_status, [_entity, ct.POINTER(_pointer)]),
    "dds_set_status_mask": (_status, [_entity, _u32]),
    "dds_get_offered_incompatible_qos_status": (_status, [_entity, ct.POINTER(IncompatibleQos)]),
    "dds_get_requested_incompatible_qos_status": (_status, [_entity, ct.POINTER(IncompatibleQos)]),
    "dds_get_matched_subscriptions": (_status, [_entity, ct.POINTER(ct.c_uint64), ct.c_size_t]),
    "dds_get_matched_publications": (_status, [_entity, ct.POINTER(ct.c_uint64), ct.c_size_t]),
    "dds_get_matched_subscription_data": (ct.POINTER(Endpoint), [_entity, ct.c_uint64]),
    "dds_get_matched_publication_data": (ct.POINTER(Endpoint), [_entity, ct.c_uint64]),
    "dds_builtintopic_free_endpoint": (None, [ct.POINTER(Endpoint)]),
    "dds_wait_for_acks": (_status, [_entity, _ns]),
    "dds_read": (_status, [_entity, ct.POINTER(_pointer), ct.POINTER(Sample), ct.c_size_t, _u32]),
    "dds_return_loan": (_status, [_entity, ct.POINTER(_pointer), ct.c_int32]),
    "dds_writecdr": (_status, [_entity, _pointer]),
    "dds_takecdr": (_status, [_entity, ct.POINTER(_pointer), _u32, ct.POINTER(Sample), _u32]),
    "ddsi_serdata_from_ser_iov": (_pointer, [_pointer, ct.c_int, _iov_count, ct.POINTER(Buffer), ct.c_size_t]),
    "ddsi_serdata_size": (_u32, [_pointer]),
    "ddsi_serdata_to_ser_ref": (_pointer, [_pointer, ct.c_size_t, ct.c_size_t, ct.POINTER(Buffer)]),
    "ddsi_serdata_to_ser_unref": (None, [_pointer, ct.POINTER(Buffer)]),
    "ddsi_serdata_unref": (None, [_pointer]),
    "dds_create_qos": (_pointer, []),
    "dds_delete_qos": (None, [_pointer]),
    "dds_free": (None, [_pointer]),
    "dds_qset_reliability": (None, [_pointer, ct.c_int, _ns]),
    "dds_qset_durability": (None, [_pointer, ct.c_int]),
    "dds_qset_history": (None, [_pointer, ct.c_int, ct.c_int32]),
    "dds_qset_durability_service": (
        None,
        [_pointer, _ns, ct.c_int, ct.c_int32, ct.c_int32, ct.c_int32, ct.c_int32],
    ),
    "dds_qset_liveliness": (None, [_pointer, ct.c_int, _ns]),
    "dds_qset_deadline": (None, [_pointer, _ns]),
    "dds_qset_lifespan": (None, [_pointer, _ns]),
    "dds_qset_writer_data_lifecycle": (None, [_pointer, ct.c_bool]),
    "dds_qset_data_representation": (None, [_pointer, _u32, ct.POINTER(ct.c_int16)]),
    "dds_qset_userdata": (None, [_pointer, ct.c_char_p, ct.c_size_t]),
    "dds_qset_ignorelocal": (None, [_pointer, ct.c_int]),
    "dds_qget_userdata": (ct.c_bool, [_pointer, ct.POINTER(_pointer), ct.POINTER(ct.c_size_t)]),
    "dds_qget_reliability": (ct.c_bool, [_pointer, ct.POINTER(ct.c_int), ct.POINTER(_ns)]),
    "dds_qget_durability": (ct.c_bool, [_pointer, ct.POINTER(ct.c_int)]),
    "dds_qget_history": (ct.c_bool, [_pointer, ct.POINTER(ct.c_int), ct.POINTER(ct.c_int32)]),
}


def is_installed() -> bool:
    """Whether the library is there. Does not load it."""
    return bool(_candidates())


@cache
def library() -> Any:
    """The first library found that is new enough, with the signatures of its functions set. Raises DdsNotInstalled."""
    faults = []
    for path in _candidates():
        try:
            lib = ct.CDLL(str(path))
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(lib, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:  # another platform's, or that of an older release, as ROS 2 has
            faults.append(f"{path} does not serve: {error}; ")
        else:
            return lib
    raise DdsNotInstalled(f"Cyclone DDS is not installed; {''.join(faults)}{WHAT_TO_DO}")


def _candidates() -> list[Path]:
    """CYCLONEDDS_HOME's library, else that of the wheel."""
    home = os.environ.get("CYCLONEDDS_HOME")
    folders = [Path(home, name) for name in ("lib", "lib64", "bin")] if home else []
    spec = importlib.util.find_spec("cyclonedds")
    for package in (spec.submodule_search_locations or []) if spec is not None else []:
        folders += [Path(package).parent / "cyclonedds.libs", Path(package) / ".libs", Path(package) / ".dylibs"]
    patterns = {"win32": ["*ddsc*.dll"], "darwin": ["libddsc*.dylib"]}.get(sys.platform, ["libddsc*.so*"])
    return [path for folder in folders for pattern in patterns for path in sorted(folder.glob(pattern))]


def check(status: int, doing: str) -> int:
    """``status``, or DdsError when it is an error."""
    if status < 0:
        raise DdsError(f"{doing} failed: {library().dds_strretcode(status).decode()}")
    return status


def guid(entity: int) -> bytes:
    """The 16 bytes that name an entity in the whole domain."""
    value = (ct.c_uint8 * 16)()
    check(library().dds_get_guid(entity, value), "reading a GUID")
    return bytes(value)


def instance_handle(entity: int) -> int:
    """The number by which samples name the writer that they come from."""
    value = ct.c_uint64()
    check(library().dds_get_instance_handle(entity, ct.byref(value)), "reading an instance handle")
    return value.value


def create_topic(participant: int, name: str, type_name: str) -> int:
    """A topic whose payloads are opaque bytes. Its type is known to others by name alone, as with ROS 2's own nodes."""
    topic = _Topic(1, 1, 0, 0, type_name.encode(), None, 2, _ANYTHING, b"", _TypeMeta(), _TypeMeta(), 0)
    entity = library().dds_create_topic(participant, ct.byref(topic), name.encode(), None, None)
    return check(entity, f"creating topic {name} of type {type_name}")


def serialised_type(endpoint: int) -> ct.c_void_p:
    """What ``write`` needs to know of a writer."""
    value = ct.c_void_p()
    check(library().dds_get_entity_sertype(endpoint, ct.byref(value)), "reading a type")
    return value


def write(writer: int, serialised: ct.c_void_p, parts: Sequence[bytes | bytearray | memoryview]) -> int:
    """Write the parts one after another as one sample, copying them once; a status. The first starts with CDR's header.

    Waits while the queue to reliable readers is full, up to the writer's limit; then the status is TIMEOUT.
    """
    lib = library()
    size = sum(len(part) for part in parts)
    arrays = [np.frombuffer(part, np.uint8) for part in (*parts, bytes(-size % 4)) if len(part)]
    buffers = (Buffer * len(arrays))()
    for buffer, array in zip(buffers, arrays, strict=True):
        buffer.address, buffer.length = array.ctypes.data, array.size
    padded = size + -size % 4
    sample = lib.ddsi_serdata_from_ser_iov(serialised, SAMPLE_OF_DATA, len(buffers), buffers, padded)
    if not sample:
        raise DdsError(f"Cyclone DDS refuses a sample of {size} bytes that starts with {bytes(parts[0][:4])!r}")
    if lib.ddsi_serdata_size(sample) != padded:
        lib.ddsi_serdata_unref(sample)
        raise DdsError("this release of Cyclone DDS does not keep payloads as they are; use cyclonedds 11.0.1")
    return int(lib.dds_writecdr(writer, sample))


def take(reader: int, at_most: int = LARGEST_TAKE) -> list[tuple[bytes, Sample]]:
    """The next samples, each copied once: CDR's header and body, with up to three bytes of padding.

    A sample without data, which tells that a writer has gone, has an empty payload.
    """
    lib = library()
    samples, infos = (ct.c_void_p * at_most)(), (Sample * at_most)()
    count = check(lib.dds_takecdr(reader, samples, at_most, infos, 0), "taking samples")
    taken = []
    for index in range(count):
        sample, info = samples[index], infos[index]
        payload = b""
        if info.has_data:
            size, buffer = lib.ddsi_serdata_size(sample), Buffer()
            reference = lib.ddsi_serdata_to_ser_ref(sample, 0, size, ct.byref(buffer))
            payload = ct.string_at(buffer.address, size)
            lib.ddsi_serdata_to_ser_unref(reference, ct.byref(buffer))
        lib.ddsi_serdata_unref(sample)
        taken.append((payload, info))
    return taken


def user_data(qos: int | None) -> dict[str, str]:
    """The ``key=value;`` pairs in USER_DATA of a quality of service."""
    data, size = ct.c_void_p(), ct.c_size_t()
    if not qos or not library().dds_qget_userdata(qos, ct.byref(data), ct.byref(size)) or not data.value:
        return {}
    try:
        text = ct.string_at(data.value, size.value).decode("utf-8", "replace")
    finally:
        library().dds_free(data)
    return dict(pair.split("=", 1) for pair in text.split(";") if "=" in pair)
