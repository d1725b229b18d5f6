"""The questions that people asked, by their ids, each with the query it is; "-" where it must be refused with a reason.

They are not in the package: without them these tests are skipped. The queries are in the short form of ``short_form``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shared_data import shared_folder
from short_form import short

from spatial_mllm_ros.language.reader import Reading, read
from spatial_mllm_ros.language.tokens import marks_in

SHARED = shared_folder()
READ_AT_LEAST = {"misread": 16, "adversarial": 18, "blind": 84}
"""So many are read, of 52, 40 and 100: most of the others cannot be answered, or mean two things."""
EXPECTED = {
    "misread": {
        "w000": "-",
        "w003": "-",
        "w007": "-",
        "w010": "route_length(robot@now, 'goal point')",
        "w013": "-",
        "w017": "time_spent(true)",
        "w021": "-",
        "w024": "-",
        "w027": "distance(robot@t0, 'target')",
        "w030": "-",
        "w033": "-",
        "w036": "-",
        "w040": "-",
        "w043": "height('screen')",
        "w047": "-",
        "w050": "distance(p0, 'furniture')",
        "w053": "distance(p0, 'line')",
        "w056": "-",
        "w061": "-",
        "w064": "height(p0, above=camera@now)",
        "w067": "-",
        "w070": "height(box0)",
        "w073": "height(box0)",
        "w076": "-",
        "w079": "seen(p0)",
        "w082": "seen(p0)",
        "w089": "-",
        "w092": "-",
        "w096": "-",
        "w099": "-",
        "w103": "seen_time(p0, last, ago=true)",
        "w112": "side(p0, [left_of, right_of], b='target')",
        "w115": "-",
        "w118": "-",
        "w121": "-",
        "w124": "extreme([distance(p0, 'picture'), distance(p1, 'picture')], smallest)",
        "w129": "-",
        "w132": "-",
        "w135": "-",
        "w138": "-",
        "w143": "-",
        "w146": "-",
        "w149": "-",
        "w153": "time_spent(false, span=t0..t1) in s",
        "w156": "time_spent(true, span=t0..t1) in s",
        "w159": "-",
        "w162": "heading in deg",
        "w165": "-",
        "w168": "-",
        "w174": "-",
        "w187": "height(p0, above=p1)",
        "w232": "-",
    },
    "adversarial": {
        "a00": "distance(p0, p1, metric=horizontal)",
        "a02": "-",
        "a04": "-",
        "a06": "distance(p0, p1) in ft",
        "a08": "distance(p0, p1) in yd",
        "a10": "threshold(distance(p0, p1), at_most, 2)",
        "a12": "-",
        "a14": "within(distance(p0, p1), 1, 3)",
        "a16": "height(p1, above=p0)",
        "a18": "relation(p2, behind, viewpoint=viewpoint(at=p0, facing=p1))",
        "a20": "distance(box0, box1)",
        "a22": "compare(extent(box0, width), about, extent(box1, width), factor=2)",
        "a24": "-",
        "a26": "-",
        "a28": "extreme([distance(p0, p1), distance(p0, p2), distance(p1, p2)], largest, as_value=true)",
        "a30": "order([distance(p0, camera), distance(p1, camera), distance(p2, camera)], descending=true)",
        "a32": "mean([distance(p0, camera), distance(p1, camera)])",
        "a34": "distance('swimming pool', p0)",
        "a36": "-",
        "a38": "-",
        "a40": "-",
        "a42": "-",
        "a44": "-",
        "a46": "-",
        "a48": "-",
        "a50": "-",
        "a52": "-",
        "a54": "-",
        "a56": "-",
        "a58": "-",
        "a60": "-",
        "a62": "-",
        "a64": "extent(room, floor_area) in ft2",
        "a66": "-",
        "a68": "threshold(height(ceiling, above=p0), more, 0.5)",
        "a70": "compare(distance(p0, camera), about, distance(p1, camera))",
        "a72": "-",
        "a74": "-",
        "a76": "extreme([distance(p0, p2), distance(camera, p2)], smallest)",
        "a78": "distance(camera@t0, camera@t1)",
    },
    "blind": {
        "b000": "object_count('all chair')",
        "b002": "locate('nearest chair')",
        "b004": "distance('table', 'sofa')",
        "b006": "extent('wardrobe', height)",
        "b008": "extent('door', width)",
        "b010": "exists('any cup on 'table'')",
        "b012": "relation('lamp', next_to, b='bed', viewpoint=viewpoint(at=camera@now))",
        "b014": "find('all  next_to 'sofa'')",
        "b016": "room_of('all chair', most=true)",
        "b018": "seen_time('plant', last)",
        "b020": "appearance_order(['chair', 'table', 'bed', 'sofa'])",
        "b022": "side('bed', [left_of, right_of, behind], viewpoint=viewpoint(at='sofa', facing='table'))",
        "b024": "extreme([distance('chair', 'table'), distance('lamp', 'table'), distance('bed', 'table')], smallest)",
        "b026": "extreme([extent('lamp', height), extent('wardrobe', height)], largest)",
        "b028": "find('largest  inside room')",
        "b030": "find('all  inside room(name=bedroom)')",
        "b032": "visible('any refrigerator')",
        "b034": "find('all  in_front_of 'table'')",
        "b036": "property('sofa', color)",
        "b038": "height('table top')",
        "b040": "direction('table', viewpoint=viewpoint(at=camera@now))",
        "b042": "open('door')",
        "b044": "compare(object_count('all chair'), more, object_count('all table'))",
        "b046": "find('nearest  to robot@now')",
        "b048": "-",
        "b050": "locate('table') frame map",
        "b052": "threshold(extent('sofa', length), more, 2)",
        "b054": "compare(height('lamp'), more, height('table'))",
        "b056": "find('farthest  to 'door'')",
        "b058": "relation('sofa', next_to, b=nearest_wall, viewpoint=viewpoint(at=camera@now))",
        "b060": "fits('door')",
        "b062": "reachable(p0)",
        "b064": "route(p1, start=p0)",
        "b066": "route_length(robot@now, p0)",
        "b068": "reachable(p0, radius_m=0.3)",
        "b070": "clearance(p0)",
        "b072": "clearance(robot@now, ahead=true)",
        "b074": "occupied(p0)",
        "b076": "extent(room(name=corridor), width)",
        "b078": "reachable('door', start='bed')",
        "b080": "free_place(length_m=0.3, width_m=0.2)",
        "b082": "fits('table', thing='any laptop')",
        "b084": "free_place(area_m2=0.5)",
        "b086": "threshold(slope(p0), at_most, 5)",
        "b088": "height(p0)",
        "b090": "fits(p0, thing='any cup')",
        "b092": "free_place",
        "b094": "fits('table', height_m=0.5)",
        "b096": "-",
        "b098": "fits('door', thing='sofa')",
        "b100": "distance(p0, p1)",
        "b102": "extreme([distance(p0, camera), distance(p1, camera)], smallest)",
        "b104": "relation(p0, left_of, b=p1)",
        "b106": "height(p0)",
        "b108": "distance(p0, p1, metric=horizontal)",
        "b110": "extent(box0, width)",
        "b112": "dimensions(box0)",
        "b114": "extreme([extent(box0, volume), extent(box1, volume)], largest)",
        "b116": "-",
        "b118": "relation(p0, same_surface, b=p1)",
        "b120": "distance(p0, camera@t0)",
        "b122": "seen_time(p0, first)",
        "b124": "distance(p0, nearest_wall)",
        "b126": "side(p2, [left_of, right_of], viewpoint=viewpoint(at=p0, facing=p1))",
        "b128": "changed(p0, span=t0..t1)",
        "b130": "path_length(span=-60s..now)",
        "b132": "locate(camera@10:32:00)",
        "b134": "visited(room(name=kitchen))",
        "b136": "turn(span=t0..t1) in deg",
        "b138": "speed(at=t0)",
        "b140": "moving(at=t0) not",
        "b142": "elapsed",
        "b144": "count(frames)",
        "b146": "height(camera@now)",
        "b148": "-",
        "b150": "-",
        "b152": "closest_approach(p0)",
        "b154": "heading(at=t0)",
        "b156": "-",
        "b158": "locate(camera@now)",
        "b160": "dimensions(room)",
        "b162": "height(ceiling)",
        "b164": "unseen",
        "b166": "extent(room, length)",
        "b168": "extent(room, volume)",
        "b170": "count(doors)",
        "b172": "-",
        "b174": "room_of(camera@now)",
        "b176": "-",
        "b178": "count(walls)",
        "b180": "-",
        "b182": "-",
        "b184": "-",
        "b186": "-",
        "b188": "distance(p0, p1)",
        "b190": "distance(p0, p1) in ft",
        "b192": "-",
        "b194": "-",
        "b196": "-",
        "b198": "distance(p0, p1) in m",
    },
}


def asked(question: str) -> Reading:
    """Read with four marks of each kind, as a request has them that carries several questions."""
    return read(question, points=4, boxes=4, times=4)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_question_that_somebody_asked_is_read_as_what_it_asks_or_refused_with_a_reason(name: str) -> None:
    if SHARED is None:
        pytest.skip("the questions that people asked are not here")
    wrong = {}
    for item in json.loads((SHARED / "questions" / f"{name}.json").read_text("utf-8")):
        reading = asked(item["question"])
        got = short(reading.query) if reading.query else "-"
        if got != EXPECTED[name].get(item["id"], "-"):
            wrong[item["question"]] = got
        assert reading.query or reading.reason, item["question"]
    assert not wrong


@pytest.mark.parametrize(("name", "least"), READ_AT_LEAST.items())
def test_the_table_of_expectations_does_not_shrink(name: str, least: int) -> None:
    assert sum(query != "-" for query in EXPECTED[name].values()) >= least


def test_questions_of_many_people_are_read_as_what_they_ask() -> None:
    """Engineers, visitors, children, operators, terse and polite ones, planners, slips of the pen; and traps."""
    wrong = {}
    for line in (Path(__file__).parent / "data" / "questions.txt").read_text("utf-8").splitlines()[1:]:
        question, _, expected = line.rpartition(" | ")
        reading = read(question, **marks_in(question))
        got = short(reading.query) if reading.query else "-"
        if got != expected:
            wrong[question] = got
    assert not wrong
