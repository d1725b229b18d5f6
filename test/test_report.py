"""The report: one page with everything on it, well formed, safe against what is asked, marks on the right pixels."""

from __future__ import annotations

import base64
import math
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from spatial_mllm_ros.memory.spatial_memory import MemoryConfig
from spatial_mllm_ros.queries.codes import ErrorCode
from spatial_mllm_ros.session.coverage_record import CoverageCurve, CoverageRecord
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.session.questions import Asked, MarkedBox, MarkedPoint, Question, ask
from spatial_mllm_ros.session.stream import Session
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.visualisation.report.charts import coverage_chart, error_strip, nice_ticks
from spatial_mllm_ros.visualisation.report.floorplan import floor_plan_svg
from spatial_mllm_ros.visualisation.report.pictures import Pictures
from spatial_mllm_ros.visualisation.report.report import render_report, write_report
from spatial_mllm_ros.visualisation.report.templates import placeholders
from spatial_mllm_ros.visualisation.report.topdown import top_down
from spatial_mllm_ros.visualisation.report.views import frames_meant, views_of

HOSTILE = "<script>alert(1)</script> \"'><img src=x onerror=alert(2)> {{ 7 * 7 }} how high is <p0>?"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Counts tags, remembers text and images, and checks that what is opened is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.open: list[str] = []
        self.text = ""
        self.uses: list[str] = []
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.see(dict(attrs), tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.see(dict(attrs), tag)

    def see(self, attributes: dict[str, str | None], tag: str) -> None:
        assert not any(name.startswith("on") for name in attributes), attributes
        if tag == "use":
            self.uses.append(attributes["href"] or "")
        elif tag in ("image", "img"):
            self.sources.append(attributes["href"] or "")
        if "id" in attributes:
            self.ids.append(attributes["id"] or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def session() -> Session:
    made = Session(open_source("rendered:frames=40,size=160x120,rooms=1,noise=off"))
    made.stream()
    return made


@pytest.fixture(scope="module")
def asked(session: Session) -> list[Asked]:
    number = {"answer_type": "NUMBER", "value": 2.0, "unit": "m", "accept": [1.0, 3.0]}
    questions = [
        Question("a", "What is the depth of <p0>?", points=(MarkedPoint("frame-000003", 80, 60),), expect=number),
        Question("b", "Where is <p0> in the image at <t0>?", points=(MarkedPoint("frame-000003", 80, 60),),
                 times=("frame-000005",), expect={"answer_type": "PIXEL", "pixel": [70, 60], "accept_px": 30}),
        Question("c", "How tall is the object in <box0>?", boxes=(MarkedBox("frame-000020", 40, 30, 90, 80),)),
        Question("d", "In which direction is <p0> from the camera at <t0>?", ("front", "back"),
                 (MarkedPoint("frame-000003", 80, 60),), times=("frame-000003",)),
        Question("e", HOSTILE, points=(MarkedPoint("frame-000003", 8, 6),)),
        Question("f", "What is the depth of <p0>?", points=(MarkedPoint("<script>bad</script>", 8, 6),)),
        Question("g", "How long is the path?"),
    ]  # fmt: skip
    return [ask(session, q) for q in questions]


def test_the_page_is_whole(session: Session, asked: list[Asked]) -> None:
    html = render_report(session, asked)
    page = Page(html)
    assert len(html) < 5_000_000
    assert len(page.ids) == len(set(page.ids))
    assert {use.removeprefix("#") for use in page.uses} <= set(page.ids), "an image that is not in the page"
    assert all(source.startswith("data:image/") for source in page.sources), "nothing comes from elsewhere"
    assert not re.search(r"""(?:src|href)=["']?https?:""", html)
    for a in asked:
        for part in re.split(r"<p0>|<t0>|<box0>", a.question.text):
            assert part.strip() in page.text
        if a.answer.error_code:
            assert a.answer.error_code.name in page.text
    for stamp in (stored.frame.stamp_ns for _, stored, _ in session.stored_keyframes()):
        assert session.name_of(stamp) in page.text


def test_every_image_is_there_once_and_decodes(session: Session, asked: list[Asked]) -> None:
    html = render_report(session, asked)
    wanted = [stored.frame_id for _, stored, _ in session.stored_keyframes()]
    wanted += [i for a in asked for i in frames_meant(session, a)]
    jpegs = re.findall(r'href="data:image/jpeg;base64,([^"]+)"', html)
    assert len(jpegs) == len(set(wanted))
    for data in jpegs:
        image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        assert image.shape == (120, 160, 3)


def test_hostile_text_stays_text(session: Session, asked: list[Asked]) -> None:
    html = render_report(session, asked)
    page = Page(html)
    assert page.tags["script"] == 0
    assert page.tags["img"] == 0
    assert "<script>alert(1)</script>" in page.text, "shown as it was asked"
    assert "{{ 7 * 7 }}" in page.text
    assert "49" not in placeholders("{{ 7 * 7 }}")
    assert placeholders("<p0> & <b>") == "<code>p0</code> &amp; &lt;b&gt;"


def test_marks_are_on_their_pixels(session: Session, asked: list[Asked]) -> None:
    pictures = Pictures(session.stored, [i for a in asked for i in frames_meant(session, a)])
    (view,) = views_of(session, asked[0], pictures)
    (cross,) = view.crosses
    assert (cross.x, cross.y, cross.label) == (80.5, 60.5, "p0"), "the centre of pixel (80, 60)"
    assert view.caption == "frame-000003"
    where = {v.caption: v for v in views_of(session, asked[1], pictures)}
    assert asked[1].answer.error_code == ErrorCode.NONE, asked[1].answer
    (answer,) = where["frame-000005"].crosses
    assert (answer.x, answer.y) == (asked[1].answer.pixel.u + 0.5, asked[1].answer.pixel.v + 0.5)
    assert answer.answer
    assert where["frame-000005"].rings[0].radius == 30
    (boxed,) = views_of(session, asked[2], pictures)
    assert (boxed.boxes[0].x, boxed.boxes[0].width) == (40, 51), "corners included"


def test_close_ups_hide_no_mark(session: Session) -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        points = tuple(MarkedPoint("frame-000003", *rng.uniform((0, 0), (159, 119)).round(1)) for _ in range(2))
        a = ask(session, Question("x", "How far apart are <p0> and <p1>?", points=points))
        (view,) = views_of(session, a, Pictures(session.stored, frames_meant(session, a)))
        side = view.inset_side
        corners = [c.inset for c in view.crosses if c.inset is not None]
        assert len(corners) == len(set(corners))
        for x, y in corners:
            assert not any(x < c.x < x + side and y < c.y < y + side for c in view.crosses)


def test_a_point_ahead_is_up_on_the_compass(session: Session, asked: list[Asked]) -> None:
    pictures = Pictures(session.stored, frames_meant(session, asked[3]))
    (view,) = views_of(session, asked[3], pictures)
    assert view.compass is not None
    camera = session.memory.frames()[3].frame.camera
    assert camera is not None
    bearing = math.degrees(math.atan2(80 - camera.cx, camera.fx))
    assert view.compass.angle == pytest.approx(bearing, abs=3)


def test_an_image_that_went_is_said() -> None:
    small = Session(open_source("rendered:frames=20,size=64x48,rooms=1"), MemoryConfig(max_frames=3))
    small.stream()
    a = ask(small, Question("x", "What is the depth of <p0>?", points=(MarkedPoint("frame-000001", 8, 6),)))
    page = Page(render_report(small, [a]))
    assert a.answer.error_code.name in page.text


def test_a_recording_without_geometry(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((24, 32, 3), np.uint8))
    images = Session(open_source(str(tmp_path)))
    images.stream()
    page = Page(render_report(images, []))
    assert "no_pose" in page.text
    assert "no geometry" in page.text


def test_writing_replaces_the_page_whole(session: Session, tmp_path: Path) -> None:
    target = write_report(session, [], tmp_path / "new" / "folder")
    assert target.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert write_report(session, [], target.parent) == target
    assert [p.name for p in target.parent.iterdir()] == ["report.html"]


def test_the_map_is_the_right_way_round(session: Session) -> None:
    """x to the right, y up: the camera's path on the map is the path in the world."""
    made = top_down(session)
    assert made is not None
    positions = session.positions()
    step = positions[-1, :2] - positions[0, :2]
    on_map = np.subtract(made.end, made.start)
    assert np.sign(on_map[0]) == np.sign(step[0])
    assert np.sign(on_map[1]) == -np.sign(step[1]), "SVG counts downwards"
    assert np.linalg.norm(on_map) / np.linalg.norm(step) == pytest.approx(made.scale_length / made.scale_m)
    assert len(made.frusta) == len(session.stored_keyframes())
    texts = np.array([(f.text_x, f.text_y) for f in made.frusta])
    gaps = np.linalg.norm(texts[:, None] - texts[None], axis=-1) + 100 * np.eye(len(texts))
    assert gaps.min() > 15, "numbers do not cover one another"


def test_floor_plan(session: Session) -> None:
    source = session.source
    assert isinstance(source, RenderedSource)
    svg = floor_plan_svg(source)
    Page(svg)
    assert source.house.rooms[0].kind in svg


def test_coverage_of_a_long_stream_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer frames kept than came, the curve stays close to the one from all frames."""
    from spatial_mllm_ros.session import coverage_record

    def curve(most: int) -> CoverageCurve:
        monkeypatch.setattr(coverage_record, "MOST_FRAMES", most)
        made = Session(open_source("rendered:frames=60,size=64x48,rooms=1,noise=off"), keyframes=4)
        made.stream()
        assert isinstance(made.coverage, CoverageRecord)
        assert len(made.coverage._points) <= most
        found = made.coverage.curve()
        assert found is not None
        return found

    full, thin = curve(600), curve(20)
    assert full.seconds == thin.seconds
    assert full.streaming[-1] >= full.uniform[-1] - 0.02
    assert thin.streaming[-1] == pytest.approx(full.streaming[-1], abs=0.15)


def test_charts() -> None:
    curve = CoverageCurve((1.0, 2.0, 30.0), (1.0, 0.97, 0.952), (1.0, 0.9, 0.951), (10, 20, 300), 0.1)
    chart = coverage_chart(curve)
    a, b = chart.lines
    assert abs(a.text_y - b.text_y) >= 29, "the two values can be read"
    assert nice_ticks(0, 30, 6) == [0, 5, 10, 15, 20, 25, 30]
    assert nice_ticks(0.0, 0.0, 5)[0] == 0


def test_error_strip_shows_answer_and_truth(session: Session, asked: list[Asked]) -> None:
    strip = error_strip(asked[0])
    assert strip is not None
    assert strip.two[0] <= strip.one[0] <= strip.value <= strip.one[1] <= strip.two[1]
    assert strip.accept[0] < strip.truth < strip.accept[1]
    assert all(0 <= x <= strip.width for x in (*strip.two, *strip.accept, strip.truth))
    assert error_strip(asked[1]) is None
    assert error_strip(asked[6]) is None
