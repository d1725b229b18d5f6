"""A model's words as typed answers: a wrong number is worse than words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_ros.answering.reading import answer_confidence, asked_unit, is_yes_no, read_answer, spoken
from spatial_mllm_ros.queries.codes import AnswerType
from spatial_mllm_ros.queries.units import UNITS, convert, format_measure

COUNT = "How many chair(s) are in this room?"
METRES = "What is the distance between the sofa and the stove (in meters)?"
AREA = "What is the size of this room (in square meters)? If multiple rooms are shown, estimate the combined space."
CENTIMETRES = (
    "What is the length of the longest dimension (length, width, or height) of the table, measured in centimeters?"
)
FAR = "How far is the door?"
ANGLE = "By what angle in degrees do I have to turn?"
FREE = "What is left of the sofa?"


@pytest.mark.parametrize(
    ("words", "question", "value", "unit"),
    [
        # the unit of the answer
        ("2.3 meters", FAR, 2.3, "m"),
        ("2.3m.", FAR, 2.3, "m"),
        ("~2.3 m", FAR, 2.3, "m"),
        ("≈ 2 m", FREE, 2, "m"),
        ("2,5 m", FAR, 2.5, "m"),
        ("0,5 m", FAR, 0.5, "m"),
        ("1,250 cm", METRES, 12.5, "m"),
        ("1,250,000 mm", METRES, 1250, "m"),
        ("about 15 sq ft", AREA, 15 * 0.3048**2, "m2"),
        ("15 sq. ft.", AREA, 15 * 0.3048**2, "m2"),
        ("15 square feet", AREA, 15 * 0.3048**2, "m2"),
        ("15 m²", AREA, 15, "m2"),
        ("15 sqm", AREA, 15, "m2"),
        ("12 in", "How tall is it?", 0.3048, "m"),
        ("45°", ANGLE, 45, "deg"),
        ("-30 degrees", ANGLE, -30, "deg"),
        ("1 rad", ANGLE, math.degrees(1), "deg"),
        ("2 minutes", "How long did it take?", 120, "s"),
        ("40%", "What percentage of it is floor?", 0.4, ""),
        ("**2.3 meters**", METRES, 2.3, "m"),
        # that of the question
        ("1.5", METRES, 1.5, "m"),
        ("100", CENTIMETRES, 1, "m"),
        ("25.6", AREA, 25.6, "m2"),
        ("45", ANGLE, 45, "deg"),
        ("7", "How many seconds passed?", 7, "s"),
        ("15", "How big is it in square feet?", 15 * 0.3048**2, "m2"),
        # counts
        ("3", COUNT, 3, "count"),
        ("3.", COUNT, 3, "count"),
        ("3 chairs", COUNT, 3, "count"),
        ("two", COUNT, 2, "count"),
        ("Twenty-one chairs.", COUNT, 21, "count"),
        ("3 in total", COUNT, 3, "count"),
        ("There are 3 chairs in the room.", COUNT, 3, "count"),
        ("none", COUNT, 0, "count"),
        ("There are no chairs.", COUNT, 0, "count"),
        ("5", "What is the total number of lamps?", 5, "count"),
        # sentences that only repeat the question
        ("The distance between the sofa and the stove is 2.3 m.", METRES, 2.3, "m"),
        ("The sofa is 2.3 meters from the stove.", METRES, 2.3, "m"),
        ("The distance is 2.3", METRES, 2.3, "m"),
        ("It is about two meters away", FAR, 2, "m"),
        # tags and thoughts
        ("<answer>2.3</answer>", METRES, 2.3, "m"),
        ("<think>5 m or 6 m</think>\n2.3 m", METRES, 2.3, "m"),
    ],
)
def test_numbers(words: str, question: str, value: float, unit: str) -> None:
    reading = read_answer(words, question)
    assert reading.answer_type == AnswerType.NUMBER
    assert reading.value == pytest.approx(value)
    assert reading.unit == unit


@pytest.mark.parametrize(
    ("words", "question"),
    [
        # two numbers, ranges, bounds, alternatives
        *((words, METRES) for words in ("between 2 and 3 m", "2-3 m", "2 to 3 m", "2 or 3 m", "1 m 50 cm", "2 x 3 m")),
        *(
            (words, METRES)
            for words in ("more than 2 m", "at least 2", "up to 2 m", "2 m or so", "under 2 m", "2 m at most")
        ),
        *((words, METRES) for words in ("2 m ± 0.5 m", "5 m +", "not 2 m", "two and a half meters", "a few meters")),
        ("2 minutes 30 seconds", "How long did it take?"),
        ("3 chairs and 2 tables", COUNT),
        ("at least 3", COUNT),
        ("one hundred", COUNT),
        # no unit anywhere, or one of another kind
        ("1.5", FAR),
        ("1.5", "How far is it in meters or feet?"),
        ("45 degrees", METRES),
        ("3 chairs", METRES),
        ("2 m", COUNT),
        ("15 meters squared", AREA),
        ("3 m", AREA),
        ("0.4", "What share is it in percent?"),
        # numbers that are none, or open how to read
        *(
            (words, METRES)
            for words in ("-", "", "0,125 m", "1.250,5 m", ".5 m", "1e5 m", "1/2 m", "1:30", "m 2", "a-2 m")
        ),
        *(
            (words, METRES)
            for words in ("2 m/s", "2 m3", "2 m^3", "5'", "$5", "#3", "2nd", "9" * 20 + " m", "٣ m", "nan m")
        ),
        ("-1.5", METRES),
        ("-2", COUNT),
        ("2.5", COUNT),
        ("3 tables", COUNT),
        ("45° to the left", ANGLE),  # the sign is in the words
        # numbers about something else
        ("The chair is 2 m tall", FREE),
        ("The sofa is 2 m long and next to the stove", METRES),
        ("room 3", "Which room is it?"),
        ("There are 3 chair legs", COUNT),
        ("2 m", "Is it longer than 1 m?"),
        ("a lamp", FREE),
        ("It is 2 m " + "very " * 200 + "far, or not", FAR),
    ],
)
def test_doubtful_numbers_stay_words(words: str, question: str) -> None:
    reading = read_answer(words, question)
    assert reading.answer_type == AnswerType.TEXT
    assert math.isnan(reading.value)
    assert reading.words == words.strip()


@pytest.mark.parametrize(
    ("words", "value"),
    [("Yes", 1), ("yes.", 1), ("Yes, it is.", 1), ("No", 0), ("No, there is none.", 0), ("True", 1), ("false", 0)],
)
def test_yes_and_no(words: str, value: float) -> None:
    reading = read_answer(words, "Is there a chair?")
    assert (reading.answer_type, reading.value, reading.unit) == (AnswerType.BOOLEAN, value, "")


@pytest.mark.parametrize(
    "words", ["No chairs are visible", "yes and no", "Yes, but no", "maybe", "yesterday", "nothing", ""]
)
def test_half_a_yes_stays_words(words: str) -> None:
    assert read_answer(words, "Is there a chair?").answer_type == AnswerType.TEXT


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Is there a chair?", True),
        ("If I am standing by the stove, is the door to my left?", True),
        ("Can you see a dog?", True),
        ("Isn't it open?", True),
        ("Is it open or not?", True),
        ("I am in the kitchen. Have I been here before?", True),
        ("Is the sofa to my front-left, front-right, back-left, or back-right?", False),
        ("Is it open or closed?", False),
        ("How far is it?", False),
        ("In which room is it, and is it far?", False),
        ("Could you tell me how far the door is?", False),
        ("Tell me if it is open.", False),
        ("", False),
    ],
)
def test_questions_for_yes_or_no(question: str, expected: bool) -> None:
    assert is_yes_no(question) is expected
    if not expected:
        assert read_answer("Yes", question).answer_type == AnswerType.TEXT


@pytest.mark.parametrize(
    ("question", "unit"),
    [
        (METRES, "m"),
        (AREA, "m2"),
        (CENTIMETRES, "cm"),
        (ANGLE, "deg"),
        (COUNT, "count"),
        ("How many square feet is it?", "ft2"),
        ("How many foot stools are there?", "count"),
        ("How many chairs are within 2 meters of the sofa?", "count"),
        ("In meters, how far is it?", "m"),
        ("How far is it (m)?", "m"),
        ("How tall is it in feet or in inches?", ""),
        ("How tall is it (in meter)?", "m"),
        ("What is in the second room?", ""),
        ("What is in second place?", ""),
        (FREE, ""),
    ],
)
def test_units_asked_for(question: str, unit: str) -> None:
    assert asked_unit(question) == unit


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (" a lamp \n", "a lamp"),
        ("<answer> A lamp </answer>", "A lamp"),
        ("<answer>a</answer> no, <answer>b</answer>", "b"),
        ("<answer>cut off", "cut off"),
        ("<think>hm</think>a lamp", "a lamp"),
    ],
)
def test_what_is_said(words: str, said: str) -> None:
    assert spoken(words) == said
    assert read_answer(words, FREE).words == said


CONTRACT = {"length": "m", "area": "m2", "volume": "m3", "angle": "deg", "time": "s", "speed": "m/s"}
measurable = st.sampled_from([unit for unit in UNITS.values() if unit.words and unit.kind != "ratio"])


@given(
    st.floats(0.001, 9999), measurable, st.sampled_from(["{}", "about {}", "It is {}.", "approximately {} "]), st.data()
)
def test_numbers_come_back_through_any_unit(value: float, unit: object, around: str, data: st.DataObject) -> None:
    """Whatever unit a number is written in, the same measure comes out, in the contract's unit."""
    key, words = unit.key, unit.words  # type: ignore[attr-defined]
    word = data.draw(st.sampled_from(words))
    written = f"{value:.3f}"
    contract = CONTRACT[unit.kind]  # type: ignore[attr-defined]
    expected = convert(float(written), key, contract)
    reading = read_answer(around.format(f"{written} {word}"), "How much is it?")
    assert (reading.answer_type, reading.unit) == (AnswerType.NUMBER, contract)
    assert reading.value == pytest.approx(expected)
    bare = read_answer(around.format(written), f"How much is it (in {words[0]})?")
    assert (bare.answer_type, bare.unit) == (AnswerType.NUMBER, contract)
    assert bare.value == pytest.approx(expected)


@given(st.floats(0.01, 1000), st.sampled_from(["m", "cm", "ft", "m2", "ft2", "deg", "s", "min"]))
def test_our_own_way_of_writing_is_read(value: float, key: str) -> None:
    reading = read_answer(format_measure(value, math.nan, key), "How much is it?")
    assert reading.answer_type == AnswerType.NUMBER
    assert convert(reading.value, reading.unit, key) == pytest.approx(value, rel=0.006)


pieces = st.sampled_from(
    [
        *(
            "2",
            "3.5",
            "1,250",
            " m",
            " meters",
            "°",
            " to ",
            " or ",
            "-",
            "<answer>",
            "</think>",
            "yes",
            "no",
            " ",
            ",",
        ),
        *("chairs", "(in ", "how many ", "is it ", "²", "½", "two", "\n", "<p0>", "±", "?"),
    ]
)
anything = st.text(max_size=40) | st.lists(pieces, max_size=10).map("".join)


@given(anything, anything)
def test_any_words_are_read_without_an_error(words: str, question: str) -> None:
    reading = read_answer(words, question)
    assert (reading.answer_type == AnswerType.TEXT) == math.isnan(reading.value)
    if reading.answer_type == AnswerType.BOOLEAN:
        assert reading.value in (0, 1)
    if reading.unit in ("count", "m", "m2", "s"):
        assert reading.value >= 0


# ---- confidence


def test_confidence_of_words_is_that_of_the_whole_answer() -> None:
    assert answer_confidence([0.5, 0.8, 0.5]) == (pytest.approx(0.2), "sequence probability")
    assert answer_confidence([]) == (0.0, "sequence probability")


def test_confidence_of_a_choice_is_among_the_choices() -> None:
    """How little of the vocabulary's probability the letters have does not matter."""
    assert answer_confidence([0.01], [0.7, 0.2, 0.1]) == (0.7, "probability among choices")


@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.1, math.inf])
def test_what_is_no_probability_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="no probability"):
        answer_confidence([0.5, bad])


@given(st.lists(st.floats(0, 1), max_size=200), st.lists(st.floats(0, 1), max_size=30))
def test_confidence_is_a_probability(tokens: list[float], choices: list[float]) -> None:
    confidence, _ = answer_confidence(tokens, choices)
    assert 0 <= confidence <= 1
