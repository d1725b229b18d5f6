"""Every kind of question with an example, and the page docs/questions.md made of them.

``python -m spatial_mllm_ros.answering.catalogue docs/questions.md`` writes it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spatial_mllm_ros.answering.handlers import NEEDS_MORE
from spatial_mllm_ros.language.canonical import Unspeakable, words
from spatial_mllm_ros.queries import asks as a
from spatial_mllm_ros.queries import measures as m
from spatial_mllm_ros.queries import moments as t
from spatial_mllm_ros.queries import operands as o
from spatial_mllm_ros.queries.query import Query, answer_type, value_unit

_P = tuple(o.Point(index=i) for i in range(3))
_BOX, _MUG = o.Box(index=0), o.Object(name="mug")
_T0, _T1 = t.MarkedMoment(index=0), t.MarkedMoment(index=1)
_SPAN = t.Span(begin=_T0, end=_T1)
_HEIGHTS = tuple(m.Height(of=p) for p in _P)

MEASURES: tuple[m.Measure, ...] = (
    m.Distance(a=_P[0], b=_P[1]),
    m.Depth(of=_P[0]),
    m.Height(of=_P[0]),
    m.Angle(a=_P[0], vertex=_P[1], b=_P[2]),
    m.Bearing(of=_P[0], viewer=o.Camera(at=_T0)),
    m.Extent(of=_BOX, dimension=m.Dimension.HEIGHT),
    m.Slope(at=_P[0]),
    m.PathLength(span=_SPAN),
    m.Turn(span=_SPAN),
    m.Shift(axis=m.Axis.FORWARD, span=_SPAN),
    m.Heading(at=_T0),
    m.Speed(at=_T0),
    m.MeanSpeed(span=_SPAN),
    m.TimeSpent(moving=False, span=_SPAN),
    m.ClosestApproach(to=_P[0]),
    m.Elapsed(span=_SPAN),
    m.SeenTime(of=_P[0], event=m.Event.FIRST),
    m.SeenDistance(of=_P[0]),
    m.SeenCount(of=_P[0]),
    m.Count(what=m.Countable.KEYFRAMES),
    m.UnseenFraction(),
    m.ObjectCount(of=_MUG),
    m.Clearance(of=_P[0]),
    m.RouteLength(start=o.Robot(at=t.Now()), goal=_P[0]),
    m.PassageWidth(of=o.Room()),
)
"""An example of every quantity."""

ASKS: tuple[a.Ask, ...] = (
    a.Mean(of=_HEIGHTS),
    a.Difference(a=_HEIGHTS[0], b=_HEIGHTS[1]),
    a.Dimensions(of=_BOX),
    a.Threshold(of=m.Distance(a=_P[0], b=_P[1]), comparison=a.Comparison.LESS, value=2.0),
    a.Within(of=m.Height(of=_P[0]), low=0.5, high=1.0),
    a.Compare(a=_HEIGHTS[0], comparison=a.Comparison.MORE, b=_HEIGHTS[1]),
    a.Relation(a=_P[0], where=o.Where.LEFT_OF, b=_P[1]),
    a.Side(a=_P[0], options=(o.Where.LEFT_OF, o.Where.RIGHT_OF), b=_P[1]),
    a.Visible(of=_P[0], at=_T0),
    a.Seen(of=_P[0]),
    a.Moving(at=_T0),
    a.Locate(of=_P[0]),
    a.Pixel(of=_P[0], at=_T0),
    a.Direction(of=_P[0]),
    a.MotionDirection(span=_SPAN),
    a.SurfaceNormal(at=_P[0]),
    a.Unseen(),
    a.Extreme(of=_HEIGHTS, which=a.Which.LARGEST),
    a.Order(of=_HEIGHTS),
    a.AppearanceOrder(of=_P[:2]),
    a.Visited(room=o.Room(name="kitchen")),
    a.Changed(of=_P[0]),
    a.Exists(of=_MUG),
    a.Reachable(goal=_P[0]),
    a.LineOfSight(a=_P[0], b=_P[1]),
    a.Fits(place=_P[0], length_m=0.6, width_m=0.4),
    a.Open(of=o.Object(name="door")),
    a.Route(goal=_P[0]),
    a.FreePlace(length_m=0.6, width_m=0.4),
    a.Occupied(of=_P[0]),
    a.Find(of=_MUG),
    a.RoomOf(of=_MUG),
    a.Property(of=_MUG, name="color"),
)
"""An example of everything else that can be asked."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of question. needs: what is missing to answer it, '' where geometry answers it."""

    name: str
    answers: str
    answer_type: str
    unit: str
    example: str
    needs: str


def kinds() -> Iterator[Kind]:
    """Every kind of question, quantities first."""
    terms: tuple[m.Measure | a.Ask, ...] = (*MEASURES, *ASKS)
    for term in terms:
        query = Query(ask=a.Value(of=term) if isinstance(term, m.Measure) else term)
        try:
            example = words(query)
        except Unspeakable:
            example = ""
        yield Kind(
            name=term.type_name,
            answers=" ".join((term.__doc__ or "").split()),
            answer_type=answer_type(query).name,
            unit=value_unit(query),
            example=example,
            needs=NEEDS_MORE.get(type(term), ""),
        )


_HEAD = """<!-- Written by spatial_mllm_ros.answering.catalogue from the dataclasses of queries/. Do not edit. -->
# What can be asked

A question is a typed query: what is asked, of what, when, in which unit and frame. Words are one way to write it
(`spatial-mllm explain "…"` shows how they are read), JSON is another (`spatial-mllm questions --schema` prints its schema),
and the fields `query` of the messages a third. The answer says what was understood: `query`, `read_as`, `alternatives`.

- `<p0>`, `<p1>` … are the request's points, `<box0>` … its boxes, `<t0>`, `<t1>` … its times.
- Beside marks there are the camera and the robot at a moment, the floor, the ceiling, the nearest wall, the origin of a
  frame, a position in a frame.
- A moment is a mark, now, the start, a stamp, a time of day (parameter `time_zone`), so long ago, so long after the start.
- Words that are not read as a whole are refused, with the reason and what could be asked instead; what has several
  readings is `AMBIGUOUS`. What needs objects, a map or rooms is `NOT_AVAILABLE` until there are such.
- A width or length of what a box encloses, asked alone, is its longer horizontal side as it was seen.
- In front of: nearer to the viewpoint along where it looks. Left and right: by direction, where both are ahead.
  Next to: less than 0.5 m apart. On: not more than 0.04 m above. Between: seen from there, the others are 135 degrees apart
  or more. Standing still: slower than 0.03 m/s and 3 degrees/s.

"""


OWN_WORDS = """\
synonyms:
  droid: robot
  remoteness: distance
wordings:
  "is <p0> in reach": "Is the distance between <p0> and the robot now less than 80 cm?"
  "range check <p0> vs <p1>": "How far is <p0> from <p1>?"
  "how far is the dock": "What is the distance between the origin of map and the robot now?"
"""
"""A file of own words, as the page shows it."""

_TAIL = f"""
## Words of your own

A YAML file adds words and sentences to those that are read: parameter `own_words` of the node, `--own-words FILE` of
`spatial-mllm ask`, `call` and `explain`.

```yaml
{OWN_WORDS}```

- `synonyms`: words to a phrase that the grammar knows. One of the words must be new to the grammar: what it knows keeps its
  meaning.
- `wordings`: a whole sentence to one that is read. Its marks stand for any marks of their kind, and both sides have the
  same ones. A sentence that is read already is refused, unless it names an object or a room (`how far is the dock`).
- Every row is checked when the file is loaded, and an error names file and line. What was put for what stands in
  `read_as`, and in the reason where a question is still not understood. `call` puts the words in before it asks and says
  so on stderr.

## How much is read

`spatial-mllm bench reading --file questions.txt` reads questions (one a line, or a JSON list of objects with `question`)
and the canonical sentences of this page, and tells how many are read and in which time.
"""


def page() -> str:
    """The page as Markdown."""
    measured = [kind for kind in kinds() if not kind.needs]
    later = [kind for kind in kinds() if kind.needs]
    return (
        _HEAD
        + "## Answered by geometry\n\n"
        + _table(measured, [f"{k.answer_type} {k.unit}".strip() for k in measured], "Answer")
        + "\n## Understood, and answered once there is what they need\n\n"
        + _table(later, [k.needs for k in later], "Needs")
        + _TAIL
    )


def _table(of: list[Kind], last: list[str], title: str) -> str:
    rows = [f"| Query | What it is | For example | {title} |", "|---|---|---|---|"]
    rows += [
        f"| `{k.name}` | {k.answers.replace('|', '/')} | {_escaped(k.example)} | {text} |"
        for k, text in zip(of, last, strict=True)
    ]
    return "\n".join(rows) + "\n"


def _escaped(text: str) -> str:
    return text.replace("<", "`<").replace(">", ">`")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
