"""Types of messages and services: definitions, CDR encoding, and the hashes by which ROS 2 tells versions apart."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.base import TypesysError, normalize_fieldname
from rosbags.typesys.store import Typestore

from spatial_mllm_ros.dds.standard_services import SERVICES

PACKAGE = "spatial_mllm_ros"
HEADER_SIZE = 4
LITTLE_ENDIAN = b"\x00\x01\x00\x00"
SEPARATOR = "\n---"


class MalformedPayload(ValueError):
    """Bytes that are not a message of the type that their topic says."""


class UnknownType(KeyError):
    """A type that is neither ROS 2's nor this package's."""

    def __str__(self) -> str:
        return str(self.args[0])


def definition_folders() -> list[Path]:
    """Where this package's msg/, srv/ and action/ may be: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    shared = [Path(p, "share", PACKAGE) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    return [package / "interfaces", package.parent, *shared]


class Interfaces:
    """The common messages of ROS 2 Jazzy, its parameter and lifecycle services, and this package's own interfaces.

    Messages are plain objects with the fields as attributes; sequences and arrays of numbers are NumPy arrays, which
    after decoding look into the payload itself. A type is named package/msg/Name, a part of a service
    package/srv/Name_Request or _Response, and of an action package/action/Name_Goal and so on.
    """

    def __init__(self) -> None:
        self._store: Typestore = get_typestore(Stores.ROS2_JAZZY)
        self._hashes: dict[str, str] = {}
        for name, definition in SERVICES.items():
            self.add(name, definition)
        for folder in definition_folders():
            files = [path for kind in ("msg", "srv", "action") for path in sorted((folder / kind).glob(f"*.{kind}"))]
            if files:
                self._add_all({f"{PACKAGE}/{p.parent.name}/{p.stem}": p.read_text(encoding="utf-8") for p in files})
                break

    def add(self, name: str, definition: str) -> None:
        """Add a message, service or action from the text of its .msg, .srv or .action file."""
        self._add_all({name: definition})

    def _add_all(self, definitions: Mapping[str, str]) -> None:
        types: dict[str, Any] = {}
        for name, definition in definitions.items():
            package, kind, base = name.split("/")
            for suffix, text in _parts(kind, definition):
                # Read as a message, so that a type without a package in it is found among the messages.
                as_message = f"{package}/msg/{base}{suffix}"
                types[f"{package}/{kind}/{base}{suffix}"] = get_types_from_msg(text, as_message)[as_message]
            if kind == "action":
                types |= _action_services(f"{package}/action/{base}")
        self._store.register(types)

    def names(self) -> list[str]:
        """All types, those of services and actions as their parts."""
        return sorted(self._store.fielddefs)

    def message_class(self, type_name: str) -> Any:
        """The class of a type's messages, with the constants of the definition as attributes. Raises UnknownType."""
        if type_name not in self._store.types:
            raise UnknownType(f"type {type_name} is not known here: it is neither one of ROS 2's nor {PACKAGE}'s own")
        return self._store.types[type_name]

    def message(self, type_name: str, **values: Any) -> Any:
        """A message with the given fields, the others zero or empty. Raises UnknownType; TypeError for a wrong name."""
        cls = self.message_class(type_name)
        nodes = {normalize_fieldname(name): node for name, node in self._store.fielddefs[type_name][1]}
        unknown = values.keys() - nodes.keys()
        if unknown:
            raise TypeError(f"{type_name} has no field {', '.join(sorted(unknown))}, only {', '.join(nodes)}")
        return cls(**{name: values[name] if name in values else self._zero(node) for name, node in nodes.items()})

    def encode(self, message: Any, type_name: str) -> memoryview:
        """A message as little-endian CDR with its 4-byte header. Raises ValueError when a field does not fit."""
        self.message_class(type_name)
        try:
            return self._store.serialize_cdr(message, type_name, little_endian=True)
        except Exception as error:  # the generated code raises whatever the first wrong value leads to
            raise ValueError(f"this is no {type_name}: {type(error).__name__}: {error}") from error

    def decode(self, payload: bytes | memoryview, type_name: str) -> Any:
        """A message from CDR with its header; arrays look into ``payload``. Raises MalformedPayload."""
        self.message_class(type_name)
        try:
            return self._store.deserialize_cdr(memoryview(payload), type_name)  # slices of bytes would be copies
        except (SerdeError, ValueError, KeyError, IndexError, OverflowError, MemoryError, AssertionError) as error:
            raise MalformedPayload(f"{len(payload)} bytes that are no {type_name}: {error}") from error

    def hash(self, type_name: str) -> str:
        """RIHS01_... of a type, by REP-2011. Raises UnknownType."""
        self.message_class(type_name)
        if type_name not in self._hashes:
            self._hashes[type_name] = self._without_char().hash_rihs01(type_name)
        return self._hashes[type_name]

    def _without_char(self) -> Typestore:
        """The same types with uint8 for char, which is what ROS 2's generators make of it before hashing."""
        store = Typestore()
        store.fielddefs = {
            name: (constants, [(field, _no_char(node)) for field, node in nodes])
            for name, (constants, nodes) in self._store.fielddefs.items()
        }
        return store

    def _zero(self, node: Any) -> Any:
        kind, detail = node
        if kind == Nodetype.NAME:
            return self.message(detail)
        if kind == Nodetype.BASE:
            return {"string": "", "wstring": "", "bool": False, "float32": 0.0, "float64": 0.0}.get(detail[0], 0)
        (of_kind, of), size = detail
        count = size if kind == Nodetype.ARRAY else 0
        if of_kind == Nodetype.BASE and of[0] not in ("string", "wstring"):
            return np.zeros(count, np.dtype({"byte": "uint8", "char": "uint8"}.get(of[0], of[0])))
        return [self._zero((of_kind, of)) for _ in range(count)]


@cache
def interfaces() -> Interfaces:
    """The one registry of this process; reading it takes about 0.2 s."""
    return Interfaces()


def _parts(kind: str, definition: str) -> list[tuple[str, str]]:
    suffixes = {
        "msg": ("",),
        "srv": ("_Request", "_Response"),
        "action": ("_Goal", "_Result", "_Feedback"),
    }[kind]
    texts = f"\n{definition}".split(SEPARATOR)
    if len(texts) != len(suffixes):
        raise TypesysError(f"a .{kind} file has {len(suffixes)} parts between ---, not {len(texts)}")
    return list(zip(suffixes, texts, strict=True))


def _action_services(name: str) -> dict[str, Any]:
    """The services and the message that an action consists of, as ROS 2 derives them."""
    uuid = ("goal_id", (Nodetype.NAME, "unique_identifier_msgs/msg/UUID"))
    stamp = ("stamp", (Nodetype.NAME, "builtin_interfaces/msg/Time"))
    return {
        f"{name}_SendGoal_Request": ([], [uuid, ("goal", (Nodetype.NAME, f"{name}_Goal"))]),
        f"{name}_SendGoal_Response": ([], [("accepted", (Nodetype.BASE, ("bool", 0))), stamp]),
        f"{name}_GetResult_Request": ([], [uuid]),
        f"{name}_GetResult_Response": (
            [],
            [("status", (Nodetype.BASE, ("int8", 0))), ("result", (Nodetype.NAME, f"{name}_Result"))],
        ),
        f"{name}_FeedbackMessage": ([], [uuid, ("feedback", (Nodetype.NAME, f"{name}_Feedback"))]),
    }


def _no_char(node: Any) -> Any:
    kind, detail = node
    if kind == Nodetype.NAME:
        return node
    if kind == Nodetype.BASE:
        return (kind, ("uint8", detail[1])) if detail[0] == "char" else node
    inner, size = detail
    return (kind, (_no_char(inner), size))
