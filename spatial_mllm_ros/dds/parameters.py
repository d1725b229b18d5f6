"""The parameter services that ``ros2 param`` talks to, over any store of parameters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from spatial_mllm_ros.dds.clock import time_message

if TYPE_CHECKING:
    from spatial_mllm_ros.dds.node import DdsNode

Value = bool | int | float | str | bytes | Sequence[bool] | Sequence[int] | Sequence[float] | Sequence[str] | None
"""A parameter's value; None: not set."""
VALUE = "rcl_interfaces/msg/ParameterValue"
TWO_INTS = (-(2**63), 2**63 - 1)


class ParameterType(IntEnum):
    """The types of rcl_interfaces/msg/ParameterType."""

    NOT_SET = 0
    BOOL = 1
    INTEGER = 2
    DOUBLE = 3
    STRING = 4
    BYTE_ARRAY = 5
    BOOL_ARRAY = 6
    INTEGER_ARRAY = 7
    DOUBLE_ARRAY = 8
    STRING_ARRAY = 9


_SCALARS = {
    bool: ParameterType.BOOL,
    int: ParameterType.INTEGER,
    float: ParameterType.DOUBLE,
    str: ParameterType.STRING,
}
_ARRAYS = {
    bool: ParameterType.BOOL_ARRAY,
    int: ParameterType.INTEGER_ARRAY,
    float: ParameterType.DOUBLE_ARRAY,
    str: ParameterType.STRING_ARRAY,
}
_FIELDS = {
    ParameterType.BOOL: ("bool_value", None),
    ParameterType.INTEGER: ("integer_value", None),
    ParameterType.DOUBLE: ("double_value", None),
    ParameterType.STRING: ("string_value", None),
    ParameterType.BYTE_ARRAY: ("byte_array_value", np.uint8),
    ParameterType.BOOL_ARRAY: ("bool_array_value", np.bool_),
    ParameterType.INTEGER_ARRAY: ("integer_array_value", np.int64),
    ParameterType.DOUBLE_ARRAY: ("double_array_value", np.float64),
    ParameterType.STRING_ARRAY: ("string_array_value", list),
}


@dataclass(frozen=True)
class Range:
    """Allowed values of a number, both ends included. ``step`` 0: all in between."""

    least: float
    most: float
    step: float = 0


@dataclass(frozen=True)
class Descriptor:
    """What ``ros2 param describe`` tells of a parameter."""

    type: ParameterType
    description: str = ""
    constraints: str = ""
    """What is allowed besides the range, in words."""
    read_only: bool = False
    range: Range | None = None


@dataclass(frozen=True)
class SetResult:
    """Whether values were taken, and if not, why and what to do."""

    successful: bool
    reason: str = ""


class ParameterStore(Protocol):
    """Where parameters live. Any thread may call."""

    def names(self) -> Iterable[str]:
        """All declared parameters."""

    def get(self, name: str) -> Value:
        """A value. Raises KeyError for a parameter that is not declared."""

    def descriptor(self, name: str) -> Descriptor:
        """What a parameter is. Raises KeyError for one that is not declared."""

    def set(self, values: Mapping[str, Value]) -> SetResult:
        """Take all values, or none of them. Names need not be declared."""


@dataclass
class DeclaredParameters:
    """A store: parameters are declared, and set within their type and range.

    ``on_set`` is asked, with the new values, before they are taken, and may refuse them.
    """

    on_set: Callable[[Mapping[str, Value]], SetResult] | None = None
    _values: dict[str, Value] = field(default_factory=dict)
    _descriptors: dict[str, Descriptor] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def declare(self, name: str, value: Value, descriptor: Descriptor | None = None) -> None:
        """Declare a parameter. descriptor None: of the value's type, with no more restrictions. Raises ValueError."""
        descriptor = descriptor or Descriptor(parameter_type(value))
        if name in self._values:
            raise ValueError(f"parameter {name} is declared already")
        wrong = _misfit(name, value, descriptor)
        if wrong:
            raise ValueError(wrong)
        self._values[name], self._descriptors[name] = value, descriptor

    def names(self) -> Iterable[str]:
        """All declared parameters, in the order of declaration."""
        return list(self._values)

    def get(self, name: str) -> Value:
        """A value. Raises KeyError."""
        return self._values[name]

    def descriptor(self, name: str) -> Descriptor:
        """What a parameter is. Raises KeyError."""
        return self._descriptors[name]

    def set(self, values: Mapping[str, Value]) -> SetResult:
        """Take all values, or none of them. An integer will do for a double."""
        with self._lock:
            taken: dict[str, Value] = {}
            for name, given in values.items():
                if name not in self._values:
                    return SetResult(False, f"parameter {name} has not been declared")
                descriptor = self._descriptors[name]
                if descriptor.read_only:
                    return SetResult(False, f"parameter {name} is read-only: give it when the node is started")
                value = float(given) if descriptor.type == ParameterType.DOUBLE and type(given) is int else given
                wrong = _misfit(name, value, descriptor)
                if wrong:
                    return SetResult(False, wrong)
                taken[name] = value
            result = self.on_set(taken) if self.on_set is not None else SetResult(True)
            if result.successful:
                self._values.update(taken)
            return result


def parameter_type(value: Value) -> ParameterType:
    """The type of a value; a list is what its first element is, and an empty one strings. Raises ValueError."""
    if value is None:
        return ParameterType.NOT_SET
    if isinstance(value, bytes):
        return ParameterType.BYTE_ARRAY
    if type(value) in _SCALARS:
        return _SCALARS[type(value)]
    if isinstance(value, (list, tuple)):
        kinds = {type(item) for item in value} or {str}
        if len(kinds) == 1 and (kind := kinds.pop()) in _ARRAYS:
            return _ARRAYS[kind]
    raise ValueError(f"{value!r} is not a value that a parameter can have")


def _misfit(name: str, value: Value, descriptor: Descriptor) -> str:
    """What is wrong with a value; '' when nothing is."""
    kind = parameter_type(value)
    empty = isinstance(value, (list, tuple)) and not value and descriptor.type in _ARRAYS.values()
    if kind != descriptor.type and not empty:
        return f"parameter {name} is of type {descriptor.type.name.lower()}, not {kind.name.lower()}"
    allowed = descriptor.range
    if isinstance(value, int) and not TWO_INTS[0] <= value <= TWO_INTS[1]:
        return f"parameter {name} must fit into 64 bits"
    if allowed is not None and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not allowed.least <= value <= allowed.most:
            return f"parameter {name} must be from {allowed.least:g} to {allowed.most:g}, not {value:g}"
        steps = (value - allowed.least) / allowed.step if allowed.step else 0
        if abs(steps - round(steps)) > 1e-6 and value != allowed.most:
            return f"parameter {name} must be {allowed.least:g} plus a multiple of {allowed.step:g}, not {value:g}"
    return ""


class ParameterServices:
    """The six standard services of a node's parameters, and /parameter_events."""

    def __init__(self, node: DdsNode, store: ParameterStore) -> None:
        self._node = node
        self._store = store
        self._events = node.create_publisher(
            "rcl_interfaces/msg/ParameterEvent", "/parameter_events", "parameter_events"
        )
        for name, service, handler in (
            ("describe_parameters", "DescribeParameters", self._describe),
            ("get_parameters", "GetParameters", self._get),
            ("get_parameter_types", "GetParameterTypes", self._types),
            ("list_parameters", "ListParameters", self._list),
            ("set_parameters", "SetParameters", self._set),
            ("set_parameters_atomically", "SetParametersAtomically", self._set_atomically),
        ):
            node.create_service(f"rcl_interfaces/srv/{service}", f"~/{name}", handler, qos="parameters")
        self.tell_changed(new=list(store.names()))

    def tell_changed(self, changed: Iterable[str] = (), new: Iterable[str] = ()) -> None:
        """Publish on /parameter_events. Services do it themselves; call this when the node changes parameters."""
        self._events.publish(
            self._node.message(
                "rcl_interfaces/msg/ParameterEvent",
                stamp=time_message(self._node),
                node=self._node.name.full,
                new_parameters=[self._parameter(name) for name in new],
                changed_parameters=[self._parameter(name) for name in changed],
            )
        )

    def _parameter(self, name: str) -> Any:
        value = value_message(self._node, self._store.get(name))
        return self._node.message("rcl_interfaces/msg/Parameter", name=name, value=value)

    def _describe(self, request: Any) -> Any:
        descriptors = [self._descriptor(name) for name in request.names]
        return self._node.message("rcl_interfaces/srv/DescribeParameters_Response", descriptors=descriptors)

    def _descriptor(self, name: str) -> Any:
        make = self._node.message
        try:
            known = self._store.descriptor(name)
        except KeyError:
            return make("rcl_interfaces/msg/ParameterDescriptor", name=name)
        ranges: dict[str, Any] = {}
        if known.range is not None and known.type == ParameterType.INTEGER:
            least, most = int(known.range.least), int(known.range.most)
            ranges["integer_range"] = [
                make("rcl_interfaces/msg/IntegerRange", from_value=least, to_value=most, step=int(known.range.step))
            ]
        elif known.range is not None:
            ranges["floating_point_range"] = [
                make(
                    "rcl_interfaces/msg/FloatingPointRange",
                    from_value=float(known.range.least),
                    to_value=float(known.range.most),
                    step=float(known.range.step),
                )
            ]
        return make(
            "rcl_interfaces/msg/ParameterDescriptor",
            name=name,
            type=int(known.type),
            description=known.description,
            additional_constraints=known.constraints,
            read_only=known.read_only,
            **ranges,
        )

    def _get(self, request: Any) -> Any:
        values = [value_message(self._node, self._value(name)) for name in request.names]
        return self._node.message("rcl_interfaces/srv/GetParameters_Response", values=values)

    def _types(self, request: Any) -> Any:
        types = np.array([parameter_type(self._value(name)) for name in request.names], np.uint8)
        return self._node.message("rcl_interfaces/srv/GetParameterTypes_Response", types=types)

    def _value(self, name: str) -> Value:
        try:
            return self._store.get(name)
        except KeyError:
            return None

    def _list(self, request: Any) -> Any:
        names = [n for n in self._store.names() if _is_listed(n, list(request.prefixes), int(request.depth))]
        prefixes = sorted({name.rpartition(".")[0] for name in names} - {""})
        result = self._node.message("rcl_interfaces/msg/ListParametersResult", names=names, prefixes=prefixes)
        return self._node.message("rcl_interfaces/srv/ListParameters_Response", result=result)

    def _set(self, request: Any) -> Any:
        results = [self._take([parameter]) for parameter in request.parameters]
        return self._node.message("rcl_interfaces/srv/SetParameters_Response", results=results)

    def _set_atomically(self, request: Any) -> Any:
        result = self._take(list(request.parameters))
        return self._node.message("rcl_interfaces/srv/SetParametersAtomically_Response", result=result)

    def _take(self, parameters: Sequence[Any]) -> Any:
        try:
            result = self._store.set({parameter.name: value_of(parameter.value) for parameter in parameters})
        except ValueError as error:
            result = SetResult(False, str(error))
        if result.successful:
            self.tell_changed([parameter.name for parameter in parameters])
        return self._node.message(
            "rcl_interfaces/msg/SetParametersResult", successful=result.successful, reason=result.reason
        )


def value_message(node: DdsNode, value: Value) -> Any:
    """A value as rcl_interfaces/msg/ParameterValue."""
    kind = parameter_type(value)
    if kind == ParameterType.NOT_SET:
        return node.message(VALUE)
    name, array = _FIELDS[kind]
    converted: Any = value
    if isinstance(value, bytes):
        converted = np.frombuffer(value, np.uint8)
    elif array is list:
        converted = list(converted)
    elif array is not None:
        converted = np.array(value, array)
    return node.message(VALUE, type=int(kind), **{name: converted})


def value_of(message: Any) -> Value:
    """The value in a rcl_interfaces/msg/ParameterValue. Raises ValueError for a type that there is not."""
    kind = ParameterType(message.type)
    if kind == ParameterType.NOT_SET:
        return None
    value = getattr(message, _FIELDS[kind][0])
    if kind == ParameterType.BYTE_ARRAY:
        return bytes(value)
    return value.tolist() if isinstance(value, np.ndarray) else value


def _is_listed(name: str, prefixes: Sequence[str], depth: int) -> bool:
    """Whether a name is asked for: below one of the prefixes, at most ``depth`` levels deep (0: however deep)."""
    for prefix in prefixes or [""]:
        if name == prefix or not prefix or name.startswith(f"{prefix}."):
            levels = name[len(prefix) :].lstrip(".").count(".") + 1
            if depth == 0 or name == prefix or levels <= depth:
                return True
    return False
