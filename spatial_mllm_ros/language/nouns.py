"""Things: marks, the camera and the robot at a moment, floor and ceiling, rooms, named objects, and lists of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from spatial_mllm_ros.language.chart import ANYTHING, Chart
from spatial_mllm_ros.language.phrases import (
    GRAMMAR,
    LONGEST_NAME,
    NAMEABLE,
    ROOMS,
    Noun,
    Things,
    ago,
    same,
    says,
    singular,
)
from spatial_mllm_ros.queries import moments as T
from spatial_mllm_ros.queries import operands as O

IT = O.Object(name="it", object_id="?")
"""The one mark of the request that "it" means; the reader puts it in."""


def near_wall() -> O.Operand:
    return O.NearestWall()


says("thing", "{mark}")(same)
says("mark", "{p}", "[DET] [marked|queried|clicked|given|specified|selected] POINT [at|of|marked|marked by|number|called|in|with] {p}", "[DET] [object|thing|item|surface|spot] [at|marked|marked by|under] {p}", "[DET] {label} (at|marked|marked by|marked with|marked as) {p}", "DET {labelled_p}",
     "[DET] POINT POINT [at] {p}", "what [is|lies] at {p}", "whatever is at {p}", "[DET] (point|spot|pixel|place) marked by {p}", "the one at {p}", "the (surface|ground|floor) [point] (at|of) {p}", "[DET] {label} [that is|which is] shown at {p}", "the real world point [at] {p}", "[DET] THING [that is|which is|lying|located|seen] at {p}")(lambda *values: values[-1])  # fmt: skip


says("mark", "{box}", "[DET] box {box}", "[DET] [real|whole|actual|entire] THING ENCLOSED [DET] [box] {box}", "[DET] {label} ENCLOSED {box}", "DET {labelled_box}", "[DET] THING {box}", "[DET] THING [that|which] (is|lies) (in|inside|within) {box}",
     "what [is|lies] (in|inside|within) [the box] {box}", "whatever is (in|inside|within) {box}", "what [the box] {box} ENCLOSES", "[DET] {label} that {box} ENCLOSES", "[DET] THING [that|which] {box} ENCLOSES", "[DET] THING of [the|DET] [box] {box}", "[DET] contents of [the box] {box}", "the box 's (content|contents) {box}", "the one in {box}", "[DET] bounding box {box}", "[DET] {label} ENCLOSED the box {box}", "{box} 's (content|contents|object)", "whatever {box} ENCLOSES", "the box labelled {box}", "what is ENCLOSED {box}")(lambda *values: values[-1])  # fmt: skip


says("thing", "[DET] CAMERA", "[DET] (robot|rover|drone) 's CAMERA", "[the CAMERA of] the CAMERA [of the robot]", "the CAMERA that (saw|took|sees|recorded) (it|them|the image|both)", "ME", "(my|your|our) CAMERA", "the CAMERA which (saw|took) it", "the CAMERA itself", "[the] robot camera", "it 's CAMERA")(O.Camera)  # fmt: skip
says("thing", "[DET] ROBOT", "[DET] ROBOT itself", "the ROBOT base", "the base of the ROBOT", "[DET] ROBOT 's base")(lambda: O.Robot(at=T.Now()))
says("place", "{possessor} [current|own|latest|present|initial] (position|location|pose|place|viewpoint|spot|standpoint)",
     "the [current|present] (position|location|pose|place|viewpoint|standpoint) of {owner}", "{owner}")(same)  # fmt: skip


@GRAMMAR.native("it_camera", ["it", "its"])
def _it_camera(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
    """It is the camera only where nothing is marked that it could be."""
    if not any(t.kind in ("p", "box") for t in chart.tokens):
        yield at + 1, True, 0


says("possessor", "[DET] CAMERA [POSS]", "the ROBOT 's CAMERA POSS", "{it_camera}", "(my|your|our)")(lambda _=None: O.Camera())
says("possessor", "[DET] ROBOT [POSS]", cost=1)(O.Camera)
says("owner", "{possessor}", "ME")(lambda *_: O.Camera())
says("thing", "{place} (at|of|in|by|from|for) {moment}", "{place} {moment_mark}", "{owner} {moment_mark} (position|location|pose|place)", "where {owner} (was|is|had been|stood|stands|were|are|am) [at|in] {moment}", "the (place|position|pose|point|spot) where {owner} was [at] {moment}", "that at {moment}", "the (position|pose|location) at {moment}", "the (position|pose|location) of {moment}", "at {moment_mark}", "{owner} {moment_mark} (position|pose|location)", "the {moment_mark} (position|pose|location)", "the (position|location|pose) [that] {owner} had at {moment}", "what it was at {moment}", "where {owner} was {ago_moment}")(lambda *values: O.Camera(at=values[-1]))  # fmt: skip
says("ago_moment", "{quantity} ago")(ago)
says("moment_mark", "{t}")(same)
says("thing", "where {owner} (is|are|am|stands|stand) [now|currently|right now|at the moment]", "HERE", "{owner} (present|current|latest|most recent) (position|location|pose|place|view)", "the (present|current|latest) (position|location|pose) of {owner}", "the (current|present|latest) (position|location|pose)",
     "{owner} (position|pose) (now|right now)", "(where we are|where i am|where you are)")(lambda _=None: O.Camera(at=T.Now()))  # fmt: skip


says("thing", "{owner} (first|initial|starting|start|original) (position|location|pose|place|point|spot)", "[DET] (starting|start|initial) (position|point|location|pose|place) [of {owner}]", "(where|the place where|the point where|the place|the spot where|from where|the position where|the location where) {owner} BEGAN [out|off] [from]",
     "{owner} START", "the (place|point) {owner} BEGAN [from]", "[the] START [of {owner} [path|trajectory|trip|journey|route]]", "where [the] RECORDING BEGAN", "the (place|point|spot|position) where [the] RECORDING BEGAN", "the origin of {owner} (path|trajectory|route|track)", "the START of the RECORDING", "{owner} origin", "{it_camera} START")(lambda *_: O.Camera(at=T.Start()))  # fmt: skip


says("thing", "[the] FLOOR", "the FLOOR (of|in) {room}")(lambda _=None: O.Floor())
says("thing", "[the|this] CEILING", "the room 's CEILING", "the CEILING (of|in) {room}", "the CEILING [above|overhead]", "{room} CEILING",
     "{room} 's CEILING", "the CEILING in here", "the CEILING here")(lambda *_: O.Ceiling())  # fmt: skip


says("thing", "[the] (nearest|closest) wall", "the wall (nearest|closest) to it", "the nearest of the walls")(O.NearestWall)
says("thing", "{room}")(same)
GRAMMAR.table("roomname", {name: name for name in ROOMS})
says("room", "(the|this|our|my|your) [whole|entire|current] SPACE [that (we|i|you) are in|here|around us|around me]", "SPACE")(O.Room)
says("room", "[the|this|our|my|your] {roomname}", "the room named {roomname}")(lambda name: O.Room(name=name))
says("room", "the room named {name}")(lambda name: O.Room(name=name[0]) if not name[1] else None)
says("thing", "[the] origin [of the [fixed] [frame|world|map]]", "the (map|world|fixed frame) [frame] 's origin", "the (map|world) origin")(O.Origin)
says("thing", "the origin of [the] [frame] {frame_name} [frame]")(lambda name: O.Origin(frame_id=name))


@GRAMMAR.native("frame_name", [ANYTHING])
def _frame_name(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
    """A frame's name: joined by underscores or slashes in the text, so that it is one word."""
    tokens, end = chart.tokens, at + 1
    if at >= len(tokens) or tokens[at].kind != "word" or tokens[at].text in ("the", "a", "this", "image", "camera", "video"):
        return
    while end < len(tokens) and tokens[end].start == tokens[end - 1].end and tokens[end].text.replace("_", "x").isalnum():
        end += 1
    name = "".join(token.text for token in tokens[at:end])
    if name.isidentifier():
        yield end, name, 0


says("plain_frame", "{frame_name}")(lambda name: name if "_" in name or name in ("map", "odom", "world") else None)
says("thing", "[the] [position|point|place] {number} {number} [{number}] [m|metres|meters]", "x {number} y {number} [z {number}]",
     "[the] [position|point|place] {number} {number} {number} [m|metres|meters] (in|of) [the] [frame] {frame_name} [frame]")(lambda x, y, z, frame="": O.Position(x=x, y=y, z=z or 0.0, frame_id=frame))  # fmt: skip


says("thing", "(it|this|that|this one|this point|that point|the point|the marked point|this box|the box|the marked object|this object|this thing)")(lambda: IT)  # fmt: skip



_PICKS = {"nearest": O.Pick.NEAREST, "closest": O.Pick.NEAREST, "farthest": O.Pick.FARTHEST, "furthest": O.Pick.FARTHEST, "most distant": O.Pick.FARTHEST,
          "largest": O.Pick.LARGEST, "biggest": O.Pick.LARGEST, "smallest": O.Pick.SMALLEST, "other": O.Pick.OTHER, "all": O.Pick.ALL, "any": O.Pick.ANY}  # fmt: skip
GRAMMAR.table("pick", _PICKS)
RELATIONS = {
    O.Where.LEFT_OF: "left of, to the left of, on the left of, on the left side of, to the left hand side of, on the left hand side of",
    O.Where.RIGHT_OF: "right of, to the right of, on the right of, on the right side of, on the right hand side of",
    O.Where.IN_FRONT_OF: "in front of, ahead of",
    O.Where.BEHIND: "behind, in back of, at the back of",
    O.Where.ABOVE: "above, over, directly above, right above",
    O.Where.BELOW: "below, under, beneath, underneath, directly below",
    O.Where.ON: "on, on top of, upon, atop, standing on, lying on",
    O.Where.INSIDE: "in, inside, within, inside of",
    O.Where.NEXT_TO: "next to, beside, by, adjacent to, alongside, right next to, directly next to, against, near, close to",
    O.Where.SAME_SURFACE: "on the same surface as, on the same plane as",
}
GRAMMAR.table("rel", {w: where for where, words in RELATIONS.items() for w in words.split(", ")})
says("noun", "{name}")(same)
says("noun", "(object|thing|item)")(lambda: Noun("", False))
says("noun", "(objects|things|items)")(lambda: Noun("", True))


@says("object", "[the|my|your] {noun}")
def _object(noun: Noun) -> O.Operand | None:
    name, plural = noun
    return O.Object(name=name, pick=O.Pick.ALL if plural else O.Pick.THE_ONE) if name else None


says("object", "(a|an|any|some) {noun}", "any of the {noun}")(lambda noun: O.Object(name=noun[0], pick=O.Pick.ANY) if noun[0] else None)


@says("object", "[the|all|any] {pick} [the] {noun} [to {thing}|from {thing}]", "the {noun} (nearest|closest) to {thing}")
def _picked(*values: Any) -> O.Operand | None:
    if isinstance(values[0], tuple):
        return O.Object(name=values[0][0], pick=O.Pick.NEAREST, to=values[1])
    pick, (name, plural), to = values
    if (plural and pick is not O.Pick.ALL) or (to is not None and pick not in (O.Pick.NEAREST, O.Pick.FARTHEST)):
        return None
    return O.Object(name=name, pick=pick, to=to) if name or pick is not O.Pick.OTHER else None


says("thing", "{object}")(same)


@says("thing", "{object} [that is|which is|standing|lying] {rel} {simple}", "{object} between {simple} and {simple}", cost=1)
def _qualified(thing: O.Object, where: Any, to: Any) -> O.Operand | None:
    if isinstance(where, O.Operand):
        return None
    if where in (O.Where.INSIDE, O.Where.SAME_SURFACE) and not isinstance(to, O.Object | O.Room):
        return None
    return dataclasses.replace(thing, where=where, to=to) if thing.to is None else None


says("thing", "[DET] (object|thing|item) [that is|which is] {rel} {simple}")(lambda where, to: O.Object(where=where, to=to) if where not in (O.Where.ON, O.Where.INSIDE, O.Where.SAME_SURFACE) or isinstance(to, O.Object) else None)  # fmt: skip
says("object", "[the] object [with] [the] (id|number) {said_id}")(lambda i: O.Object(object_id=i))
says("object", "the {noun} with [the] id {said_id}")(lambda noun, i: O.Object(name=noun.name, object_id=i) if not noun.plural else None)
says("named_object", "(the|my|your|a|an|this|that|any|our) {noun}")(
    lambda noun: O.Object(name=noun[0]) if noun[0] and not noun[1] else None
)


says("simple", "{mark}", "{named_object}", "{room}")(same)
says("simple", "[the] FLOOR")(O.Floor)
says("simple", "[the] CAMERA")(O.Camera)
says("simple", "[the] ROBOT")(lambda: O.Robot(at=T.Now()))


@says("list",
      "[{how_many}] [DET] [{how_many}] [POINT|boxes|THING|of] {first_of} {more}* (and|or|and to|or to|and from|vs|versus|with|compared to) {each}",
      "[{how_many}] [DET] [{how_many}] [POINT|boxes|THING|of] {first_of} {more}* ({mark}|{after_pause})")  # fmt: skip
def _list(before: Any, count: Any, first: O.Operand, more: tuple[Any, ...], last: O.Operand) -> tuple[O.Operand, ...] | None:
    """Several things, as many as it says: "two of <p0>, <p1> and <p2>" is no list of three."""
    things = Things((first, *more, last))
    said = {before, count} - {None}
    return things if len(set(things)) == len(things) and said <= {len(things)} else None


GRAMMAR.table("how_many", {"both": 2, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6})
says("list", "{mark} to {mark}")(lambda a, b: Things((a, b)) if a != b else None)
says("more", "(and|or) {each}", "{mark}", "{after_pause}")(same)


@GRAMMAR.native("after_pause", [ANYTHING])
def _after_pause(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
    """A further thing of a list after a comma: two nouns side by side are no list."""
    if 0 < at < len(chart.tokens) and chart.tokens[at - 1].kind == ",":
        yield from ((end, thing, cost) for end, (thing,), cost in chart.phrase("each", at))


says("first_of", "for {thing}", "[DET] [one|object|thing|point|spot|item] (at|in) {mark}")(lambda thing: thing)


@GRAMMAR.native("first_of", [ANYTHING])
def _first_of(chart: Chart, at: int) -> Iterator[tuple[int, Any, int]]:
    """The first of a list; "closer at <t0>, <p0> or <p1>" lists two things."""
    if at < len(chart.tokens) and chart.tokens[at].text != "at":
        yield from ((end, thing, cost) for end, (thing,), cost in chart.phrase("thing", at))


says("each", "{thing}", "for {thing}", "[DET] [one|object|thing|point|spot|item] (at|in) {mark}", "to {thing}", "with {thing}")(same)


def speakable(name: str) -> bool:
    """Whether a name is read as one: up to four lower-case words that are nothing else, in the singular."""
    words = name.split(" ")
    if (
        not 0 < len(words) <= LONGEST_NAME
        or singular(words[-1]) != words[-1]
        or words[-1].endswith("ly")
        or len(words[-1]) < 2
    ):
        return False
    return all(
        w.isalpha() and w.isascii() and w == w.lower() and (w not in GRAMMAR.words or w in NAMEABLE) for w in words
    )
