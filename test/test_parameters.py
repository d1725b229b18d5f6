"""The table of parameters, and everything that is made from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_ros.nodes import parameters
from spatial_mllm_ros.nodes.parameters import (
    PARAMETERS,
    Change,
    ParameterError,
    Settings,
    config_yaml,
    help_text,
    launch_arguments,
    markdown_table,
    values_from_text,
)
from spatial_mllm_ros.nodes.qos import QOS_NAMES, QosPolicy, fallback, mismatch_remedy, qos_policy

ROOT = Path(__file__).resolve().parents[1]
SCALARS = st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.none(), st.lists(st.integers()))


def test_the_configuration_file_is_up_to_date() -> None:
    """It is made from the table: python -m spatial_mllm_ros.nodes.parameters config/spatial_mllm.yaml."""
    assert (ROOT / "config" / "spatial_mllm.yaml").read_text(encoding="utf-8") == config_yaml()


def test_the_configuration_file_holds_the_defaults_with_their_types() -> None:
    """ROS refuses an integer where a double is declared, so the types in the file must be right."""
    values = yaml.safe_load(config_yaml())["/**"]["ros__parameters"]
    assert list(values) == list(PARAMETERS)
    assert {name: type(value) for name, value in values.items()} == {n: p.type for n, p in PARAMETERS.items()}
    assert Settings.from_values(values) == Settings()


def test_help_of_the_module_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["parameters", "--help"])
    with pytest.raises(SystemExit):
        parameters.main()
    assert not list(tmp_path.iterdir())


def test_the_readme_has_the_table() -> None:
    readme = ROOT / "README.md"
    if not readme.is_file() or "| Parameter | Type |" not in readme.read_text(encoding="utf-8"):
        pytest.skip("the README has no table of parameters yet")
    assert markdown_table() in readme.read_text(encoding="utf-8"), (
        "python -m spatial_mllm_ros.nodes.parameters makes it"
    )


def test_every_parameter_is_described_everywhere() -> None:
    """Help, launch arguments and the table show all of them, with their limits."""
    text, table, arguments = help_text("node"), markdown_table(), dict(launch_arguments())
    for name, p in PARAMETERS.items():
        assert p.description.endswith(".")
        assert p.section
        assert f"  {name} [" in text
        assert f"| `{name}` |" in table
        assert arguments[name].startswith(p.description)
        if p.type in (int, float):
            assert p.allowed, name
    assert all(len(line) <= 160 for line in text.splitlines())


@given(st.sampled_from(sorted(PARAMETERS)), SCALARS)
def test_any_value_is_taken_or_refused_with_its_name(name: str, value: object) -> None:
    """Whatever comes from a file or from the wire: settings of the right type, or an error that names the parameter."""
    fault = PARAMETERS[name].check(value)
    if fault:
        with pytest.raises(ParameterError, match=name):
            Settings.from_values({name: value})
        return
    try:
        settings = Settings.from_values({name: value})
    except ParameterError:
        # does not fit the others
        related = ("pool_size", "core_size", "model_encoder_runtime", "tf_namespace", "invalid_depth", "static")
        assert name in related or name.endswith(("_topic", "_pixels", "_device", "_frame", "_depth_m"))
    else:
        assert type(getattr(settings, name)) is PARAMETERS[name].type


@given(st.sampled_from(list(PARAMETERS.values())), st.text(max_size=12))
def test_any_text_is_parsed_or_refused(parameter, text: str) -> None:
    try:
        value = parameter.parse(text)
    except ParameterError:
        return
    assert parameter.check(value) == ""


def test_all_errors_are_told_at_once() -> None:
    with pytest.raises(ParameterError) as caught:
        Settings.from_values({"color_topik": "a", "timeout_s": 0, "max_frames": True, "level": "up", "core_size": 2.5})
    assert str(caught.value).splitlines() == [
        "there is no parameter 'color_topik'; did you mean 'color_topic'?",
        "timeout_s must be 0.001 to 3600 s, not 0",
        "max_frames must be an integer, not True",
        "level must be one of estimate, fixed_frame, not 'up'",
        "core_size must be an integer, not 2.5",
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"core_size": 100}, "at most half of pool_size"),
        ({"color_topic": ""}, "must name a topic"),
        ({"color_topic": "/a,/a", "depth_topic": ""}, "twice"),
        ({"depth_topic": "/a,/b"}, "names 2 topics, but color_topic names 1"),
        ({"color_topic": "/a b"}, "'/a b' is not a topic name"),
        ({"color_topic": "/a//b"}, "is not a topic name"),
        ({"fixed_frame": "my map"}, "without spaces"),
        ({"timeout_s": float("nan")}, "finite"),
    ],
)
def test_what_does_not_fit_together_is_refused(values: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Settings.from_values(values)


def test_an_integer_will_do_for_a_double() -> None:
    """People write `timeout_s: 30`."""
    assert Settings.from_values({"timeout_s": 30}).timeout_s == 30.0
    assert values_from_text({"timeout_s": "30", "auto_activate": "True"}) == {"timeout_s": 30.0, "auto_activate": True}


def test_an_empty_string_can_be_written() -> None:
    """ros2 launch refuses depth_topic:= without a value, so two quotes are one."""
    assert values_from_text({"depth_topic": "''", "model": '""', "color_topic": ""}) == dict.fromkeys(
        ("depth_topic", "model", "color_topic"), ""
    )


def test_text_that_is_no_value_is_refused_by_name() -> None:
    with pytest.raises(ParameterError, match=r"max_frames must be an integer, not 'many'\nthere is no parameter 'x'"):
        values_from_text({"max_frames": "many", "x": "1"})


def test_cameras_from_topics() -> None:
    """CameraInfo is beside its image, as drivers publish it, unless it is named."""
    (camera,) = Settings().cameras
    assert (camera.info, camera.depth_info) == (
        "camera/color/camera_info",
        "camera/aligned_depth_to_color/camera_info",
    )
    front, rear, side = Settings(
        color_topic="/front/image, /rear/image,image", depth_topic="/front/depth/image,,", camera_info_topic="/info,"
    ).cameras
    assert (front.info, front.depth, front.depth_info) == ("/info", "/front/depth/image", "/front/depth/camera_info")
    assert (rear.color, rear.info, rear.depth, rear.depth_info) == ("/rear/image", "/rear/camera_info", None, None)
    assert side.info == "camera_info"


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().timeout_s = 1.0  # type: ignore[misc]


def test_what_changes_when_is_plausible() -> None:
    """What sizes threads and memory cannot change under way; limits of questions can."""
    assert PARAMETERS["query_queue"].change is Change.START
    assert PARAMETERS["max_frames"].change is Change.UNCONFIGURED
    assert PARAMETERS["min_confidence"].change is Change.ANY_TIME


def test_qos_names() -> None:
    assert [qos_policy(name, 5).reliable for name in QOS_NAMES] == [True, False, True, True]
    assert qos_policy("latched", 5).transient_local
    assert qos_policy("reliable", 7).depth == 7
    with pytest.raises(ValueError, match="one of auto, sensor_data"):
        qos_policy("fast", 5)


def test_only_auto_falls_back() -> None:
    """auto ends with what every publisher is compatible with; a name is what its user wants."""
    policy = fallback("auto", qos_policy("auto", 5))
    assert policy == QosPolicy(reliable=False, transient_local=False, depth=5)
    assert fallback("auto", policy) is None
    assert fallback("reliable", qos_policy("reliable", 5)) is None


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("RELIABILITY", "sensor_data"), ("durability", "reliable"), ("DEADLINE", "deadline")],
)
def test_a_mismatch_names_topic_parameter_and_remedy(policy: str, expected: str) -> None:
    text = mismatch_remedy("/camera/image", policy, "color_qos")
    for part in ("/camera/image", "color_qos", expected):
        assert part in text
