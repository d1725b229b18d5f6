"""Which of several, whether one is more than another, where things are, and at which pixel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spatial_mllm_ros.language.chart import Several
from spatial_mllm_ros.language.phrases import Arg, Things, same, says
from spatial_mllm_ros.language.scales import LESS, MORE, Adjective, Superlative
from spatial_mllm_ros.language.sentences import (
    END,
    OPPOSITE,
    Parts,
    Than,
    all_finished,
    asked,
    bag_of,
    compared,
    over_list,
    parted,
)
from spatial_mllm_ros.queries import asks as A
from spatial_mllm_ros.queries import operands as O

says("than", "than {thing} [is|are|am|do|does|would be|'s]")(lambda thing: (("subj", thing),))


@says("than", "than {thing} (was|were|did|has been|had been)")
def _than_was(thing: O.Operand) -> Any:
    """ "than <p1> was at <t0>" is of that moment alone, which no comparison says; the camera's moment is its own."""
    return (("subj", thing),) if isinstance(thing, O.Camera | O.Robot) else None


says("than", "than {quantity}")(same)
says("than", "compared (to|with) {thing}")(lambda t: (("subj", t),))
says("than", "than from {thing}", "than that from {thing}")(lambda t: (("from", t),))
says("than", "than to {thing}", "than the distance to {thing}", "than that to {thing}")(lambda t: (("to", t),))
says("than", "than that of {thing}", "than the one (of|at|in) {thing}")(lambda t: (("subj", t),))
says("than", "than {when}", "than it was {when}")(lambda t: (("time", t),))
says("than_marked", "{than}")(lambda than: Than(of=than))


@asked("BE {thing} [LIE|have] [much|any] {than_adj} {arg}* {than_marked}", "{thing} BE [LIE] {than_adj} {arg}* {than_marked}", "DO {thing} [LIE|have] {than_adj} {arg}* {than_marked}",
       "{thing} LIE {than_adj} {arg}* {than_marked}", "{thing} {than_adj} {arg}* {than_marked}", "(BE|DO) n't {thing} [LIE|have] {than_adj} {arg}* {than_marked}",
       "DO {thing} have {than_adj} {arg}* {than_marked}")  # fmt: skip
def _more(p: Parts, bag: dict[str, Any]) -> Any:
    return more(p, bag, False)


@asked("BE {thing} (not|no) {than_adj} {arg}* {than_marked}", "{thing} BE (not|n't) {than_adj} {arg}* {than_marked}")
def _not_more(p: Parts, bag: dict[str, Any]) -> Any:
    found = (q for q in more(p, bag, False) or () if isinstance(q.ask, A.Threshold | A.Compare))
    return Several(replace(q, ask=replace(q.ask, comparison=OPPOSITE[q.ask.comparison])) for q in found)


def more(p: Parts, bag: dict[str, Any], negated: bool) -> Any:
    """Whether a scale says more of a thing than of another, than at another moment, or than a quantity."""
    scale, sign = p.one(Adjective)
    core, floats = parted(bag)
    if "subj" in core:
        return None
    return all_finished(compared(scale, sign, {**core, "subj": p.things[0]}, p.one(Than).of), floats, negated)


# ---- which of several


says("superlative", "[the] {most_adj}")(lambda adj: Superlative(adj.scale, adj.sign))
says("superlative", "[the] {ordinal} {most_adj}", "[the] {ordinal} {more_adj}")(lambda rank, adj: Superlative(adj.scale, adj.sign, rank))
says("superlative", "the most {scale_noun}")(lambda s: Superlative(s, MORE))
says("superlative", "the least {scale_noun}")(lambda s: Superlative(s, LESS))
says("superlative", "(the|at the|at a|a) [camera] (greater|larger|greatest|largest|bigger|higher|longer|highest|longest) {scale_noun}")(lambda s: Superlative(s, MORE))
says("superlative", "(the|at the|at a|a) (smaller|smallest|lesser|shorter|shortest|lower|lowest|least) {scale_noun}")(
    lambda s: Superlative(s, LESS)
)
says("comparative", "[the] {more_adj} [one|point|object|thing|spot|of the two|of both|of them|item]", "more {adj}",
     "the more {adj} [one|point|of the two]")(lambda adj: Superlative(adj.scale, adj.sign))
says("than_adj", "{more_adj}", "the {more_adj} one", "more {adj}")(same)
says("than_adj", "less {adj}")(lambda adj: Adjective(adj[0], -adj[1]))
says("than_adj", "at a (greater|larger|longer|bigger|higher) {scale_noun}", "a (greater|larger|longer|bigger|higher) {scale_noun}")(lambda s: Adjective(s, MORE))
says("than_adj", "at a (smaller|shorter|lesser|lower) {scale_noun}", "a (smaller|shorter|lesser|lower) {scale_noun}")(
    lambda s: Adjective(s, LESS)
)
says("comparative", "(less|not as|not so) {adj}")(lambda adj: Superlative(adj[0], -adj[1]) if adj[0] != "deep" else None)


def extreme(things: Any, how: Any, *args: Any, role: str = "subj") -> Any:
    scale, sign, rank = how
    which = END[sign]
    bag = bag_of(*args)
    if bag is None:
        return None
    if scale == "height":
        scale = "high" if all(isinstance(x, O.Point | O.Camera | O.Ceiling | O.Robot) for x in things) else "tall"
    found = over_list(
        lambda of: [A.Extreme(of=of, which=which, rank=rank)] if rank <= len(of) else [],
        scale,
        role,
        things,
        tuple(bag.items()),
    )
    return found


WHICH = "[to] WHICHEVER"


def which_of(p: Parts) -> Any:
    """The one of the list, or of two marks, that has most of a scale."""
    lists, how, noun = p.all(Things), p.one(Superlative), p.one(str)
    how = how or (Superlative(noun, MORE) if noun else None)
    if how is None or noun not in (None, how.scale):
        return None
    if not lists and len(p.things) == 2:
        return extreme(p.things, how, *p.args)
    return extreme(lists[0], how, *p.args) if len(lists) == 1 and not p.things else None


@asked(f"{WHICH} [[of] {{list}}] [HAVING|BE] {{superlative}} {{arg}}* [of {{list}}]", f"{WHICH} [[of] {{list}}] [HAVING|BE] {{comparative}}",
       f"{WHICH} [HAVING|BE] {{superlative}} {{arg}}* {{list}}", f"{WHICH} [HAVING|BE] {{comparative}} {{arg}}* {{list}}",
       f"[(of|among|between|given|from|out of|considering|comparing|compare|take)] {{list}} {WHICH} [of them|one|of the two|of these] [HAVING|BE] ({{superlative}}|{{comparative}})",
       "[compare|comparing] [the {scale_noun}] [of] {list} WHICHEVER (is|has) ({superlative}|{comparative})",
       "to WHICHEVER is it ({superlative}|{comparative}) {arg}* {list}", "to WHICHEVER of {list} is the {scale_noun} (larger|greater|bigger)",
       "is it {mark} or is it {mark} that [is|has] ({comparative}|{superlative})", "WHICHEVER of {list} would {mover} reach first",
       "of {list} WHICHEVER would {mover} reach first", "PICK [ONE] [of {list}] [HAVING|BE] ({superlative}|{comparative}) {arg}* [of {list}]",
       "PICK [ONE] [HAVING|BE] ({superlative}|{comparative}) {arg}* {list}", "PICK ONE of {list} [that] [HAVING|BE] ({superlative}|{comparative})",
       "(given|of|considering) {list} PICK [ONE] [HAVING|BE] ({superlative}|{comparative})",
       f"{WHICH} of [DET] [two|three|four|five] (points|objects|things|spots|boxes) [HAVING|BE] ({{superlative}}|{{comparative}}) {{arg}}* {{list}}",
       f"{WHICH} (of these|of the following) (points|objects|things|spots|boxes) {{list}} [HAVING|BE] ({{superlative}}|{{comparative}})",
       "the ({superlative}|{comparative}) of {list}", "what is the ({superlative}|{comparative}) [one|point|object] of {list}",
       "({superlative}|{comparative}) {arg}* {list}")  # fmt: skip
def _which(p: Parts, bag: dict[str, Any]) -> Any:
    return which_of(p)


@asked("(BE|DO|is it|was it) {list} [that] [HAVING|LIE|BE] ({comparative}|{superlative})", "{list} [HAVING|LIE] ({comparative}|{superlative})",
       "(BE|is) the ({comparative}|{superlative}) {list}", "whether {list} [HAVING|LIE|BE] ({comparative}|{superlative})")  # fmt: skip
def _either(p: Parts, bag: dict[str, Any]) -> Any:
    return which_of(p)


@asked("BE {thing} ({comparative}|{superlative}) {arg}* [to|from|than to|than from] {list}", "WHICHEVER BE {thing} ({comparative}|{superlative}) (to|from) {list}",
       "WHICHEVER of {list} BE {thing} ({comparative}|{superlative}) (to|from)")  # fmt: skip
def _nearer_to(p: Parts, bag: dict[str, Any]) -> Any:
    lists, how = p.all(Things), p.one(Superlative)
    if how is None or how.scale != "far" or len(lists) != 1:
        return None
    return extreme(lists[0], how, ("subj", p.things[0]), *p.args, role="from")


# ---- places and directions


@asked("where [exactly] (BE|DO) {thing} [LIE|be]", "where {thing} (is|was|are|LIE)", "(find|locate) {thing}", "{thing} where [is it]")
def _where(p: Parts, bag: dict[str, Any]) -> Any:
    return where_is(p.things[0], bag)


def where_is(thing: O.Operand, bag: dict[str, Any]) -> Any:
    core, floats = parted(bag)
    who = isinstance(thing, O.Camera | O.Robot)
    if not core and ("time" not in floats or who):
        return all_finished([A.Locate(of=thing)], floats)
    if core.keys() == {"from"} and isinstance(core["from"], O.Camera | O.Robot):
        return all_finished([A.Direction(of=thing, viewpoint=A.Viewpoint(at=core["from"]))], floats)
    return None


@asked("[what BE|GIVE|GIVE me|what are] [DET] (position|location|coordinates|pose|place|3d position|3d coordinates|xyz) of {thing} {arg}*", "[what BE|GIVE|what are] {thing} POSS (position|location|coordinates|pose) {arg}*",
       "(position|coordinates|location|pose|xyz) {thing} {arg}*", exact=True)  # fmt: skip
def _position_of(p: Parts, bag: dict[str, Any]) -> Any:
    return where_is(p.things[0], bag)


says("arg", "standing (at|by|in|where) {thing} [and] [facing|looking (at|to|towards)] {thing}",
     "(if|when) (i|you) (am|are|stand|were|was) [standing] (at|by) {thing} [and] [am] (facing|looking at|face|look at|looking towards) {thing}")(lambda at, facing: Arg("view", A.Viewpoint(at=at, facing=facing)))
says("arg", "(facing|looking at) {thing} from {thing}", "(facing|looking at) {thing} [while] standing at {thing}")(
    lambda facing, at: Arg("view", A.Viewpoint(at=at, facing=facing))
)
says("arg", "[as] seen from {thing} [and] (looking|facing) [at|to|towards] {thing}")(lambda at, facing: Arg("view", A.Viewpoint(at=at, facing=facing)))
says("arg", "standing at {thing}")(lambda at: Arg("view", A.Viewpoint(at=at)))


PIXEL = "(pixel|pixels|pixel position|pixel coordinates|pixel location|image coordinates|image position|image location|u and v|u v|u , v|(u , v)|u v coordinates|u , v coordinates|pixel coordinate|coordinates|x and y|position|location|(u v)|correspondence|place|u v position|spot)"
SHOWS = "(appear|appears|show up|shows up|land|land on|lands|fall|falls|project|project to|projected|reproject|reprojects|found|be|seen|be seen|map|map to|projects to|lie|lies|located|end up|ends up|moved|moved to|move|go|gone|sit|see|find|click|visible|be found|come to lie|correspond|corresponds|match|matches|shows|show)"


@asked(f"[GIVE] [at|in|into|to|on] (what|which) [image] {PIXEL} [(BE|DO|HAVE|can|would|will)] [{{mover}}] [SHOWS] {{thing}} [LIE] [{SHOWS}] [at|to|in|on]".replace(
        "[SHOWS]", f"[{SHOWS}]"
    ),
       f"[what is|what are|GIVE|GIVE me] [the] [image] {PIXEL} [position|coordinates|location] (of|for) {{thing}}",
       f"[find|locate|GIVE] (where|whereabouts) {{arg}}* [is|are|was|would|will|does|do|did|can|has|could|should] [{{mover}}] [{SHOWS}] {{thing}} [{SHOWS}] [is|was|be]",
       "(project|reproject|find|locate|point out|track|GIVE|mark) {thing} {arg}* [and return the pixel|[which|what] pixel|where is it]",
       f"{{thing}} [at|in] (which|what) {PIXEL}", "(find|GIVE) where {thing} is", f"(where|whereabouts) {{arg}}* {{thing}} [{SHOWS}] [is|was|be]", f"{{thing}} {PIXEL}",
       "where would i click {arg}* to select {thing}", "same point as {thing} but {arg}* which pixel",
       "if i look at {seen_image} where (do|would|can) i (find|see) {thing}")  # fmt: skip
def _pixel(p: Parts, bag: dict[str, Any]) -> Any:
    """Where in an image: it must say that it is the image, by its name or by the pixel."""
    if len(p.things) != 1 or isinstance(p.things[0], O.Camera | O.Robot | O.Room):
        return None
    moment = bag.pop("shot", None)
    moment = bag.pop("time", moment) if moment is None else moment
    bag.pop("image", None)
    return A.Pixel(of=p.things[0], at=moment) if moment is not None and not bag else None


says("seen_image", "the {moment_mark} (image|frame|picture)", "the IMAGE [TAKEN] (at|from|of) {moment}")(lambda moment: Arg("shot", moment))
says("arg", "(in|on|within|to) (the|its) (image|picture|frame|screen|camera frame|camera image|photo|view)", "on screen")(lambda: Arg("image", True))
