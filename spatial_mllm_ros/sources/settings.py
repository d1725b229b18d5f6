"""recording.yaml: what is to be assumed about a recording, kept beside it."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.sources.source import SourceError

FILE = "recording.yaml"
_TYPES: dict[str, Any] = get_type_hints(InputSettings)
_DEFAULTS = InputSettings()


def settings_of(path: Path | None, given: Mapping[str, Any] | InputSettings = types.MappingProxyType({})) -> InputSettings:
    """The settings of the recording at ``path``: those given, then those of its recording.yaml, then the defaults.

    A folder holds recording.yaml, a file has it beside it; its keys are the fields of InputSettings. given: fields by
    name; of an InputSettings those that are not the default. Raises SourceError for unknown keys and impossible values.
    """
    values: dict[str, Any] = {}
    file = None if path is None else (path if path.is_dir() else path.parent) / FILE
    if file is not None and file.is_file():
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SourceError(f"{file} cannot be read: {error}") from error
        values = _checked({} if content is None else content, str(file))
    if isinstance(given, InputSettings):
        given = {name: value for name, value in vars(given).items() if value != getattr(_DEFAULTS, name)}
    where = "the settings" if not values else f"the settings, with {file}"
    values.update(_checked(given, "the settings"))
    try:
        return InputSettings(**values)
    except ValueError as error:
        raise SourceError(f"{where}: {error}") from error


def _checked(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise SourceError(f"{where} must hold lines such as 'depth_unit_m: 0.001', not {content!r}")
    values = {}
    for key, value in content.items():
        if key not in _TYPES:
            near = difflib.get_close_matches(str(key), _TYPES, n=1, cutoff=0.0)
            raise SourceError(f"{where}: {key!r} is no setting, the nearest is {near[0]}. All: {', '.join(_TYPES)}")
        try:
            values[key] = _converted(value, _TYPES[key])
        except (TypeError, ValueError) as error:
            raise SourceError(f"{where}, {key}: {error}") from error
    return values


def _converted(value: Any, kind: Any) -> Any:
    """A value of YAML as the field's type. Raises TypeError or ValueError."""
    if kind is bool or kind is str:
        if not isinstance(value, kind):
            raise TypeError(f"{'true or false' if kind is bool else 'a text'} expected, not {value!r}")
        return value
    if kind == tuple[float, ...]:
        return tuple(_number(v) for v in (value if isinstance(value, (list, tuple)) else [value]))
    return None if value is None and kind is not float else _number(value)


def _number(value: Any) -> float:
    """YAML reads 1e-3 as a text, and that is meant as a number all the same."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f"a number expected, not {value!r}")
    return float(value)

