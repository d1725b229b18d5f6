"""What is assumed about a recording: recording.yaml, the command line, and values that cannot be."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_recording import SmallSource
from test_bag import Robot

from spatial_mllm_ros.cli import main
from spatial_mllm_ros.commands.common import _INPUT_OPTIONS
from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.sources.bag_writer import write_bag
from spatial_mllm_ros.sources.settings import FILE, settings_of
from spatial_mllm_ros.sources.source import SourceError


def test_a_recording_brings_its_own_settings(tmp_path):
    (tmp_path / FILE).write_text(
        "depth_unit_m: 1e-3\ninvalid_depth: [65535, 10000]\nimage_frame: body\nstatic: true\ncolor_topic: /c\n"
    )
    expected = InputSettings(
        depth_unit_m=0.001, invalid_depth=(65535.0, 10000.0), image_frame="body", static=True, color_topic="/c"
    )
    assert settings_of(tmp_path) == expected
    assert settings_of(tmp_path / "video.mp4") == expected, "a file has it beside it"
    assert settings_of(tmp_path / "deeper" / "video.mp4") == InputSettings()


def test_what_is_given_wins_also_where_it_is_the_default(tmp_path):
    (tmp_path / FILE).write_text("tf_max_gap_s: 5\nmax_depth_m: 4\n")
    default = InputSettings().tf_max_gap_s
    assert settings_of(tmp_path, {"tf_max_gap_s": default}) == InputSettings(max_depth_m=4)
    assert settings_of(tmp_path, InputSettings(max_depth_m=6)) == InputSettings(max_depth_m=6, tf_max_gap_s=5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("depth_units_m: 1", r"'depth_units_m' is no setting, the nearest is depth_unit_m\. All: color_topic"),
        ("depth_unit_m: -1", "depth_unit_m must be a positive number"),
        ("depth_unit_m: mm", "recording.yaml, depth_unit_m: could not convert"),
        ("depth_unit_m: true", "recording.yaml, depth_unit_m: a number expected, not True"),
        ("depth_unit_m: .nan", "depth_unit_m must be a positive number"),
        ("static: 1", "static: true or false expected, not 1"),
        ("image_frame: camera", "image_frame must be optical or body"),
        ("min_depth_m: 3\nmax_depth_m: 2", "max_depth_m 2.0 must be more than min_depth_m 3.0"),
        ("tf_max_gap_s: null", "tf_max_gap_s: a number expected, not None"),
        ("- a", "must hold lines such as"),
        (": : :", "cannot be read"),
    ],
)
def test_settings_that_cannot_be(tmp_path, text, words):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(SourceError, match=words):
        settings_of(tmp_path)


def test_an_empty_file_sets_nothing(tmp_path):
    (tmp_path / FILE).write_text("# nothing yet\n")
    assert settings_of(tmp_path) == InputSettings()


def test_settings_reach_a_recording_from_its_file_and_from_the_command_line(tmp_path):
    bag = tmp_path / "bag"
    write_bag(SmallSource(3), bag)
    (bag / FILE).write_text("depth_topic: none\n")
    assert all(frame.depth is None for frame in open_source(str(bag)).frames())
    depth = "/camera/aligned_depth_to_color/image_raw/compressedDepth"
    assert all(frame.depth is not None for frame in open_source(str(bag), {"depth_topic": depth}).frames())
    asked = CliRunner().invoke(main, ["replay", str(bag), "--json", "--color-topic", "/no/such"])
    assert asked.exit_code == 2
    assert "/no/such" in asked.output
    wrong = CliRunner().invoke(main, ["ask", str(bag), "How high is the ceiling?", "--image-frame", "sideways"])
    assert wrong.exit_code == 2
    assert "optical" in wrong.output


def test_replay_and_ask_say_what_is_read_and_why_frames_are_lost(tmp_path):
    """The images' stamps are the time of day, the transforms' the time since the machine's start."""
    bag = tmp_path / "bag"
    with Robot(bag) as robot:
        for ms in range(1_700_000_000_000, 1_700_000_003_000, 100):
            robot.tf(ms % 10**8, "map", "optical", at=ms)
            robot.info(ms)
            robot.depth(ms)
            robot.color(ms)
    for command in (("replay", str(bag)), ("ask", str(bag), "How high is the ceiling?")):
        done = CliRunner().invoke(main, command)
        told = " ".join(done.output.split())
        assert "color: /cam/image_raw (rgb8, 8x6" in told, told
        assert "30 tf_future: stamps are of different clocks" in told
        assert "Latest: optical in map at 1700000002.900 s: map -> optical: the latest transform is" in told
    done = CliRunner().invoke(main, ["replay", str(bag), "--json"])
    told = json.loads(done.stdout)
    assert told["chosen"][0].startswith("color: ")
    assert "another clock" in told["latest"]["tf_future"]


def test_every_setting_has_an_option_and_is_documented():
    docs = Path(__file__).resolve().parents[1] / "docs"
    page = (docs / "recordings.md").read_text(encoding="utf-8")
    for name, (flag, _) in _INPUT_OPTIONS.items():
        assert f"`{name}`" in page, f"docs/recordings.md lacks the setting {name}"
        assert f"`{flag}`" in page, f"docs/recordings.md lacks the option {flag}"
    assert {field.name for field in fields(InputSettings)} == set(_INPUT_OPTIONS)
