"""A query as one short line, for tables of expectations: ``distance(p0, p1) < 2``-like, defaults left out."""

from __future__ import annotations

import dataclasses
from enum import Enum

from spatial_mllm_ros.queries.asks import Value
from spatial_mllm_ros.queries.moments import WHOLE, AfterStart, Ago, ClockTime, MarkedMoment, MarkMoment, Span, Stamp
from spatial_mllm_ros.queries.operands import Box, Camera, Object, Point, Position, Robot
from spatial_mllm_ros.queries.query import Query
from spatial_mllm_ros.queries.term import Term


def short(value) -> str:
    if isinstance(value, Query):
        extra = [" not"] if value.negated else []
        extra += [f" in {value.unit}"] if value.unit else []
        extra += [f" frame {value.frame_id}"] if value.frame_id else []
        extra += [f" window {short(value.window)}"] if value.window else []
        return short(value.ask) + "".join(extra)
    match value:
        case Value():
            return short(value.of)
        case Point():
            return f"p{value.index}"
        case Box():
            return f"box{value.index}"
        case MarkedMoment():
            return f"t{value.index}"
        case MarkMoment():
            return f"{'p' if value.mark == 'points' else 'box'}{value.index}'s"
        case Ago():
            return f"-{value.seconds:g}s"
        case AfterStart():
            return f"+{value.seconds:g}s"
        case ClockTime():
            return f"{value.hour}:{value.minute:02}:{value.second:02}" + (f"-{value.days_ago}d" if value.days_ago else "")
        case Stamp():
            return f"stamp{value.stamp_ns}"
        case Span():
            return "whole" if value == WHOLE else f"{short(value.begin)}..{short(value.end)}"
        case Camera():
            return "camera" + (f"@{short(value.at)}" if value.at else "")
        case Robot():
            return f"robot@{short(value.at)}"
        case Position():
            return f"({value.x:g} {value.y:g} {value.z:g}{' ' + value.frame_id if value.frame_id else ''})"
        case Object():
            pick = "" if value.pick.value == "the_one" else value.pick.value + " "
            ident = f"#{value.object_id}" if value.object_id else ""
            where = f" {value.where.value} {short(value.to)}" if value.where else f" to {short(value.to)}" if value.to else ""
            return f"'{pick}{value.name}{ident}{where}'"
        case Enum():
            return str(value.value)
        case bool() | int() | str():
            return str(value).lower() if isinstance(value, bool) else str(value)
        case float():
            return f"{value:.6g}"
        case tuple():
            return "[" + ", ".join(short(v) for v in value) + "]"
        case Term():
            parts = []
            for f in dataclasses.fields(value):
                v = getattr(value, f.name)
                if f.default is dataclasses.MISSING:
                    parts.append(short(v))
                elif v != f.default:
                    parts.append(f"{f.name}={short(v)}")
            return value.type_name + (f"({', '.join(parts)})" if parts else "")
        case None:
            return "none"
    raise TypeError(value)
