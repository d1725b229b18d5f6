"""A user's own words add to what is read, are told, and never redefine what is read already."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_ros.answering.catalogue import OWN_WORDS, kinds, page
from spatial_mllm_ros.answering.engine import SpatialQueryEngine
from spatial_mllm_ros.cli import main
from spatial_mllm_ros.commands.call import in_known_words
from spatial_mllm_ros.language.conversation import ConversationReader
from spatial_mllm_ros.language.own_words import OwnWords, OwnWordsError, load_own_words
from spatial_mllm_ros.language.reader import read
from spatial_mllm_ros.language.translation import Translation
from spatial_mllm_ros.memory.spatial_memory import SpatialMemory
from spatial_mllm_ros.nodes.model import ConfigurationError
from spatial_mllm_ros.nodes.parameters import Settings, without_effect
from spatial_mllm_ros.nodes.readers import make_reader
from spatial_mllm_ros.queries.answer import ImagePoint, Request
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.session.questions import MarkedPoint, Question

POINTS = (ImagePoint(stamp_ns=0, camera_frame="", u=1, v=1), ImagePoint(stamp_ns=0, camera_frame="", u=2, v=2))


def load(folder: Path, text: str) -> OwnWords:
    path = folder / "words.yaml"
    path.write_text(text, encoding="utf-8")
    return load_own_words(path)


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> OwnWords:
    """The example of the documentation."""
    assert OWN_WORDS in page()
    return load(tmp_path_factory.mktemp("words"), OWN_WORDS)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("What's the droid's speed in km/h?", "What is the robot's speed in km/h?"),
        ("What is the REMOTENESS between <p0> and the droid?", "What is the distance between <p0> and the robot?"),
        ("Is <p1> in reach?", "Is the distance between <p1> and the robot now less than 80 cm?"),
        ("range check <p2> vs <p0>", "How far is <p2> from <p0>?"),
        ("range check p2 vs p0", "How far is <p2> from <p0>?"),
        ("How far is the dock?", "What is the distance between the origin of map and the robot now?"),
    ],
)
def test_own_words_mean_what_the_file_says(documented: OwnWords, said: str, meant: str) -> None:
    expected, found = read(meant, points=3), documented.read(said, points=3)
    assert expected.query is not None
    assert found.query == expected.query
    assert found.remarks
    assert all("by your own words" in remark for remark in found.remarks)


def test_order_of_marks_is_that_of_the_question(documented: OwnWords) -> None:
    text, _ = documented.rewritten("range check <p1> vs <p0>", points=2)
    assert text == "how far is <p1> from <p0>?"


def test_a_sentence_that_is_almost_a_wording_is_not_it(documented: OwnWords) -> None:
    for text in ("Is <p0> not in reach?", "range check <p0> vs <box0>", "Is <p0> in reach of <p1>?", "is it in reach"):
        assert documented.rewritten(text, points=2, boxes=1) == (text, ())


def test_a_part_of_a_word_is_no_synonym(documented: OwnWords) -> None:
    assert documented.rewritten("Where are the droids and the android?") == (
        "Where are the droids and the android?",
        (),
    )


def test_a_refusal_says_what_was_put_for_what(documented: OwnWords) -> None:
    reading = documented.read("Why would the droid the of <p0>?", points=1)
    assert reading.query is None
    assert '"droid" was read as "robot"' in reading.reason
    assert not reading.remarks


def test_a_mark_that_the_request_lacks_is_told(documented: OwnWords) -> None:
    reading = documented.read("range check <p0> vs <p4>", points=2)
    assert reading.code is ErrorCode.INVALID_REQUEST
    assert "<p4>" in reading.reason


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
def test_what_was_read_before_is_read_the_same(documented: OwnWords, kind) -> None:
    marks = {"points": 3, "boxes": 1, "times": 2}
    assert documented.read(kind.example, **marks) == read(kind.example, **marks)


@given(st.text(max_size=60))
def test_any_text_is_read_without_an_exception(documented: OwnWords, text: str) -> None:
    documented.read(text, points=1)
    documented.read(f"the droid {text} remoteness", points=1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("wordings:\n  a b c <p0>: 'How far <p0> of?'", r"words.yaml:2: 'How far <p0> of\?' is not read"),
        ("wordings:\n  a b c: 'How far is <p0>?'", "words.yaml:2: <p0> must be in both"),
        ("wordings:\n  zap <p0> <p1>: 'How far is <p0>?'", "words.yaml:2: <p1> must be in both"),
        ("wordings:\n  'how far is <p0>': 'How high is <p0>?'", "words.yaml:2: 'how far is <p0>' is already read, as"),
        (
            "wordings:\n  zap <p0> <p1>: 'How far is <p0> from <p1>?'\n  'zap <p1>, <p0>?': 'How far is <p0> from <p1>?'\n"
            "  zap <p3> <p2>: 'Is <p2> higher than <p3>?'",
            "words.yaml:4: .*twice",
        ),
        ("synonyms:\n  left: right", "words.yaml:2: 'left' has only words that the grammar knows"),
        ("synonyms:\n  in front of: behind", "only words that the grammar knows"),
        ("synonyms:\n  droid: robot\n  Droid: camera", "words.yaml:3: 'Droid' is there twice"),
        ("synonyms:\n  droid: zorp", "words.yaml:2: .*does not know"),
        ("synonyms:\n  droid <p0>: robot", "belongs under wordings"),
        ("synonyms:\n  droid: [robot]", "words.yaml:2: 'droid' must stand for one text"),
        ("synonyms:\n  droid: ''", "words.yaml:2: the question is empty"),
        ("synonyms: 3", "words.yaml:1: rows of the form"),
        ("- droid", "words.yaml:1: rows of the form"),
        ("synonym:\n  droid: robot", "'synonym' is neither synonyms nor wordings"),
        ("families: 3", "neither synonyms nor wordings"),
        ("", "has neither synonyms nor wordings"),
        ("synonyms:\n  droid: 'robot", "is not YAML"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(OwnWordsError, match=told):
        load(tmp_path, text)


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "words.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OwnWordsError, match="not YAML in UTF-8"):
        load_own_words(tmp_path / "words.yaml")


def test_the_node_has_them_by_its_parameter(tmp_path: Path) -> None:
    (tmp_path / "words.yaml").write_text(OWN_WORDS, encoding="utf-8")
    reader = make_reader(Settings(own_words=str(tmp_path / "words.yaml")), None)
    reading, name = reader.read(Request("range check <p0> vs <p1>", points=POINTS))
    assert reading.query is not None
    assert name == "grammar"
    for missing in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigurationError, match="own_words cannot be used"):
            make_reader(Settings(own_words=str(missing)), None)


class Unused:
    """A translator that must not be needed."""

    name = "unused"

    def translate(self, question: str, **given: object) -> Translation:
        raise AssertionError(question)


def test_what_own_words_make_readable_waits_for_no_model(documented: OwnWords) -> None:
    with_words, without = (
        SpatialQueryEngine(SpatialMemory(), reader=ConversationReader(Unused(), words))
        for words in (documented, OwnWords())
    )
    request = Request("range check <p0> vs <p1>", points=POINTS)
    assert not with_words.needs_model(request)
    assert without.needs_model(request)
    assert "by your own words" in with_words.answer(request).read_as


def test_the_old_parameter_is_told_with_what_there_is_instead() -> None:
    (told,) = without_effect(["question_table"])
    assert told.startswith("there is no parameter 'question_table', so it has no effect; it is own_words now")


def test_a_reader_without_own_words_reads_as_before() -> None:
    reading, _ = ConversationReader().read(Request("How high is the ceiling?"))
    assert reading == read("How high is the ceiling?")


def test_explain_takes_them(tmp_path: Path) -> None:
    (tmp_path / "words.yaml").write_text(OWN_WORDS, encoding="utf-8")
    command = ["explain", "range check <p0> vs <p1>", "--json", "--own-words", str(tmp_path / "words.yaml")]
    shown = json.loads(CliRunner().invoke(main, command).stdout)
    assert shown["query"]["ask"]["of"]["type"] == "distance"
    assert "by your own words" in shown["remarks"][0]
    result = CliRunner().invoke(main, ["explain", "How far?", "--own-words", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert "--own-words cannot be used" in result.output


def test_ask_takes_them(tmp_path: Path) -> None:
    (tmp_path / "words.yaml").write_text("wordings:\n  ceiling check: How high is the ceiling?", encoding="utf-8")
    command = ["ask", "rendered:rooms=1,frames=20,size=80x60", "Ceiling check!", "--json", "--own-words"]
    result = CliRunner().invoke(main, [*command, str(tmp_path / "words.yaml")])
    assert result.exit_code == 0, result.output
    assert 'was read as "how high is the ceiling?", by your own words' in result.stdout.replace("\\", "")


def test_call_puts_them_in_before_it_asks(documented: OwnWords, capsys: pytest.CaptureFixture[str]) -> None:
    marks = (MarkedPoint("latest", 1, 1), MarkedPoint("latest", 2, 2))
    question = in_known_words(Question("Q1", "range check <p1> vs <p0>", points=marks), documented)
    assert question.text == "how far is <p1> from <p0>?"
    assert "Q1: " in capsys.readouterr().err
