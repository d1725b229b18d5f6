"""What can be added to a question: from where, at which moment, in which unit and frame, how it is measured, bounds."""

from __future__ import annotations

from typing import Any

from spatial_mllm_ros.language.chart import Several
from spatial_mllm_ros.language.phrases import GRAMMAR, Arg, Bound, Quantity, same, says
from spatial_mllm_ros.language.scales import ADJECTIVES, COMPARATIVES, NOUNS, SUPERLATIVES
from spatial_mllm_ros.queries import asks as A
from spatial_mllm_ros.queries import measures as M
from spatial_mllm_ros.queries import operands as O
from spatial_mllm_ros.queries.units import AREA, LENGTH, VOLUME

GRAMMAR.table("comparison", {
    w: c for c, words in {
        A.Comparison.MORE: "more than, over, exceeding, beyond, in excess of",
        A.Comparison.LESS: "less than, under",
        A.Comparison.AT_MOST: "at most, no more than, not more than, up to, within, not over, no further than, no farther than",
        A.Comparison.AT_LEAST: "at least, no less than, not less than, not under, no closer than, no nearer than",
        A.Comparison.ABOUT: "about, around",
    }.items() for w in words.split(", ")
})  # fmt: skip
GRAMMAR.table("m_comparison", {
    w: c for c, words in {
        A.Comparison.MORE: "greater than, larger than, bigger than, longer than, wider than, broader than, steeper than, taller than, deeper than, faster than, above, farther than, further than, higher than",
        A.Comparison.LESS: "smaller than, shorter than, narrower than, slower than, shallower than, below, lower than, nearer than, closer than, fewer than",
        A.Comparison.AT_MOST: "no greater than, not greater than, no larger than, not larger than, no longer than, not longer than",
        A.Comparison.AT_LEAST: "no smaller than, not smaller than, no shorter than",
    }.items() for w in words.split(", ")
})  # fmt: skip
FLIPPED = {A.Comparison.MORE: A.Comparison.LESS, A.Comparison.LESS: A.Comparison.MORE, A.Comparison.AT_MOST: A.Comparison.AT_LEAST, A.Comparison.AT_LEAST: A.Comparison.AT_MOST, A.Comparison.ABOUT: A.Comparison.ABOUT}  # fmt: skip


says("bound", "{comparison} {quantity}", "{quantity}")(lambda *values: Bound(values if len(values) == 2 else (A.Comparison.ABOUT, values[0])))
says("bound", "{quantity} or (more|farther|further|longer|higher|above)", "{quantity} at least")(lambda quantity: Bound((A.Comparison.AT_LEAST, quantity)))  # fmt: skip
says("bound", "{quantity} or (less|nearer|closer|shorter|below|under)", "{quantity} at most")(lambda quantity: Bound((A.Comparison.AT_MOST, quantity)))  # fmt: skip
says("bound", "between {quantity} and {quantity}", "within {quantity} (to|and) {quantity}", "from {quantity} to {quantity}", "{quantity} to {quantity}")(lambda low, high: Bound((low, high)))  # fmt: skip
says("bound", "between {amount_number} and {quantity}", "within {amount_number} (to|and) {quantity}", "{amount_number} to {quantity}")(lambda low, high: Bound((Quantity(low, high.unit), high)))  # fmt: skip


def arg(role: str, *patterns: str, cost: int = 0) -> Any:
    """Decorator of what can be added to a question; its role is what the bag keeps it under."""

    def add(action: Any) -> Any:
        def tagged(*values: Any) -> Any:
            value = action(*values)
            return (
                None
                if value is None
                else Several(Arg(role, v) for v in value)
                if isinstance(value, Several)
                else Arg(role, value)
            )

        return says("arg", *patterns, cost=cost)(tagged)

    return add


arg("from", "[AWAY|away|off|apart|over] (from|off) {thing}", "[measured|as measured|counted|starting|starting out|seen|as seen|viewed|as viewed] from {thing}", "from {thing} (on|over|away)", "(relative to|with respect to) {thing}", "(compared with|compared to) {camera_then}", "from {thing} 's (standpoint|point of view|position|perspective|viewpoint|pose|location)")(same)  # fmt: skip
says("camera_then", "{moment}")(lambda at: O.Camera(at=at))
arg("to", "[over|up|away|all the way] (to|until) {thing}", "to (reach|get to|touch|hit) {thing}", "with {thing}")(same)
arg("of", "(of|for|at|in|on|by) {thing}", "of {list}", "that {thing} has", "under {thing}", "stored at {thing}", "for {list}", "POSS {thing}")(same)
arg("between", "[in] between {list}", "[straight] [down|up] from {each} (to|and) {each}", "(connecting|joining|separating) {list}",
    "(connecting|joining) {each} (to|with|and) {each}", "reaching from {each} to {each}")(lambda *v: v[0] if len(v) == 1 else tuple(v))
arg("above", "[up|high|higher|located] (above|over) [the level of] {thing}", "(off|from|over) [the] {floor}", "up from {thing}",
    "(with respect to|relative to) the {floor}")(same)
arg("below", "[down] (below|beneath|under|underneath) {thing}", "down from {thing}")(same)
arg("shot", "{shot}")(same)
arg("time", "{when}", "when {owner} was at its (pose|position|place) at {moment}", "when {owner} was at its {moment_mark} (pose|position|place)",
    "(if|when) (i|you) (am|are) at the {moment_mark} (position|pose) [facing forward]", "from the viewpoint at {moment}",
    "from where {owner} (is|was) at {moment}", "with the CAMERA (at its|where it was at|at) {moment} [pose]")(same)
arg("span", "{span}")(same)
arg("unit", "in {unit} please", "[stated|expressed|given|quoted|measured|answer|respond|reply|in terms of|and answer] in [unit|units of] {unit}", "in {unit_in}", "[the|a] (answer|number|value|result) in {unit}", "{bare_unit}", "[answer] with a number in {unit}", "in {unit} and {unit}", "to the nearest {unit}", "as a {unit}", "as {unit}")(lambda *v: v[0])  # fmt: skip
says("unit_in", "{symbol}")(lambda s: s if s != "in" else None)
says("bare_unit", "{unit}", cost=1)(same)
arg("along",
    "(along|measured along|parallel to|measured parallel to) (the|its) (optical|viewing|camera|z|view|camera 's optical|camera 's viewing|camera 's z|camera 's) axis",
    "along (the|its) (camera|lens) axis", "in [the] (camera frame|camera 's frame|frame of the camera|camera coordinates)",
    "(from|to) the (image|camera) plane", "not ray length", "z not ray length", "in the image", "z", "into the image", "from the camera plane",
    "its distance along the optical axis")(lambda: True)
arg("metric", "horizontally", "(ignoring|disregarding|neglecting|regardless of|without|not counting|leaving out|excluding|irrespective of|without counting|not considering|setting aside|leaving aside) [the|their|any|its] (height|heights|height difference|height differences|vertical|elevation|difference in height|differences in height|vertical difference|vertical component|vertical distance|altitude)",
    "if we disregard their heights", "[from] [a] bird 's eye [view]", "projected (on|onto) the floor", "[when|as|if] [seen|viewed|looking|measured|looked at] from (above|the top|overhead|a bird 's eye view|top|straight above|directly above)", "[measured] (on|in|over|along|across|as seen on) [the|a] (floor|ground|floor plan|floorplan|map of the floor|horizontal plane|ground plane|floor plane|plan view|top view|top down view|bird 's eye view|2d map|plan|ground plan|xy plane|top down map)", "[measured] (on|over|along|across|as seen on) [the|a] map",
    "in a top (view|down view)", "on the level", "in (plan|the horizontal|the horizontal direction|2d|the plane|two dimensions)", "if you look straight down", "looking straight down", "(when|if) projected (on|onto|to|down to|down onto) the (floor|ground|floor plane|ground plane)", "bird 's eye", "a bird 's eye view", "looking down from above", "if you look down from above", "regardless of their heights", "projected onto the floor", "when both are projected onto the floor", "measured horizontally", "measured along the floor", "measured on the floor", "in the horizontal plane", "in a horizontal direction")(lambda: M.Metric.HORIZONTAL)  # fmt: skip
arg("metric", "vertically", "in (height|the vertical|the vertical direction|elevation)", "measured vertically", "along the vertical")(lambda: M.Metric.VERTICAL)
arg("metric", "[measured] in a (straight line|beeline|bee line|direct line)", "as the crow flies", "(in|as|along|on) a straight line", "straight", "directly", "in a beeline", "in 3d", "in 3d space", "through the air", "straight through the air", "in space", "in three dimensions", "in three dimensional space", "line of sight", "straight line", "in direct line", "point to point", "in real life", "in reality", "in the real world", "net", "measured straight")(lambda: M.Metric.STRAIGHT)  # fmt: skip
arg("ends", "(at|between|measured at|measuring from|measured from|from|measured between|taking) [the|their] (nearest|closest) point[s] [of each object|of each|of both|to each other|of the objects]".replace("[s]", ""), "(at|between|measured at|measuring from|measured from|from|measured between) [the|their] (nearest|closest) (points|edges|parts) [of each object|of each|of both|of the objects]", "edge to edge", "at the nearest point", "at their closest", "surface to surface")(lambda: M.Ends.NEAREST)  # fmt: skip
arg("ends", "(between|measured between|from|measured from) [the|their] (centers|centres) [of each object|of each|of both]", "(center to center|centre to centre)", "measured (center to center|centre to centre)", "from center to center", "from centre to centre")(lambda: M.Ends.CENTERS)  # fmt: skip
arg("frame", "in [the] [coordinates of] [frame] {frame_name} (frame|coordinates|coordinate system)", "in {plain_frame}",
    "in [the] frame {frame_name}", "in the coordinates of [the] {frame_name}", "in the coordinate (system|frame) of [the] {frame_name}")(same)
says("arg", "from the (center|centre|middle) of {thing} to the (center|centre|middle) of {thing}", "[between] the (centers|centres|middles|midpoints) of {thing} and {thing}", "between the (center|centre|middle) of {thing} and the (center|centre|middle) of {thing}")(
    lambda a, b: (Arg("between", (a, b)), Arg("ends", M.Ends.CENTERS)) if a != b else None
)
says("arg", "from the (center|centre|middle) of {thing}")(lambda a: (Arg("from", a), Arg("middle", a)))
says("arg", "to the (center|centre|middle) of {thing}")(lambda a: (Arg("to", a), Arg("middle", a)))
arg("total", "in (total|all|sum)", "altogether", "all told", "overall", "along (its|the|the whole|my|your|our|this) PATH", "measured along (its|the) PATH", "all in all", "along the way", "counting every (step|metre|meter|detour)", "summing up every step", "with all (detours|turns|bends)", "not the straight line", "not as the crow flies", "not in a straight line", "cumulatively", "following every bend", "including (all|every) (detours|detour|loops)")(lambda: True)  # fmt: skip
says("floor", "FLOOR", "FLOOR (surface|level)")(O.Floor)
GRAMMAR.table("adj", ADJECTIVES)
GRAMMAR.table("more_adj", COMPARATIVES)
GRAMMAR.table("most_adj", SUPERLATIVES)
GRAMMAR.table("scale_noun", NOUNS)
DIMENSIONLESS = {LENGTH, AREA, VOLUME}
