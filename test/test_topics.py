"""Which topics are a camera's: those that drivers and simulators publish, and what lies beside them in a bag."""

from __future__ import annotations

import pytest

from spatial_mllm_ros.sources.topics import CameraTopics, Topic, depth_fault, find_cameras, is_rectified, is_static_tf

IMAGE, COMPRESSED, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"


def topics(*rows: tuple[str, str, str]) -> list[Topic]:
    """Topics by name, frame and encoding; the type follows from the name."""
    found = []
    for name, frame, encoding in rows:
        kind = (
            INFO
            if "camera_info" in name
            else COMPRESSED
            if name.endswith(("/compressed", "/compressedDepth"))
            else IMAGE
        )
        found.append(Topic(name, kind, frame, encoding))
    return found


def camera(*rows: tuple[str, str, str]) -> tuple[str | None, ...]:
    """Color, its CameraInfo, depth and its CameraInfo of the camera that is taken."""
    first = find_cameras(topics(*rows))[0]
    return (first.color, first.info, first.depth, first.depth_info)


REALSENSE = (
    ("infra1/image_rect_raw", "infra1", "mono8"),
    ("infra2/image_rect_raw", "infra2", "mono8"),
    ("depth/image_rect_raw", "depth", "16UC1"),
    ("depth/camera_info", "depth", ""),
    ("confidence/image_rect_raw", "depth", "mono8"),
    ("color/image_raw", "color", "rgb8"),
    ("color/camera_info", "color", ""),
)
ALIGNED = (
    ("aligned_depth_to_infra1/image_raw", "infra1", "16UC1"),
    ("aligned_depth_to_infra1/camera_info", "infra1", ""),
    ("aligned_depth_to_color/image_raw", "color", "16UC1"),
    ("aligned_depth_to_color/camera_info", "color", ""),
)
L = "zed_left_camera_optical_frame"
ZED = (
    ("confidence/confidence_map", L, "32FC1"),
    ("depth/camera_info", L, ""),
    ("depth/depth_registered", L, "32FC1"),
    ("left/image_rect_color", L, "bgra8"),
    ("left_gray/image_rect_gray", L, "mono8"),
    ("left_raw/image_raw_color", L, "bgra8"),
    ("rgb/camera_info", L, ""),
    ("rgb/image_rect_color", L, "bgra8"),
    ("right/image_rect_color", "zed_right_camera_optical_frame", "bgra8"),
    ("stereo/image_rect_color", L, "bgra8"),
)
ZED_5 = (
    ("confidence/confidence_map", L, "32FC1"),
    ("depth/depth_registered", L, "32FC1"),
    ("depth/camera_info", L, ""),
    ("left/color/rect/image", L, "bgra8"),
    ("left/color/rect/camera_info", L, ""),
    ("rgb/color/rect/image", L, "bgra8"),
    ("rgb/color/rect/camera_info", L, ""),
    ("rgb/color/raw/image", L, "bgra8"),
    ("rgb/gray/rect/image", L, "mono8"),
    ("right/color/rect/image", "right", "bgra8"),
)
DRIVERS = {
    "realsense": (
        "/camera/camera/",
        REALSENSE + ALIGNED,
        "color/image_raw color/camera_info aligned_depth_to_color/image_raw aligned_depth_to_color/camera_info",
    ),
    "realsense, before 4.54": (
        "/camera/",
        REALSENSE + ALIGNED,
        "color/image_raw color/camera_info aligned_depth_to_color/image_raw aligned_depth_to_color/camera_info",
    ),
    "realsense without alignment": (
        "/camera/",
        REALSENSE,
        "color/image_raw color/camera_info depth/image_rect_raw depth/camera_info",
    ),
    "zed, 3 and 4": (
        "/zed/zed_node/",
        ZED,
        "rgb/image_rect_color rgb/camera_info depth/depth_registered depth/camera_info",
    ),
    "zed, 5": (
        "/zed/zed_node/",
        ZED_5,
        "rgb/color/rect/image rgb/color/rect/camera_info depth/depth_registered depth/camera_info",
    ),
    "oak": (
        "/oak/",
        (
            ("left/image_rect", "oak_left", "mono8"),
            ("right/image_rect", "oak_right", "mono8"),
            ("nn/passthrough/image_raw", "oak_rgb", "bgr8"),
            ("rgb/preview/image_raw", "oak_rgb", "bgr8"),
            ("rgb/camera_info", "oak_rgb", ""),
            ("rgb/image_raw", "oak_rgb", "bgr8"),
            ("stereo/camera_info", "oak_rgb", ""),
            ("stereo/image_raw", "oak_rgb", "16UC1"),
        ),
        "rgb/image_raw rgb/camera_info stereo/image_raw stereo/camera_info",
    ),
    "orbbec": (
        "/camera/",
        (
            ("color/camera_info", "color", ""),
            ("color/image_raw", "color", "rgb8"),
            ("depth/camera_info", "depth", ""),
            ("depth/image_raw", "depth", "16UC1"),
            ("ir/camera_info", "ir", ""),
            ("ir/image_raw", "ir", "16UC1"),
            ("left_ir/image_raw", "left_ir", "mono8"),
        ),
        "color/image_raw color/camera_info depth/image_raw depth/camera_info",
    ),
    "astra": (
        "/camera/",
        (
            ("color/camera_info", "color", ""),
            ("color/image_raw", "color", "rgb8"),
            ("depth/camera_info", "color", ""),
            ("depth/image_raw", "color", "16UC1"),
            ("ir/image_raw", "color", "mono16"),
        ),
        "color/image_raw color/camera_info depth/image_raw depth/camera_info",
    ),
    "azure kinect": (
        "/",
        (
            ("body_index_map/image_raw", "depth", "mono8"),
            ("depth/camera_info", "depth", ""),
            ("depth/image_raw", "depth", "16UC1"),
            ("depth_to_rgb/camera_info", "rgb", ""),
            ("depth_to_rgb/image_raw", "rgb", "16UC1"),
            ("ir/image_raw", "depth", "mono16"),
            ("rgb/camera_info", "rgb", ""),
            ("rgb/image_raw", "rgb", "bgra8"),
            ("rgb_to_depth/image_raw", "depth", "bgra8"),
        ),
        "rgb/image_raw rgb/camera_info depth_to_rgb/image_raw depth_to_rgb/camera_info",
    ),
    "kinect, openni": (
        "/camera/",
        (
            ("depth/camera_info", "depth", ""),
            ("depth/disparity_image", "depth", "32FC1"),
            ("depth/image", "depth", "32FC1"),
            ("depth/image_raw", "depth", "16UC1"),
            ("depth_registered/camera_info", "rgb", ""),
            ("depth_registered/hw_registered/image_rect_raw", "rgb", "16UC1"),
            ("ir/image", "depth", "mono16"),
            ("rgb/camera_info", "rgb", ""),
            ("rgb/image_mono", "rgb", "mono8"),
            ("rgb/image_rect_color", "rgb", "rgb8"),
        ),
        "rgb/image_rect_color rgb/camera_info depth_registered/hw_registered/image_rect_raw depth_registered/camera_info",
    ),
    "kinect 2": (
        "/kinect2/",
        (
            ("hd/camera_info", "rgb", ""),
            ("hd/image_color_rect", "rgb", "bgr8"),
            ("hd/image_depth_rect", "rgb", "16UC1"),
            ("hd/image_mono", "rgb", "mono8"),
            ("qhd/camera_info", "rgb", ""),
            ("qhd/image_color_rect", "rgb", "bgr8"),
            ("qhd/image_depth_rect", "rgb", "16UC1"),
            ("sd/image_depth", "ir", "16UC1"),
            ("sd/image_ir", "ir", "16UC1"),
        ),
        "hd/image_color_rect hd/camera_info hd/image_depth_rect hd/camera_info",
    ),
    "structure core": (
        "/structure/",
        (
            ("depth/camera_info", "depth", ""),
            ("depth/image", "depth", "32FC1"),
            ("depth_aligned/camera_info", "visible", ""),
            ("depth_aligned/image", "visible", "32FC1"),
            ("depth_ir_aligned/image", "ir", "32FC1"),
            ("left/image_raw", "left", "mono16"),
            ("visible/camera_info", "visible", ""),
            ("visible/image_raw", "visible", "rgb8"),
        ),
        "visible/image_raw visible/camera_info depth_aligned/image depth_aligned/camera_info",
    ),
    "isaac sim": (
        "/",
        (
            ("camera_info", "sim_camera", ""),
            ("depth", "sim_camera", "32FC1"),
            ("instance_segmentation", "sim_camera", "32SC1"),
            ("rgb", "sim_camera", "rgb8"),
        ),
        "rgb camera_info depth camera_info",
    ),
    "gazebo": (
        "/camera/",
        (
            ("camera_info", "camera_link", ""),
            ("depth_image", "camera_link", "32FC1"),
            ("image", "camera_link", "rgb8"),
        ),
        "image camera_info depth_image camera_info",
    ),
    "gazebo classic": (
        "/camera/",
        (
            ("camera_info", "c", ""),
            ("depth/camera_info", "c", ""),
            ("depth/image_raw", "c", "32FC1"),
            ("image_raw", "c", "rgb8"),
        ),
        "image_raw camera_info depth/image_raw depth/camera_info",
    ),
    "stereo_image_proc with depth": (
        "/stereo/",
        (
            ("depth", "left", "32FC1"),
            ("left/camera_info", "left", ""),
            ("left/image_rect", "left", "mono8"),
            ("left/image_rect_color", "left", "bgr8"),
            ("right/camera_info", "right", ""),
            ("right/image_rect_color", "right", "bgr8"),
        ),
        "left/image_rect_color left/camera_info depth left/camera_info",
    ),
}  # fmt: skip


@pytest.mark.parametrize("driver", DRIVERS)
def test_topics_of_a_driver(driver):
    prefix, rows, expected = DRIVERS[driver]
    named = [(prefix + name, frame, encoding) for name, frame, encoding in rows]
    assert camera(*named) == tuple(prefix + name for name in expected.split())
    assert camera(*reversed(named)) == tuple(prefix + name for name in expected.split()), "whatever the order"


@pytest.mark.parametrize("driver", DRIVERS)
def test_topics_of_a_driver_when_they_were_recorded_compressed(driver):
    """Depth is taken as compressedDepth, never as the 8-bit JPEG that the compressed transport makes of it."""
    prefix, rows, expected = DRIVERS[driver]
    named = []
    for name, frame, encoding in rows:
        if "camera_info" in name:
            named.append((prefix + name, frame, encoding))
        elif "F" in encoding or encoding in ("16UC1", "mono16"):
            named.append((f"{prefix}{name}/compressed", frame, f"{encoding}; jpeg compressed "))
            named.append((f"{prefix}{name}/compressedDepth", frame, f"{encoding}; compressedDepth png"))
        else:
            named.append((f"{prefix}{name}/compressed", frame, f"{encoding}; jpeg compressed bgr8"))
    color, info, depth, depth_info = (prefix + name for name in expected.split())
    assert camera(*named) == (f"{color}/compressed", info, f"{depth}/compressedDepth", depth_info)


def test_of_raw_and_compressed_the_one_that_loses_nothing_is_taken():
    rows = [
        ("/cam/image_raw/compressed", "c", "jpeg"),
        ("/cam/image_raw", "c", "rgb8"),
        ("/cam/camera_info", "c", ""),
        ("/cam/depth/compressed", "c", "16UC1; png compressed "),
        ("/cam/depth/compressedDepth", "c", "16UC1; compressedDepth png"),
    ]
    assert camera(*rows) == ("/cam/image_raw", "/cam/camera_info", "/cam/depth/compressedDepth", "/cam/camera_info")
    assert camera(*rows[:4])[2] == "/cam/depth/compressed", "16 bits as PNG can be used"
    assert camera(*rows, ("/cam/depth", "c", "16UC1"))[2] == "/cam/depth"


@pytest.mark.parametrize("form", ["16UC1; compressedDepth", "16UC1; compressedDepth rvl", "png", "", "compressedDepth"])
def test_compressed_depth_is_known_by_its_name_whatever_its_format_says(form):
    rows = (("/cam/image_raw", "c", "rgb8"), ("/cam/depth/image_raw/compressedDepth", "c", form))
    assert camera(*rows)[2] == "/cam/depth/image_raw/compressedDepth"


@pytest.mark.parametrize(
    ("name", "encoding", "fault"),
    [
        ("/zed/zed_node/confidence/confidence_map", "32FC1", "its name says 'confiden'"),
        ("/camera/depth/confidence", "16UC1", "its name says 'confiden'"),
        ("/stereo/disparity", "32FC1", "its name says 'dispar'"),
        ("/camera/ir/image_raw", "16UC1", "its name says 'ir'"),
        ("/camera/infra1/image_raw", "16UC1", "its name says 'infra'"),
        ("/tof/amplitude", "16UC1", "its name says 'amplitude'"),
        ("/net/heat", "32FC1", "its name does not say depth"),
        ("/cam/depth/compressed", "16UC1; jpeg compressed ", "depth of 8 bits, as JPEG"),
        ("/cam/depth/image_raw", "16UC1", ""),
        ("/cam/depth/image_raw", "mono16", ""),
        ("/cam/image_raw", "mono16", None),
        ("/cam/image_raw/compressed", "jpeg", None),
        ("/camera/aligned_depth_to_infra1/image_raw", "16UC1", ""),
    ],
)
def test_what_is_no_depth_says_why(name, encoding, fault):
    found = depth_fault(topics((name, "c", encoding))[0])
    assert found == fault if not fault else found.startswith(fault)


def test_what_is_neither_color_nor_depth_is_neither():
    rows = (
        ("/zed/confidence/confidence_map", "c", "32FC1"),
        ("/cam/depth/compressed", "c", "16UC1; jpeg compressed "),
        ("/cam/flow", "c", "32FC2"),
    )
    assert find_cameras(topics(*rows)) == []


def test_a_camera_with_depth_comes_before_one_without():
    rows = (("/a_color/image_raw", "a", "rgb8"), ("/cam/image", "c", "rgb8"), ("/cam/depth_image", "c", "32FC1"))
    assert camera(*rows)[0] == "/cam/image"


def test_each_of_two_cameras_has_its_own_depth():
    rows = []
    for name in ("front", "back"):
        rows += [
            (f"/{name}/color/image_raw", f"{name}_color", "rgb8"),
            (f"/{name}/color/camera_info", f"{name}_color", ""),
            (f"/{name}/depth/image_raw", f"{name}_depth", "16UC1"),
            (f"/{name}/depth/camera_info", f"{name}_depth", ""),
        ]
    for found in find_cameras(topics(*rows)):
        name = found.color.split("/")[1]
        assert found.depth == f"/{name}/depth/image_raw"
        assert found.depth_info == f"/{name}/depth/camera_info"


def test_raw_and_compressed_are_one_camera():
    found = find_cameras(
        topics(
            ("/cam/image_raw/compressed", "c", "jpeg"),
            ("/cam/image_raw", "c", "rgb8"),
            ("/cam/camera_info", "c", ""),
        )
    )
    assert found == [CameraTopics("/cam/image_raw", "/cam/camera_info")]


def test_rectified_images_are_known_by_their_name():
    for name in ("/cam/image_rect", "/cam/image_rect_color", "/zed/rgb/color/rect/image", "/zed/rgb/image_rect_color"):
        assert is_rectified(name)
    for name in ("/cam/image_raw", "/rectory/image_raw", "/zed/rgb/color/raw/image"):
        assert not is_rectified(name)


@pytest.mark.parametrize(
    ("topic", "static"),
    [("/tf_static", True), ("/bot/tf_static_remapped", True), ("/tf", False), ("/tf_static/tf", False)],
)
def test_static_transforms_are_known_by_the_name_of_their_topic(topic: str, static: bool) -> None:
    assert is_static_tf(topic) is static
