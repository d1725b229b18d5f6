"""What stands after --ros-args on the command line: remappings, parameters, and what goes with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spatial_mllm_ros.dds.names import NAME, InvalidName, NodeName

PARAMETERS_KEY = "ros__parameters"
NAME_KEYS = ("__node", "__name")
NAMESPACE_KEY = "__ns"
SCHEMES = {"rostopic://": "topic", "rosservice://": "service"}
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
SWITCH = re.compile(r"--(enable|disable)-(rosout-logs|stdout-logs|external-lib-logs)")


class RosArgumentError(ValueError):
    """Arguments after --ros-args, or a parameter file, that cannot be understood. ``str()`` says which and why."""


@dataclass(frozen=True)
class Remap:
    """``match:=target``, for one node or (node None) for all, for topics, services or (kind None) both."""

    match: str
    target: str
    node: str | None = None
    kind: str | None = None


@dataclass(frozen=True)
class Assignment:
    """A parameter's value for the nodes whose full name fits ``nodes``, a pattern with * and **."""

    nodes: str
    name: str
    value: Any

    def is_for(self, node: NodeName) -> bool:
        """Whether the node gets it."""
        pattern = "".join(
            {"**": r"(/\w+)*", "*": r"/\w+"}.get(token, "/" + re.escape(token))
            for token in self.nodes.strip("/").split("/")
        )
        return re.fullmatch(pattern, node.full) is not None


@dataclass(frozen=True)
class RosArguments:
    """The arguments, understood. ``rest`` are those that are not ROS's, the program's name not among them."""

    remaps: tuple[Remap, ...] = ()
    assignments: tuple[Assignment, ...] = ()
    enclave: str = "/"
    log_levels: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> RosArguments:
        """From arguments without the program's name. Raises RosArgumentError, InvalidName and OSError."""
        remaps: list[Remap] = []
        assignments: list[Assignment] = []
        levels: list[str] = []
        rest: list[str] = []
        enclave = "/"
        waiting = list(arguments)
        is_ros = False
        while waiting:
            argument = waiting.pop(0)
            if not is_ros:
                is_ros = argument == "--ros-args"
                if not is_ros:
                    rest.append(argument)
                continue
            if argument == "--":
                is_ros = False
            elif argument in ("--ros-args", "") or SWITCH.fullmatch(argument):
                continue
            elif argument in ("-r", "--remap"):
                remaps.append(_remap(_value(argument, waiting)))
            elif argument in ("-p", "--param"):
                assignments.append(_assignment(_value(argument, waiting)))
            elif argument == "--params-file":
                assignments += parameter_file(Path(_value(argument, waiting)))
            elif argument in ("-e", "--enclave"):
                enclave = _value(argument, waiting)
            elif argument == "--log-level":
                levels.append(_value(argument, waiting))
            elif argument == "--log-config-file":
                _value(argument, waiting)
            elif ":=" in argument and not argument.startswith("-"):
                raise RosArgumentError(f"{argument!r} after --ros-args: write -r or -p before it")
            else:
                raise RosArgumentError(f"{argument!r} is not known after --ros-args")
        return cls(tuple(remaps), tuple(assignments), enclave, tuple(levels), tuple(rest))

    def node_name(self, name: str, namespace: str) -> NodeName:
        """The node's name after remapping by __node (or __name) and __ns. Raises InvalidName."""
        for remap in self.remaps:
            if remap.match in NAME_KEYS and remap.node in (None, name):
                final = remap.target
                break
        else:
            final = name
        for remap in self.remaps:
            if remap.match == NAMESPACE_KEY and remap.node in (None, name):
                namespace = remap.target
                break
        return NodeName(final, namespace).checked()

    def resolve(self, node: NodeName, name: str, kind: str) -> str:
        """The full name that a topic or service of a node has after remapping; the first rule that fits holds.

        kind: "topic" or "service". Raises InvalidName.
        """
        full = node.expand(name)
        for remap in self.remaps:
            if remap.match in (*NAME_KEYS, NAMESPACE_KEY) or remap.node not in (None, node.name):
                continue
            if remap.kind in (None, kind) and node.expand(remap.match) == full:
                return node.expand(remap.target)
        return full

    def parameters(self, node: NodeName) -> dict[str, Any]:
        """Values of a node's parameters, from files and -p, the last one of a name."""
        return {a.name: a.value for a in self.assignments if a.is_for(node)}


def _value(option: str, waiting: list[str]) -> str:
    if not waiting:
        raise RosArgumentError(f"{option} needs a value after it")
    return waiting.pop(0)


def _split_node(text: str) -> tuple[str | None, str]:
    node, colon, rest = text.partition(":")
    if colon and not rest.startswith("//"):
        if not NAME.fullmatch(node.strip("/").rpartition("/")[2]):
            raise InvalidName(f"{node!r} in {text!r} is not a node name")
        return node, rest
    return None, text


def _remap(text: str) -> Remap:
    match, sign, target = text.partition(":=")
    if not sign or not match or not target:
        raise RosArgumentError(f"-r {text!r}: write it as from:=to")
    node, match = _split_node(match)
    for scheme, kind in SCHEMES.items():
        if match.startswith(scheme):
            return Remap(match[len(scheme) :], target.removeprefix(scheme), node, kind)
    return Remap(match, target, node)


def _assignment(text: str) -> Assignment:
    name, sign, value = text.partition(":=")
    if not sign or not name:
        raise RosArgumentError(f"-p {text!r}: write it as name:=value")
    node, name = _split_node(name)
    try:
        parsed = yaml.safe_load(value) if value else ""
    except yaml.YAMLError as error:
        raise RosArgumentError(f"-p {text!r}: the value is not YAML") from error
    pattern = "/**" if node is None else node if node.startswith("/") else f"/**/{node}"
    return Assignment(pattern, name, _ros_value(parsed, name))


def parameter_file(path: Path) -> list[Assignment]:
    """The parameters in a ROS 2 parameter file, in its order. Raises RosArgumentError and OSError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RosArgumentError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return []
    if not isinstance(content, dict):
        raise RosArgumentError(f"{path} is not a parameter file: it must have a node's name or /** at the top")
    assignments = list(_of_nodes(content, "", path))
    if not assignments and PARAMETERS_KEY not in str(content):
        raise RosArgumentError(f"{path} has no {PARAMETERS_KEY}: put them below the node's name or /**")
    return assignments


def _of_nodes(content: Mapping[Any, Any], above: str, path: Path) -> list[Assignment]:
    found: list[Assignment] = []
    for key, value in content.items():
        if not isinstance(value, dict):
            if key == PARAMETERS_KEY and value is None:
                continue
            raise RosArgumentError(f"{path}: {key!r} is neither a node nor below {PARAMETERS_KEY}")
        if key == PARAMETERS_KEY:
            found += [Assignment(above or "/**", name, parameter) for name, parameter in _flat(value, "", path)]
        else:
            found += _of_nodes(value, f"{above}/{str(key).strip('/')}", path)
    return found


def _flat(values: Mapping[Any, Any], above: str, path: Path) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, dict):
            found += _flat(value, name, path)
        else:
            try:
                found.append((name, _ros_value(value, name)))
            except RosArgumentError as error:
                raise RosArgumentError(f"{path}: {error}") from error
    return found


def _ros_value(value: Any, name: str) -> Any:
    """A YAML value as the parameter that ROS 2 takes it for: 1e3, which YAML 1.1 calls a string, is a number."""
    if isinstance(value, str) and NUMBER.fullmatch(value) and ("e" in value or "E" in value):
        return float(value)
    if isinstance(value, list):
        items = [_ros_value(item, name) for item in value]
        if {type(item) for item in items} == {int, float}:
            items = [float(item) for item in items]
        if len({type(item) for item in items}) > 1 or any(isinstance(item, list) for item in items):
            raise RosArgumentError(f"parameter {name}: a list must hold values of one type")
        return items
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise RosArgumentError(f"parameter {name}: {value!r} is not a value that ROS has")
