"""Sentences about objects and rooms: how many there are, which they are, where, what they are like."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spatial_mllm_ros.language.phrases import GRAMMAR, Noun, Things, says
from spatial_mllm_ros.language.sentences import Parts, asked
from spatial_mllm_ros.queries import asks as A
from spatial_mllm_ros.queries import measures as M
from spatial_mllm_ros.queries import moments as T
from spatial_mllm_ros.queries import operands as O

W = O.Where


def _all(noun: Noun) -> O.Object:
    return O.Object(name=noun.name, pick=O.Pick.ALL)


# ---- how many, is there


@asked("how many {counted_object} (BE there|BE|can be seen|do you see|exist|does the room have|are in it|have you seen)", "[GIVE] [the] number of {counted_object}", "how many {counted_object}", "count [the|all] {counted_object}",
       "how many {counted_object} (does|do) {room} (have|contain)", "how many {counted_object} (is|are) (there in|in) {room}", "how many {counted_object} (are|stand|lie|sit) {rel} {simple}", roles=("of",))  # fmt: skip
def _object_count(p: Parts, bag: dict[str, Any]) -> Any:
    of: O.Object = p.one(O.Object)
    places = [x for x in p.things if x is not of]
    place = bag.pop("of", None)
    if (place is not None and not isinstance(place, O.Room)) or (places and of.to is not None):
        return None
    place = places[0] if places else place
    where = p.one(W, W.INSIDE)
    if not of.name and of.where is None and place is None:
        return None
    if place is not None and where is W.INSIDE and not isinstance(place, O.Room | O.Box | O.Object):
        return None
    if place is not None and place != O.Room():
        of = replace(of, where=where, to=place)
    return A.Value(of=M.ObjectCount(of=of))


@asked("how many {counted} (BE there|BE|DO {room} have|DO {mover} (record|see|take|have)|have you [seen|recorded]|were (recorded|taken|captured)|were there) [in {room}|so far|in [the] RECORDING]",
       "how many {counted} have {mover} (seen|recorded|taken)", exact=True)  # fmt: skip
def _count(p: Parts, _: Any) -> Any:
    return A.Value(of=M.Count(what=p.one(M.Countable)))


@asked("(is|are|was) there [any|a|an|some] {counted_object}", "DO {thing} exist", "DO {room} have [any|a|an|some] {counted_object}", "(is|are) [any] {counted_object} (here|present|around)", roles=())
def _exists(p: Parts, _: Any) -> Any:
    of = p.one(O.Object)
    if of is None or not (of.name or of.where):
        return None
    room = p.one(O.Room)
    of = replace(of, pick=O.Pick.ANY) if of.pick is O.Pick.ALL else of
    return A.Exists(of=of if room is None else replace(of, where=W.INSIDE, to=room))


def _counts(comparison: A.Comparison, *patterns: str) -> None:
    @asked(*patterns, exact=True)
    def act(p: Parts, _: Any) -> Any:
        nouns = p.all(Noun)
        counts = [M.ObjectCount(of=_all(noun)) for noun in nouns if noun.name]
        return A.Compare(a=counts[0], comparison=comparison, b=counts[1]) if len(counts) == 2 else None


_counts(A.Comparison.MORE, "(are|is) there more {noun} than {noun}")
_counts(A.Comparison.LESS, "(are|is) there (fewer|less) {noun} than {noun}")


@asked("(are|is) there {comparison} {amount_number} {noun}", exact=True)
def _so_many(p: Parts, _: Any) -> Any:
    noun = p.one(Noun)
    return A.Threshold(of=M.ObjectCount(of=_all(noun)), comparison=p.one(A.Comparison), value=p.one(float)) if noun.name else None


# ---- which they are


@asked("(what|which (object|thing|objects|things|item|items)|what else|who) (is|are|lies|stands|sits|lie|stand|hangs|was) [standing|lying|located|there] {rel} {simple}", "what (do you see|is there|can you see|can be seen|is) {rel} {simple}",
       "(list|find|name|show) [me] [all|the] [of the] (objects|things|items) {rel} {simple}", "which objects are all of the object that is {rel} {simple}", roles=())  # fmt: skip
def _find(p: Parts, _: Any) -> Any:
    where = p.one(W)
    return None if where is W.SAME_SURFACE else A.Find(of=O.Object(pick=O.Pick.ALL, where=where, to=p.things[0]))


@asked("which objects are {thing}", exact=True)
def _find_object(p: Parts, _: Any) -> Any:
    return A.Find(of=p.things[0]) if isinstance(p.things[0], O.Object) else None


@asked("(list|find|name|show|count) [me|all|the] all [of] [the] {noun} [{rel} {simple}]", exact=True)
def _find_all(p: Parts, _: Any) -> Any:
    noun, where = p.one(Noun), p.one(W)
    return A.Find(of=replace(_all(noun), where=where, to=p.one(O.Operand))) if noun.name or where else None


@asked("(what|which) (is|are|was) the {pick} (object|thing|item|one|{noun}) [{in_room}] [to {thing}|from {thing}|{in_room}]", "(what|which) (object|thing|item|{noun}) (is|are|lies|stands) [the] {pick} [to {thing}|from {thing}|in {room}]", "what (is|lies) {pick} (to|from) {thing}",
       "(find|show me|name) the {pick} (object|thing|{noun}) [to {thing}|from {thing}]", roles=())  # fmt: skip
def _find_pick(p: Parts, _: Any) -> Any:
    pick, noun, things = p.one(O.Pick), p.one(Noun, Noun("", False)), p.things
    if pick in (O.Pick.ALL, O.Pick.ANY, O.Pick.OTHER) or len(things) > 1:
        return None
    to = things[0] if things else None
    if isinstance(to, O.Room):
        return A.Find(of=O.Object(name=noun.name, pick=pick, where=W.INSIDE, to=to))
    if to is not None and pick not in (O.Pick.NEAREST, O.Pick.FARTHEST):
        return None
    return A.Find(of=O.Object(name=noun.name, pick=pick, to=to))


says("in_room", "in {room}")(lambda room: room)


@asked("[what|which] [is|will be|was|be] [the] [first time|first] appearance order of [the following [categories|objects|things]] [in the RECORDING] {list}", "in (which|what) order (did|do|does|were|are) {list} [first] (APPEAR|VISIBLE|SEEN)",
       "what will be the first time appearance order of the following categories in the video {list}", roles=())  # fmt: skip
def _appearance(p: Parts, _: Any) -> Any:
    return A.AppearanceOrder(of=tuple(p.one(Things)))


# ---- rooms, and what things are like


@asked("(which|what) room (is|am|are|was) {mover} [now|currently] (in|inside)", "in (which|what) room (is|am|are) {mover} [now]", "(which|what) room is (this|it|here)", "where am i , (which|what) room", exact=True)
def _room_now(*_: Any) -> Any:
    return A.RoomOf(of=O.Camera(at=T.Now()))


@asked("(which|what) room (is|are) {thing} in", "in (which|what) room (is|are|can i find) {thing}", exact=True)
def _room_of(p: Parts, _: Any) -> Any:
    return A.RoomOf(of=p.things[0])


@asked("which room (has|contains) the most {noun}", "in which room are [there] the most {noun}", "which room are most of {thing} in", exact=True)
def _most(p: Parts, _: Any) -> Any:
    return A.RoomOf(of=p.things[0] if p.things else _all(p.one(Noun)), most=True)


GRAMMAR.table("property", {w: w.replace("colour", "color") for w in ("color", "colour", "material", "shape", "temperature", "brand", "state", "weight", "age", "price")})  # fmt: skip


@asked("(what|which) {property} (is|are|has|does) {thing} [have|made of]", "what is the {property} of {thing}", "{thing} is what {property}", exact=True)
def _property(p: Parts, _: Any) -> Any:
    return A.Property(of=p.things[0], name=p.one(str))


@asked("(is|are|was) {thing} open", "(is|are) {thing} opened", exact=True)
def _open(p: Parts, _: Any) -> Any:
    return A.Open(of=p.things[0])


@asked("(is|are) {thing} (closed|shut)", exact=True, negated=True)
def _closed(p: Parts, _: Any) -> Any:
    return A.Open(of=p.things[0])
