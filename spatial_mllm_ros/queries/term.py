"""What every part of a query is: an immutable record that knows its name and, by its type hints, its parts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Term:
    """Base of moments, operands, measures and all that can be asked.

    ``type_name``: the name of a class in JSON and messages, ``closest_approach`` for ClosestApproach. Subclasses register
    themselves; a class without fields of its own that others derive from is abstract and is not in ``registry``.
    """

    registry: ClassVar[dict[str, type[Term]]] = {}
    type_name: ClassVar[str] = ""

    def __init_subclass__(cls, abstract: bool = False) -> None:
        super().__init_subclass__()
        if not abstract:
            cls.type_name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
            # dataclass(slots=False) returns the class itself, so that the one registered here stays the one that counts
            Term.registry[cls.type_name] = cls


class InvalidQuery(ValueError):
    """A query that contradicts itself. ``str()`` says what is wrong and what is allowed."""
