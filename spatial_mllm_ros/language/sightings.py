"""Sentences about what was seen and when, where the camera has been, how time passed, and what is still unseen."""

from __future__ import annotations

from typing import Any

from spatial_mllm_ros.language.phrases import Arg, Quantity, says, si
from spatial_mllm_ros.language.sentences import Parts, Refused, all_finished, asked
from spatial_mllm_ros.queries import asks as A
from spatial_mllm_ros.queries import measures as M
from spatial_mllm_ros.queries import moments as T
from spatial_mllm_ros.queries import operands as O

# ---- seen


def seen_or_visible(thing: O.Operand, bag: dict[str, Any], past: bool, negated: bool) -> Any:
    """In view at a moment, or at any time of a span; from another thing: whether nothing stands between."""
    if isinstance(thing, O.Camera | O.Robot):
        return None
    bag.pop("image", None)
    if "shot" in bag and bag.setdefault("time", bag["shot"]) != bag.pop("shot"):
        return None
    place = bag.pop("from", None) or bag.pop("by", None)
    if isinstance(place, O.Camera | O.Robot):
        if place.at not in (None, T.Now()) and bag.setdefault("time", place.at) != place.at:
            return None
    elif place is not None:
        return None if past or bag else all_finished([A.LineOfSight(a=place, b=thing)], {}, negated)
    if bag.keys() - {"time", "span"}:
        return None
    once = "span" in bag or (past and "time" not in bag)
    return all_finished([A.Seen(of=thing) if once else A.Visible(of=thing)], bag, negated)


says("arg", "by {mover}")(lambda _: Arg("by", O.Camera()))
VIS = "(VISIBLE|SEEN)"


def view_says(patterns: tuple[str, ...], past: bool, negated: bool) -> None:
    @asked(*(p.removeprefix("{arg}* ").removesuffix(" {arg}*") for p in patterns))
    def act(p: Parts, bag: dict[str, Any]) -> Any:
        return seen_or_visible(p.things[-1], bag, past, negated)


PRESENT, PAST = (
    "(is|are|be|is n't|are n't|would|does|do|'s)",
    "(was|were|was n't|were n't|has been|have been|had been|had)",
)
NOW_STILL = "[now|still|already|currently|also|ever|being|be]"
view_says((f"{{arg}}* {PRESENT} {{thing}} {NOW_STILL} {VIS} {{arg}}*", "{arg}* (does|do) {mover} [still|currently] SEE {thing} {arg}*", "{arg}* CAN [n't] {mover} [still|also] SEE {thing} {arg}*", "{arg}* CAN [n't] {thing} [still] be SEEN {arg}*", f"{{arg}}* {{mark}} [is|be] {NOW_STILL} VISIBLE {{arg}}*", "{arg}* (does|do|would) {thing} APPEAR [VISIBLE] {arg}*", "{arg}* (is|are) there a (clear|free) (view|line of sight) (of|to) {thing} {arg}*", "{arg}* [what is|GIVE] [the] visibility of {thing} {arg}*", "{arg}* (does|do) {mover} have {thing} (in view|in sight|in its view) {arg}*", "{arg}* (do|does) {moment_arg} (show|contain) {thing}", "{arg}* (do|does|did) {seen_image} (show|contain|have) {thing}", "{arg}* {thing} [is] being VISIBLE {arg}*", "{arg}* would {mover} [be able to] SEE {thing} {arg}*", "{arg}* {mover} (sees|see) {thing} {arg}*", f"{{arg}}* (is|are) {{thing}} HIDDEN or {VIS} {{arg}}*", f"{{arg}}* (is|are|was) {{thing}} HIDDEN {{arg}}* or [can it be] {VIS} {{arg}}*", f"{{arg}}* (is|are) {{thing}} {VIS} (and unoccluded|or HIDDEN|or not) {{arg}}*", "{arg}* is {thing} among the things that (were|are) VISIBLE {arg}*"), False, False)  # fmt: skip
view_says((f"{{arg}}* {PAST} {{thing}} {NOW_STILL} {VIS} {{arg}}*", "{arg}* (did|has|have|had|did n't|has n't) {mover} [ever|already|still] (SEE|SAW|seen|got|get) {thing} [in view|in sight] {arg}*", "{arg}* did {thing} [ever] APPEAR {arg}*", "{arg}* (has|have|had) {thing} [ever|already] (been|come) VISIBLE {arg}*", "{arg}* was there a (clear|free) (view|line of sight) (of|to) {thing} {arg}*", "{arg}* (has|have) {thing} [ever|already] been SEEN {arg}*", "{arg}* was {mover} able to SEE {thing} {arg}*", "{arg}* did {mover} have (sight of|in view) {thing} {arg}*", "{arg}* was {thing} SEEN at any time {arg}*", "{arg}* {mover} (has|have) [ever|already] seen {thing} {arg}*", "(has|have|had|did) {mover} [ever|already] (seen|SEE) {thing} (before|already|earlier|yet)"), True, False)  # fmt: skip
view_says((f"{{arg}}* {PRESENT} {{thing}} {NOW_STILL} (HIDDEN|not VISIBLE|not SEEN|not in view|no longer VISIBLE) {{arg}}*", "{arg}* {thing} [is|be] HIDDEN {arg}*", "{arg}* (does|do) (anything|something) (hide|occlude|block|cover|obscure) {thing} {arg}*", "{arg}* is (anything|something) (hiding|occluding|blocking|covering|obscuring) [the view of|the view to] {thing} {arg}*", "{arg}* is the (view|line of sight) (of|to) {thing} (blocked|obstructed) {arg}*", "{arg}* is {thing} not {CANT} {arg}*".replace("{CANT}", "to be SEEN"), "{arg}* (does|do) {mover} not SEE {thing} {arg}*", "{arg}* can not {mover} SEE {thing} {arg}*", "{arg}* can {mover} not SEE {thing} {arg}*"), False, True)  # fmt: skip
view_says((f"{{arg}}* {PAST} {{thing}} [now|still|already|currently|also|being|be] (HIDDEN|not VISIBLE|not SEEN|not in view) {{arg}}*", "{arg}* did {thing} fall (outside the image|outside the view|out of view|outside the frame) {arg}*", "{arg}* had {thing} left (the view|the picture|the image|the frame) {arg}*", "{arg}* did {mover} (lose sight of|not SEE) {thing} {arg}*", "{arg}* (has|have|had) {mover} not [yet] seen {thing} {arg}*", "{arg}* (has|have|had) {mover} never seen {thing} {arg}*", "{arg}* (has|have) {thing} (never|not) [yet] been SEEN {arg}*", "{arg}* was {thing} (never|not) [yet] SEEN {arg}*"), True, True)  # fmt: skip
says("at_mark", "[at] {moment_mark}")(lambda x: Arg("time", x))
view_says(("(visible|seen) {mark}",), False, False)
says("moment_arg", "{moment_mark}")(lambda x: Arg("time", x))

WHEN = "(when|after how many seconds|how many seconds after the start|how many seconds after the beginning|what time was it when|since when|until when|up to what time|up to when|find the moment when|the moment when|at which time stamp|find when|(at|on|in) what [point in] time|at which time|what time|at (what|which) moment|which (moment|time)|how (early|late|soon|recently)|in (what|which) (image|frame)|which (image|frame)|what (was|is) the time when|at (what|which) point in time|at (what|which) stamp|what (timestamp|stamp)|at (what|which) instant|at (which|what) timestamp)"


@asked(f"{WHEN} (BE|DO|HAVE|was it) {{thing}} {{event}} [be|been|come to be] (SEEN|APPEAR|VISIBLE|seen|in the image) {{arg}}* [by {{mover}}]",
       f"{WHEN} (BE|DO|HAVE) {{thing}} [be] (SEEN|APPEAR|VISIBLE) [by {{mover}}] {{event}}",
       f"{WHEN} (BE|DO|HAVE) {{mover}} {{event}} (SEE|SAW|seen|get {{thing}} in view) [of] {{thing}}",
       f"{WHEN} (BE|DO|HAVE) {{mover}} (SEE|SAW|seen|have) {{thing}} {{event}}", f"{WHEN} {{mover}} {{event}} (SAW|saw) {{thing}}",
       f"{WHEN} {{thing}} (was|is|be) {{event}} (SEEN|VISIBLE)", f"{{thing}} {WHEN} (was|is) it {{event}} (SEEN|VISIBLE)",
       f"{WHEN} (is|was) [it] [the] {{event}} [time|moment|image|frame|instant] [that|when|in which|at which|to show] [{{mover}}] [SAW|saw|sees|see] {{thing}} [was|is|be|came|comes] [SEEN|VISIBLE|APPEAR|into view]",
       f"[{WHEN} was|what is|what was|GIVE|which was] [the] [{{owner}}] {{event}} [time of|moment of] (view|sighting|observation|appearance|glimpse|sight|image|frame|detection) (of|that shows|showing|with|containing) {{thing}} [when]",
       "[what is|what was|which is|which was] [the] {event} (time|moment|instant|point in time|timestamp|image|frame) [at which|when|that|in which|where|for which] [{mover}] [SAW|saw|sees|can see|could see|see] {thing} [is|was|be|can be|could be|came] [in view|SEEN|VISIBLE|APPEAR|into view]",
       "{event} (time|moment) [that] {thing} [was] (SEEN|VISIBLE)",
       f"{WHEN} DO {{thing}} {{event}} (disappear|go out of view|leave the view|leave the image|vanish|go out of sight)",
       f"{WHEN} DO {{thing}} (disappear|go out of view|leave the view|vanish|come into view) {{event}}", "{thing} {event} (SEEN|VISIBLE) (when|at what time)", "{event} (SEEN|VISIBLE) {mark}", "when did {thing} {event} become (VISIBLE|SEEN)", "{thing} when (was|is) it (SEEN|VISIBLE) {event}",
       f"{WHEN} was {{event}} {{thing}} (SEEN|VISIBLE)", "when {event} (did|was) {mover} (SEE|SAW) {thing}",
       f"{WHEN} (is|was) {{thing}} in (view|the image|sight|the picture) {{event}}", f"{WHEN} (BE|DO) {{mover}} {{event}} (have|get|catch) {{thing}} in (view|sight)")  # fmt: skip
def _seen_time(p: Parts, bag: dict[str, Any]) -> Any:
    thing = p.things[0]
    if isinstance(thing, O.Camera | O.Robot) or not bag.pop("by", True) or bag.keys() - {"unit"}:
        return None
    return A.Value(of=M.SeenTime(of=thing, event=p.one(M.Event)))


@asked("{how_long} ago (BE|DO|HAVE) {thing} {event} (SEEN|VISIBLE|APPEAR)", "{how_long} ago DO {mover} [{event}] (SEE|SAW) {thing}",
       "{how_long} [is it|has it been] since {thing} was [{event}] (SEEN|VISIBLE)", "{how_long} [is it|has it been] since {mover} [{event}] (SAW|saw) {thing}", roles=("unit",))  # fmt: skip
def _seen_ago(p: Parts, bag: dict[str, Any]) -> Any:
    if unit := p.one(str):
        bag["unit"] = unit
    return A.Value(of=M.SeenTime(of=p.things[0], event=p.one(M.Event, M.Event.LAST), ago=True))


@asked("(how often|how many times|in how many (images|frames|pictures)) (BE|DO|HAVE) {thing} [been] (SEEN|VISIBLE|APPEAR)",
       "how many (images|frames|pictures) (show|contain|see) {thing}", "in how many (images|frames|pictures) (is|was) {thing}",
       "how many (images|frames|pictures) (is|was) {thing} in", "(how often|how many times) (DO|HAVE) {mover} (SEE|seen) {thing}", roles=("span",))  # fmt: skip
def _seen_count(p: Parts, bag: dict[str, Any]) -> Any:
    return A.Value(of=M.SeenCount(of=p.things[0]))


@asked("from (how near|how close|what distance|how far) (BE|DO) {thing} [be] (SEEN|VISIBLE)", "how (near|close) (was|is) {thing} seen", roles=("span", "unit"))
def _seen_distance(p: Parts, bag: dict[str, Any]) -> Any:
    return A.Value(of=M.SeenDistance(of=p.things[0]))


@asked("how (close|near) (DO|HAVE|was) {mover} [ever] (get|come|got|gotten|go|been) to {thing}", "(how close|how near) {mover} (came|got|has come) to {thing}")
def _approach(p: Parts, bag: dict[str, Any]) -> Any:
    return A.Value(of=M.ClosestApproach(to=p.things[0]))


@asked("(has|have|had|was|were|did|DO) {mover} [ever] [been|come|get|got|gotten|gone] [to] within {quantity} (of|from) {thing}", roles=("span",))
def _been_within(p: Parts, bag: dict[str, Any]) -> Any:
    return A.Threshold(of=M.ClosestApproach(to=p.things[0]), comparison=A.Comparison.AT_MOST, value=si(p.one(Quantity)))


NEAR_M = 0.5
"""m: what "at" a place is taken to be in the alternatives that are offered."""


@asked("(has|have|had|was|were) {mover} [ever] [been] [back] (at|to|on|near) {thing}", "did {mover} [ever] (visit|reach|pass|pass by|go to|get to) {thing}")
def _been_at(p: Parts, bag: dict[str, Any]) -> Any:
    thing = p.things[0]
    if isinstance(thing, O.Room):
        return A.Visited(room=thing)
    near = all_finished([A.Threshold(of=M.ClosestApproach(to=thing), comparison=A.Comparison.AT_MOST, value=NEAR_M)], bag)
    return Refused(f'"at" does not say how near; {NEAR_M} m would be a choice', tuple(near)) if near else None


@asked("(has|have|had) {mover} [ever] been in {room}", "did {mover} [ever] (visit|enter|see) {room}", "(was|were) {mover} [ever] in {room}", roles=("span",))
def _visited(p: Parts, bag: dict[str, Any]) -> Any:
    room = p.one(O.Room)
    return A.Visited(room=room) if room.name else None


@asked("(is|are|am) {mover} back (at|in|on|to) {thing}", "(is|are|am) {mover} back where {mover} BEGAN", "(is|are|has|have) {mover} (back|returned) [to [the] START|home]", exact=True)
def _back(p: Parts, bag: dict[str, Any]) -> Any:
    of = M.Distance(a=O.Camera(at=T.Now()), b=p.one(O.Operand, O.Camera(at=T.Start())))
    near = all_finished([A.Threshold(of=of, comparison=A.Comparison.AT_MOST, value=NEAR_M)], {})
    return Refused(f'"back at" does not say how near; {NEAR_M} m would be a choice', tuple(near))


@asked("[what is|what was|GIVE] {owner} (position|pose|location|coordinates)", "[{mover}] (pose|position) {at_mark}", roles=("time", "frame"))
def _where_camera(p: Parts, bag: dict[str, Any]) -> Any:
    return A.Locate(of=O.Camera(at=bag.pop("time", T.Now())))


# ---- time


@asked("{how_long} (passed|elapsed|went by|lies|lie|is there|was there|is it|was it|has passed|are there|passes|separates|did it take|has elapsed|does it take|lay|is|goes by|pass|did (the camera|the robot|it|we|you) take|were there|ran)",
       "{how_long} (DO|was) {mover} (take|need)", "{how_long} did it take [{mover}] [to (get|go|drive|travel|move|come)]", "{how_long} DO DET PATH {arg}* (take|last)",
       "{how_long} [passed|time]", "what (amount|period|length|span|stretch|interval) of time (passed|elapsed|separates|lies|is|went by|is there)",
       "how (long|big|large|much) (is|was) [the] (time|interval|period|duration|gap|time span|time interval|time difference|time gap|delay|span of time)",
       "[what is|GIVE] [the] (time|duration|interval|time gap|delay|time span|elapsed time|time difference|time interval|seconds|number of seconds) [that] [passed|elapsed|went by|passes]", roles=("span", "unit"))  # fmt: skip
def _elapsed(p: Parts, bag: dict[str, Any]) -> Any:
    if unit := p.one(str):
        bag["unit"] = unit
    span = bag.pop("span", T.WHOLE)
    return None if span == T.WHOLE else A.Value(of=M.Elapsed(span=span))


says("span", "(of|for) {moment_mark} and {moment_mark}", "{moment_mark} {moment_mark}", "separates {moment_mark} (from|and) {moment_mark}")(lambda a, b: T.Span(begin=a, end=b))


@asked("{how_long} (after|later than) {moment_mark} (is|was|comes|came) {moment_mark}", "{how_long} (is|was|does|did) {moment_mark} (before|earlier than) {moment_mark}",
       "{how_long} earlier (is|was) {moment_mark} than {moment_mark}", "how much earlier (is|was) {moment_mark} than {moment_mark}")  # fmt: skip
def _later(p: Parts, bag: dict[str, Any]) -> Any:
    begin, end = p.all(T.Moment)
    return between_moments(begin, end, p, bag)


@asked("{how_long} (before|earlier than) {moment_mark} (is|was|comes|came) {moment_mark}",
       "{how_long} (is|was|does|did) {moment_mark} [come] (after|later than) {moment_mark}", "{how_long} (later|after) (is|was) {moment_mark} than {moment_mark}",
       "how much later (is|was) {moment_mark} than {moment_mark}")  # fmt: skip
def _earlier(p: Parts, bag: dict[str, Any]) -> Any:
    end, begin = p.all(T.Moment)
    return between_moments(begin, end, p, bag)


def between_moments(begin: T.Moment, end: T.Moment, p: Parts, bag: dict[str, Any]) -> Any:
    if unit := p.one(str):
        bag["unit"] = unit
    return A.Value(of=M.Elapsed(span=T.Span(begin=begin, end=end)))


@asked("{how_long} (BE|HAVE|DO) [{mover}] [been] (recording|running|on|recorded|the RECORDING|this RECORDING|the RECORDING last|filming|active|record)",
       "{how_long} (does|did|is|was) the RECORDING [last]", "[what is|GIVE] [the] (length|duration) of the RECORDING", roles=("unit",))  # fmt: skip
def _recording(p: Parts, bag: dict[str, Any]) -> Any:
    return A.Value(of=M.Elapsed())


# ---- unseen space, changes

says("percent", "percent", "in percent", "per cent")(lambda: Arg("unit", "percent"))

SAW_FLOOR = "(seen|observed|scanned|see|have|been seen|been observed)"


@asked("(how much|what|how large|how large an) (FLOOR|floor area|floor space|area of floor) (is|are) there", "how many {unit} [of] (FLOOR|floor space) (is|are) there",
       f"(how much|what|which|how large|how large an) (floor|floor area|floor space|area of floor) (was|have|has|did|does|do) [({{mover}}|{{room}})] {SAW_FLOOR}", f"how many {{unit}} [of] (FLOOR|floor space) (have|has|did|does|do) [({{mover}}|{{room}})] {SAW_FLOOR}",
       "[GIVE] [the] [total] (floor area|floor surface|area of the floor|floor space) (seen|observed|covered)", roles=("unit", "span"))  # fmt: skip
def _floor(p: Parts, bag: dict[str, Any]) -> Any:
    """The floor that there is is the floor that was seen."""
    if unit := p.one(str):
        bag["unit"] = unit
    room = p.one(O.Room, O.Room())
    return A.Value(of=M.Extent(of=room, dimension=M.Dimension.FLOOR_AREA)) if bag.pop("span", T.WHOLE) == T.WHOLE else None


SPACES = "(DET SPACE|SPACE|it|PART|the|everything|that|DET PART|them|us|here|DET PART of DET SPACE|the PART|DET environment|{room})"


@asked("(what SHARE|which SHARE|how much|how large a (part|SHARE)|how big a (part|SHARE)|how many {unit}) [of {room}|of it] [around [the|{owner}] PATH|near [the|{owner}] PATH|around the CAMERA|nearby|around us] [that] (is|are|has|have|remains|remain|was|do|did) [{mover}] [still|yet|n't|not yet] [been] UNSEEN [by {mover}]",
       "[what is|GIVE|how (large|big) is] [DET] UNSEEN (SHARE|part) [of {room}|of it] [around [the|{owner}] PATH|near the PATH]",
       "[what is|what|GIVE|how much of] [DET] SHARE of UNSEEN (SPACE|volume)", "how much UNSEEN SPACE (is there|is left|remains|are there)",
       "(how much|what SHARE) [of {room}] (have|has) {mover} (not|n't) [yet] (seen|explored|observed|covered|looked at)",
       "(what|which) SHARE of {room} (has|have) {mover} missed", "UNSEEN SPACE {percent}", "SHARE of UNSEEN SPACE", "UNSEEN SHARE",
       "(how much|what SHARE) of {room} (has|have) (n't|not) [been] [{mover}] (seen|explored|covered|observed) [yet]",
       "(how much|what SHARE) [of {room}] (did|do|does) {mover} (miss|fail to see|not see)", "how UNSEEN is {room}", roles=("unit", "span"))  # fmt: skip
def _unseen_fraction(p: Parts, bag: dict[str, Any]) -> Any:
    if unit := p.one(str):
        bag["unit"] = unit
    return A.Value(of=M.UnseenFraction()) if bag.get("unit", "percent") == "percent" and bag.pop("span", T.WHOLE) == T.WHOLE else None


@asked("(where|in (what|which) direction) (is|are|do|does|lies|lie|would|have|has) [most of] [the] [largest|biggest|most] [UNSEEN] [PART|most] [of {room}] [UNSEEN|lie|be|located|not yet seen]",
       "where (is|are|does|do|lies) [most of] [DET] UNSEEN (SPACE|PART) [of {room}] [mostly] [lie|be|found]",
       "(which|what) PART [of {room}|around [the|{owner}] PATH|of it] (is|are|has|have|remain|remains|was) [still|n't|not yet] [been|to be] (UNSEEN|seen yet|seen|explored|observed so far|observed|explored yet)",
       "(which|what) PART [of {room}] (has|have|did) {mover} (missed|miss|not seen|not see|not explored|n't seen)",
       "(which|what) PART [of {room}] have {mover} not [yet] (seen|explored|looked at)",
       "where (have|has|did) (n't {mover}|{mover} not|{mover} n't) [yet] (looked|look|been|seen|see|explored|explore) [yet]",
       "where (is|are) [DET] UNSEEN (SPACE|PART|volume)", "UNSEEN (PART|SPACE) where",
       "[show|find|GIVE] [me] where [DET] UNSEEN (PART|SPACE) [of {room}|of it] (is|are|lie|lies)",
       "(which way|on which side|to which side|in what place) (is|are|lies) [most of] [the] [most|biggest|largest] UNSEEN (SPACE|PART|volume)",
       "[in] which direction is the (most|largest) UNSEEN (SPACE|PART)", "where are {mover} still blind",
       "where should {mover} (look|go|point the camera) [next] to see (what has n't been seen|unexplored space|UNSEEN SPACE|something new|new space|what it has n't seen)",
       "where are the parts of {room} the camera has n't (observed|seen|covered)", "(in which direction|where) is the space that is still UNSEEN",
       "where (should|must|do) {mover} (look|explore) next",
       "(in|to) (which|what) direction (is|are|does) [most of] [the] UNSEEN (SPACE|PART) [mostly|MAIN] [lie|of {room}]", "where is the UNSEEN SPACE", roles=("span",))  # fmt: skip
def _unseen(p: Parts, bag: dict[str, Any]) -> Any:
    bag.clear()
    return A.Unseen()


@asked("(from|at) (what|which) height (was|is) {seen_image} TAKEN", "how high [over the FLOOR|above the FLOOR] was {seen_image} TAKEN", roles=("shot", "unit"))
def _taken_from(p: Parts, bag: dict[str, Any]) -> Any:
    return A.Value(of=M.Height(of=O.Camera(at=bag.pop("shot"))))


@asked("did [the] [depth (at|of)] {thing} change", "(has|have) {thing} changed", "(has|did) (anything|something) (changed|change) (at|in|inside) {thing}",
       "did {thing} change", roles=("span",))  # fmt: skip
def _changed(p: Parts, bag: dict[str, Any]) -> Any:
    return A.Changed(of=p.things[0])
