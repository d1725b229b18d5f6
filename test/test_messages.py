"""ROS messages to images: every encoding, and every way in which a message may lie about itself."""

from __future__ import annotations

import array
import contextlib
import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from spatial_mllm_ros.scene.camera import InvalidCamera
from spatial_mllm_ros.scene.frame import depth_to_metres
from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.scene.pose import InvalidTransform
from spatial_mllm_ros.sources import messages
from spatial_mllm_ros.sources.compressed import BadImage, decode_png16, decode_rgb, image_size
from spatial_mllm_ros.sources.rvl import decode_rvl

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
SMOOTH = np.stack(np.meshgrid(np.arange(64) * 3, np.arange(48) * 4), -1).astype(np.uint8)
SMOOTH = np.concatenate([SMOOTH, 255 - SMOOTH[..., :1]], axis=-1)  # 48 x 64, channels that cannot be confused
DEPTH = np.random.default_rng(1).integers(0, 9000, (6, 8)).astype(np.uint16)


def image(encoding: str, pixels: np.ndarray, *, padding: int = 0, big: bool = False, **changes) -> SimpleNamespace:
    """sensor_msgs/Image with rows of ``pixels`` in their own type, padded."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).reshape(height, -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    fields = {
        "encoding": encoding,
        "width": width,
        "height": height,
        "step": rows.shape[1],
        "is_bigendian": int(big),
        "data": rows.tobytes(),
    }
    return SimpleNamespace(**{**fields, **changes})


def compressed(kind: str, data: bytes) -> SimpleNamespace:
    return SimpleNamespace(format=kind, data=np.frombuffer(data, np.uint8))


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def jpeg(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


ALPHA = np.full((6, 8, 1), 9, np.uint8)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("8UC3", RGB[..., ::-1]),
        ("rgba8", np.concatenate([RGB, ALPHA], axis=-1)),
        ("bgra8", np.concatenate([RGB[..., ::-1], ALPHA], axis=-1)),
        ("8UC4", np.concatenate([RGB[..., ::-1], ALPHA], axis=-1)),
        ("BGR8", RGB[..., ::-1]),
        ("8uc3", RGB[..., ::-1]),
    ],
)
def test_color_encodings(encoding, pixels, padding):
    out = messages.color_image(image(encoding, pixels, padding=padding))
    assert_array_equal(out, RGB)
    assert out.flags.c_contiguous


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("encoding", "flip"), [("rgb16", 1), ("bgr16", -1), ("16UC3", -1), ("rgba16", 1), ("bgra16", -1), ("16UC4", -1)]
)
def test_16_bit_colors_keep_their_high_byte(encoding, flip, big):
    pixels = RGB[..., ::flip].astype(np.uint16) * 256 + 5
    if "a" in encoding or encoding.endswith("4"):
        pixels = np.concatenate([pixels, ALPHA], axis=-1)
    assert_array_equal(messages.color_image(image(encoding, pixels, big=big)), RGB)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1", "8UC", "mono16"])
def test_grey(encoding):
    grey = RGB[..., 0].astype(np.uint16) * 256 if encoding == "mono16" else RGB[..., 0]
    assert_array_equal(messages.color_image(image(encoding, grey)), np.repeat(RGB[..., :1], 3, axis=-1))


@pytest.mark.parametrize("encoding", [f"bayer_{p}{bits}" for p in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)])
def test_bayer_patterns(encoding):
    """Red and blue are not swapped, whatever the pattern begins with."""
    pattern = ["rgb".index(c) for c in encoding.removeprefix("bayer_")[:4]]
    mosaic = np.zeros(SMOOTH.shape[:2], np.uint8)
    for i, channel in enumerate(pattern):
        mosaic[i // 2 :: 2, i % 2 :: 2] = SMOOTH[i // 2 :: 2, i % 2 :: 2, channel]
    if encoding.endswith("16"):
        mosaic = mosaic.astype(np.uint16) * 256
    out = messages.color_image(image(encoding, mosaic))
    assert np.abs(out[4:-4, 4:-4].astype(int) - SMOOTH[4:-4, 4:-4]).max() < 12


@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yuyv", "yuyv")]
)
def test_yuv422(encoding, order):
    yuv = cv2.cvtColor(SMOOTH, cv2.COLOR_RGB2YUV)
    packed = np.zeros((*SMOOTH.shape[:2], 2), np.uint8)
    luma, chroma = (1, 0) if order == "uyvy" else (0, 1)
    packed[..., luma] = yuv[..., 0]
    packed[:, ::2, chroma] = yuv[:, ::2, 1]
    packed[:, 1::2, chroma] = yuv[:, ::2, 2]
    out = messages.color_image(image(encoding, packed)).astype(int)
    # OpenCV's packed formats are of limited range (16 to 235), its YUV is not: compare which channel is which.
    for channel in range(3):
        assert np.corrcoef(out[..., channel].ravel(), SMOOTH[..., channel].ravel())[0, 1] > 0.95


def test_every_encoding_of_packed_pixels_agrees_with_opencv_or_the_values_above():
    covered = {"rgb8", "bgr8", "8UC3", "rgba8", "bgra8", "8UC4", "rgb16", "bgr16", "16UC3", "rgba16", "bgra16", "16UC4"}
    covered |= {"mono8", "8UC1", "mono16", "yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21", "nv24"}
    covered |= {f"bayer_{p}{bits}" for p in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)}
    assert covered == messages.COLOR_ENCODINGS


def planes(encoding: str, padding: int = 0) -> tuple[np.ndarray, int, int]:
    """SMOOTH as a plane of luma and one of chroma: bytes by rows of ``step``, width, height. BT.601, luma 16 to 235."""
    height, width = SMOOTH.shape[:2]
    bt601 = np.array([[65.738, 129.057, 25.064], [-37.945, -74.494, 112.439], [112.439, -94.154, -18.285]]) / 256
    yuv = np.rint(SMOOTH @ bt601.T + (16, 128, 128)).astype(np.uint8)
    chroma = yuv[..., 1:] if encoding == "nv24" else yuv[::2, ::2, 1:]
    if encoding == "nv21":
        chroma = chroma[..., ::-1]
    luma = np.pad(yuv[..., 0], ((0, 0), (0, padding)))
    rows = chroma.reshape(chroma.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding * rows.shape[1] // width)))
    return np.concatenate([luma.ravel(), rows.ravel()]), width, height


@pytest.mark.parametrize("encoding", ["nv12", "nv21", "nv24", "NV12"])
@pytest.mark.parametrize("padding", [0, 16])
def test_planes_of_luma_and_chroma(encoding, padding):
    data, width, height = planes(encoding.lower(), padding)
    whole = {"encoding": encoding, "width": width, "height": height, "step": width + padding, "data": data.tobytes()}
    out = messages.color_image(SimpleNamespace(**whole))
    assert np.abs(out.astype(int) - SMOOTH).max() < 9
    both = SimpleNamespace(**{**whole, "height": data.size // (width + padding)})  # a height that counts both planes
    assert_array_equal(messages.color_image(both), out)
    if not padding:
        average = SimpleNamespace(**{**whole, "step": data.size // height})  # a step that counts both
        assert_array_equal(messages.color_image(average), out)
    for wrong in ({"data": data[:-2].tobytes()}, {"width": width - 1}, {"height": 0}):
        with pytest.raises(BadImage) as error:
            messages.color_image(SimpleNamespace(**{**whole, **wrong}))
        assert error.value.reason == "data_size"


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 8])
def test_depth_encodings(big, padding):
    metres = (DEPTH / 1000).astype(np.float32)
    metres[0, 0] = np.nan
    for encoding in ("16UC1", "mono16"):
        out = messages.depth_image(image(encoding, DEPTH, padding=padding, big=big))
        assert_array_equal(out, DEPTH)
        assert out.dtype == np.uint16
    for encoding, dtype in (("32FC1", np.float32), ("64FC1", np.float64), ("16SC1", np.int16)):
        values = DEPTH - 5 if encoding == "16SC1" else metres
        out = messages.depth_image(image(encoding, values.astype(dtype), padding=padding, big=big))
        assert_array_equal(out, values.astype(dtype))
        assert out.dtype == dtype


@pytest.mark.parametrize("encoding", ["16UC1", "mono16", "16SC1", "16UC", "16uc1", "32FC1", "64FC1"])
def test_every_encoding_of_depth_becomes_metres(encoding):
    kind = messages.DEPTH_ENCODINGS[messages.encoding_name(encoding)]
    raw = (DEPTH / 1000 if kind.kind == "f" else DEPTH).astype(kind)
    depth = messages.depth_of(image(encoding, raw), InputSettings())
    assert depth.dtype == (np.float32 if kind.kind == "f" else np.uint16)
    assert_allclose(np.nan_to_num(depth_to_metres(depth)), DEPTH / 1000, atol=1e-6)


def test_data_may_be_what_rclpy_or_rosbags_give():
    for data in (array.array("B", RGB.tobytes()), RGB.reshape(-1), memoryview(RGB.tobytes())):
        assert_array_equal(messages.color_image(image("rgb8", RGB, data=data)), RGB)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (image("rgb9", RGB), "unknown_encoding"),
        (image("16UC1", DEPTH), "unknown_encoding"),
        (image("rgb8", RGB, data=RGB.tobytes()[:-1]), "data_size"),
        (image("rgb8", RGB, data=RGB.tobytes() + b"x"), "data_size"),
        (image("rgb8", RGB, data=b""), "data_size"),
        (image("rgb8", RGB, width=0), "data_size"),
        (image("rgb8", RGB, step=8), "row_step"),
        (image("rgba8", RGB), "row_step"),
        (image("yuyv", RGB[:, :7, :2]), "data_size"),
    ],
)
def test_color_that_contradicts_itself(message, reason):
    with pytest.raises(BadImage) as error:
        messages.color_image(message)
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (image("rgb8", RGB), "unknown_encoding"),
        (image("16UC1", DEPTH.astype(np.float32)), "row_step"),
        (image("32FC1", DEPTH), "row_step"),
        (image("32FC1", DEPTH, step=32), "data_size"),
    ],
)
def test_mislabelled_depth(message, reason):
    """16UC1 over float data would give depths that look almost like depths."""
    with pytest.raises(BadImage) as error:
        messages.depth_image(message)
    assert error.value.reason == reason


@pytest.mark.parametrize("kind", ["jpeg", "png", "rgb8; jpeg compressed bgr8", "bgr8; png compressed bgr8", ""])
def test_compressed_color_stays_compressed_until_it_is_looked_at(kind):
    bgr = cv2.cvtColor(SMOOTH, cv2.COLOR_RGB2BGR)
    data = png(bgr) if "png" in kind else jpeg(bgr)
    encoded, size = messages.compressed_color(compressed(kind, data))
    assert size == (64, 48)
    assert encoded.data == data
    assert np.abs(encoded.decode().astype(int) - SMOOTH).mean() < 4


def test_colors_swapped_by_their_writer():
    """ "compressed rgb8": RGB was handed to an encoder for BGR, and image_transport's reader knows it."""
    encoded, _ = messages.compressed_color(compressed("rgb8; png compressed rgb8", png(SMOOTH)))
    assert_array_equal(encoded.decode(), SMOOTH)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (SMOOTH[..., 0], np.repeat(SMOOTH[..., :1], 3, axis=-1)),
        (SMOOTH[..., 0].astype(np.uint16) * 256 + 9, np.repeat(SMOOTH[..., :1], 3, axis=-1)),
        (SMOOTH[..., ::-1].astype(np.uint16) * 256 + 9, SMOOTH),
        (np.concatenate([SMOOTH[..., ::-1], np.full_like(SMOOTH[..., :1], 7)], axis=-1), SMOOTH),
    ],
)
def test_png_of_one_channel_of_16_bits_and_with_alpha(pixels, expected):
    encoded, size = messages.compressed_color(compressed("png", png(pixels)))
    assert size == (64, 48)
    assert_array_equal(encoded.decode(), expected)


@pytest.mark.parametrize(("kind", "bits"), [("bayer_rggb8; png compressed ", 8), ("bayer_rggb16; png compressed ", 16)])
def test_a_mosaic_that_was_compressed_as_it_is(kind, bits):
    mosaic = np.zeros(SMOOTH.shape[:2], np.uint8)
    for (row, column), channel in zip(((0, 0), (0, 1), (1, 0), (1, 1)), "rggb", strict=True):
        mosaic[row::2, column::2] = SMOOTH[row::2, column::2, "rgb".index(channel)]
    data = png(mosaic.astype(np.uint16) * 256 if bits == 16 else mosaic)
    encoded, _ = messages.compressed_color(compressed(kind, data))
    assert np.abs(encoded.decode()[4:-4, 4:-4].astype(int) - SMOOTH[4:-4, 4:-4]).max() < 12
    colored, _ = messages.compressed_color(compressed(kind, png(SMOOTH[..., ::-1])))
    assert_array_equal(colored.decode(), SMOOTH)


@pytest.mark.parametrize("cut", [3, 20, 200, -13])
def test_truncated_images_are_told_before_decoding(cut):
    """Decoders fill the missing rows with grey and say nothing."""
    for data, reason in ((jpeg(SMOOTH), "jpeg"), (png(SMOOTH), "png")):
        with pytest.raises(BadImage) as error:
            image_size(data[:cut])
        assert error.value.reason in (f"truncated_{reason}", "unknown_compression")
        with pytest.raises(BadImage):
            decode_rgb(data[:cut])
    assert image_size(jpeg(SMOOTH) + b"\0" * 100) == (64, 48)


def test_damaged_inside():
    """The end is there, the middle is not."""
    data = bytearray(png(RGB))
    data[40:60] = bytes(20)
    with pytest.raises(BadImage):
        decode_rgb(bytes(data))
    with pytest.raises(BadImage, match="no frame header"):
        image_size(b"\xff\xd8\xff\xe0" + bytes(50) + b"\xff\xd9")
    with pytest.raises(BadImage) as error:
        messages.compressed_color(compressed("h264", b"\0\0\0\1gibberish"))
    assert error.value.reason == "unknown_compression"


def test_compressed_depth_png():
    data = struct.pack("<iff", 0, 0.0, 0.0) + png(DEPTH)
    assert_array_equal(messages.compressed_depth(compressed("16UC1; compressedDepth png", data)), DEPTH)
    assert_array_equal(messages.compressed_depth(compressed("16UC1; compressedDepth", data)), DEPTH)
    assert_array_equal(messages.compressed_depth(compressed("16UC1; png compressed", png(DEPTH))), DEPTH)


@pytest.mark.parametrize(
    "kind", ["png", "", "16UC1", "mono16; compressedDepth png", "; compressedDepth", "compressedDepth"]
)
@pytest.mark.parametrize("head", [b"", struct.pack("<iff", 0, 0.0, 0.0), struct.pack("<iff", 7, 1e-41, np.nan)])
def test_compressed_depth_whose_format_says_little(kind, head):
    assert_array_equal(messages.compressed_depth(compressed(kind, head + png(DEPTH))), DEPTH)


def test_tiff_holds_depth_in_floating_point():
    metres = (DEPTH / 1000).astype(np.float32)
    data = cv2.imencode(".tiff", metres)[1].tobytes()
    assert_array_equal(messages.compressed_depth(compressed("32FC1; tiff compressed ", data)), metres)
    with pytest.raises(BadImage, match="16 bit or float"):
        messages.compressed_depth(compressed("32FC1; tiff compressed ", cv2.imencode(".tiff", RGB)[1].tobytes()))


@pytest.mark.parametrize("kind", ["32FC1; compressedDepth png", "32FC1; compressedDepth", "", "png"])
def test_compressed_depth_inverse(kind):
    """The quantisation of compressed_depth_image_transport: precision 100, range 10 m."""
    quantisation, largest = 100.0, 10.0
    a = quantisation * (quantisation + 1)
    b = 1 - a / largest
    metres = np.linspace(0.5, 9, 48, dtype=np.float32).reshape(6, 8)
    values = np.rint(a / metres + b).astype(np.uint16)
    values[0, 0] = 0
    data = struct.pack("<iff", 0, a, b) + png(values)
    out = messages.compressed_depth(compressed(kind, data))
    assert np.isnan(out[0, 0])
    assert_allclose(out.ravel()[1:], metres.ravel()[1:], rtol=6e-3)


def rvl(depth: np.ndarray) -> bytes:
    """Straightforward RVL encoder, one nibble after the other."""
    nibbles: list[int] = []

    def put(value: int) -> None:
        while True:
            nibble, value = value & 7, value >> 3
            nibbles.append(nibble | (8 if value else 0))
            if not value:
                return

    flat, at, previous = depth.reshape(-1).astype(int).tolist(), 0, 0
    while at < len(flat):
        zeros = at
        while at < len(flat) and flat[at] == 0:
            at += 1
        put(at - zeros)
        end = at
        while end < len(flat) and flat[end] != 0:
            end += 1
        put(end - at)
        for value in flat[at:end]:
            delta = value - previous
            put((delta << 1) ^ (delta >> 63))
            previous = value
        at = end
    nibbles += [0] * (-len(nibbles) % 8)
    words = [int("".join(f"{n:x}" for n in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8)]
    return struct.pack(f"<II{len(words)}I", depth.shape[1], depth.shape[0], *words)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_rvl(height, width, data):
    values = data.draw(st.lists(st.sampled_from([0, 0, 1, 900, 901, 65535]), min_size=height * width))
    depth = np.array(values[: height * width], np.uint16).reshape(height, width)
    assert_array_equal(decode_rvl(rvl(depth)), depth)


def test_rvl_in_a_message_and_damaged():
    head = struct.pack("<iff", 0, 0.0, 0.0)
    data = rvl(DEPTH)
    for kind in ("16UC1; compressedDepth rvl", "rvl", ""):
        assert_array_equal(messages.compressed_depth(compressed(kind, head + data)), DEPTH)
    for bad in (data[:5], data[:20], struct.pack("<II", 10**6, 10**6), data[:8] + b"\xff" * 80, data[:8] + bytes(80)):
        with pytest.raises(BadImage) as error:
            decode_rvl(bad)
        assert "rvl" in error.value.reason


@pytest.mark.parametrize(
    ("kind", "data", "reason"),
    [
        ("16UC1; compressedDepth png", b"", "data_size"),
        ("16UC1; compressedDepth png", bytes(50), "unknown_compression"),
        ("16UC1; compressedDepth png", bytes(12) + png(DEPTH)[:-20], "truncated_png"),
        ("16UC1; compressedDepth png", bytes(12) + png(RGB), "bad_depth"),
        ("rgb8; compressedDepth png", bytes(12) + png(DEPTH), "unknown_encoding"),
        ("32FC1; compressedDepth png", bytes(12) + png(DEPTH), "bad_depth"),
        ("32FC1; compressedDepth png", png(DEPTH), "bad_depth"),
        ("16UC1; jpeg compressed ", jpeg(RGB[..., 0]), "eight_bit_depth"),
        ("", bytes(80), "bad_rvl"),
    ],
)
def test_compressed_depth_that_cannot_be(kind, data, reason):
    with pytest.raises(BadImage) as error:
        messages.compressed_depth(compressed(kind, data))
    assert error.value.reason == reason


def test_eight_bit_depth_is_no_depth():
    with pytest.raises(BadImage):
        decode_png16(png(RGB[..., 0]))


def camera_info(**changes) -> SimpleNamespace:
    fields = {
        "width": 640,
        "height": 480,
        "k": np.array([500.0, 0, 320, 0, 510, 240, 0, 0, 1]),
        "d": [0.1, 0.2, 0.0, 0.0, 0.0],
        "distortion_model": "plumb_bob",
        "p": [400.0, 0, 300, 0, 0, 410, 200, 0, 0, 0, 1, 0],
        "binning_x": 0,
        "binning_y": 0,
        "roi": SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    }
    return SimpleNamespace(**{**fields, **changes})


def test_camera_info():
    camera = messages.camera_model(camera_info())
    assert (camera.fx, camera.cy, camera.distortion[1]) == (500, 240, 0.2)
    rectified = messages.camera_model(camera_info(), rectified=True)
    assert (rectified.fx, rectified.cy, rectified.distortion) == (400, 200, ())


def test_binning_and_region_of_interest():
    """A scene point keeps its place in the world when the image is cut and reduced."""
    full = messages.camera_model(camera_info())
    roi = SimpleNamespace(x_offset=100, y_offset=40, width=400, height=300)
    part = messages.camera_model(camera_info(roi=roi, binning_x=2, binning_y=2))
    assert (part.width, part.height) == (200, 150)
    point = np.array([0.1, -0.2, 2.0])
    assert_allclose((part.project(point) + 0.5) * 2 - 0.5 + (100, 40), full.project(point))


def test_reduction_that_the_image_contradicts_is_no_reduction():
    """Drivers that say how they read the sensor, in the CameraInfo of the image as it is."""
    roi = SimpleNamespace(x_offset=8, y_offset=8, width=320, height=240)
    whole = messages.camera_model(camera_info())
    assert messages.camera_model(camera_info(binning_x=2, binning_y=2), size=(640, 480)) == whole
    assert messages.camera_model(camera_info(roi=roi), size=(640, 480)) == whole
    assert messages.camera_model(camera_info(binning_x=2, binning_y=2), size=(320, 240)).fx == whole.fx / 2
    assert messages.camera_model(camera_info(binning_x=2, binning_y=2)).width == 320


def test_a_size_left_out_is_that_of_the_image():
    assert messages.camera_model(camera_info(width=0, height=0), size=(640, 480)) == messages.camera_model(
        camera_info()
    )
    with pytest.raises(InvalidCamera, match="empty image size"):
        messages.camera_model(camera_info(width=0, height=0))


def test_one_matrix_stands_in_for_the_other_where_nothing_is_distorted():
    none = {"d": [0.0] * 5}
    assert messages.camera_model(camera_info(p=[0.0] * 12, **none), rectified=True).fx == 500
    assert messages.camera_model(camera_info(k=np.zeros(9), **none)).fx == 400
    assert messages.camera_model(camera_info(k=np.zeros(9), d=[]), rectified=True).fx == 400
    with pytest.raises(InvalidCamera, match="not calibrated"):
        messages.camera_model(camera_info(p=[0.0] * 12), rectified=True)  # K is that of the image with its distortion
    with pytest.raises(InvalidCamera, match="not calibrated"):
        messages.camera_model(camera_info(k=np.zeros(9), p=[0.0] * 12, **none))


@pytest.mark.parametrize("changes", [{"k": np.zeros(9)}, {"width": 0}, {"distortion_model": "magic"}])
def test_uncalibrated_cameras(changes):
    with pytest.raises(InvalidCamera):
        messages.camera_model(camera_info(**changes))


def stamped(**rotation) -> SimpleNamespace:
    q = {"x": 0.0, "y": 0.0, "z": 0.0, "w": 1.0, **rotation}
    return SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=3, nanosec=5), frame_id="map"),
        child_frame_id="base",
        transform=SimpleNamespace(translation=SimpleNamespace(x=1.0, y=2.0, z=3.0), rotation=SimpleNamespace(**q)),
    )


def test_transforms():
    parent, child, stamp, T = messages.transform(stamped())
    assert (parent, child, stamp) == ("map", "base", 3_000_000_005)
    assert T == (1, 2, 3, 0, 0, 0, 1)
    with pytest.raises(InvalidTransform):
        messages.transform(stamped(w=0.0))
    with pytest.raises(InvalidTransform):
        messages.transform(stamped(w=float("nan")))


ENCODINGS = st.sampled_from(
    [*messages.COLOR_ENCODINGS, *messages.DEPTH_ENCODINGS, "rgb9", "", "32fc1", "8UC2", "NV12 "]
)


@settings(max_examples=200, deadline=None)
@given(
    encoding=ENCODINGS,
    width=st.integers(-1, 9),
    height=st.integers(-1, 9),
    step=st.integers(-1, 40),
    data=st.binary(max_size=300),
    exact=st.booleans(),
    big=st.booleans(),
)
def test_whatever_an_image_says_it_is_read_or_refused(encoding, width, height, step, data, exact, big):
    if exact:
        data = (data + bytes(400))[: max(0, step * height)]
    message = SimpleNamespace(
        encoding=encoding, width=width, height=height, step=step, data=data, is_bigendian=int(big), header=None
    )
    try:
        pixels = messages.color_image(message)
        assert pixels.dtype == np.uint8
        assert pixels.shape[1:] == (width, 3)
    except BadImage:
        pass
    try:
        depth = messages.depth_of(message, InputSettings())
        assert depth.shape == (height, width)
        assert depth.dtype in (np.uint16, np.float32)
    except BadImage:
        pass


STARTS = st.sampled_from(
    [b"", png(DEPTH), bytes(12) + png(DEPTH), jpeg(RGB), b"II*\0", bytes(12) + rvl(DEPTH), png(RGB)]
)


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(
        ["", "png", "rvl", "32FC1; compressedDepth png", "16UC1; compressedDepth rvl", "bayer_rggb8; jpeg", "x"]
    ),
    start=STARTS,
    cut=st.integers(0, 200),
    changed=st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), max_size=4),
    more=st.binary(max_size=30),
)
def test_whatever_is_compressed_is_read_or_refused(kind, start, cut, changed, more):
    data = bytearray((start[:cut] if cut < 150 else start) + more)
    for at, value in changed:
        if at < len(data):
            data[at] = value
    message = compressed(kind, bytes(data))
    with contextlib.suppress(BadImage):
        assert messages.depth_of(message, InputSettings()).ndim == 2
    try:
        encoded, _ = messages.compressed_color(message)
        assert encoded.decode().shape[2] == 3
    except BadImage:
        pass


NUMBER = st.sampled_from([0.0, 1.0, -1.0, 500.0, np.nan, np.inf, 1e300, 1e-300])


@settings(max_examples=200, deadline=None)
@given(
    k=st.lists(NUMBER, min_size=9, max_size=9),
    p=st.lists(NUMBER, min_size=12, max_size=12),
    d=st.lists(NUMBER, max_size=15),
    name=st.sampled_from(
        ["", "plumb_bob", "equidistant", "rational_polynomial", "none", "double_sphere", "Kannala Brandt4"]
    ),
    size=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    binning=st.integers(0, 9),
    rectified=st.booleans(),
    image=st.sampled_from([None, (4, 3), (640, 480)]),
)
def test_whatever_a_camera_info_holds_it_is_a_camera_or_refused(k, p, d, name, size, binning, rectified, image):
    message = camera_info(
        k=np.array(k),
        p=p,
        d=d,
        distortion_model=name,
        width=size[0],
        height=size[1],
        binning_x=binning,
        binning_y=binning,
    )
    try:
        camera = messages.camera_model(message, rectified, image)
    except InvalidCamera:
        return
    assert camera.width > 0
    assert np.isfinite(camera.K).all()
    with np.errstate(all="ignore"):
        assert camera.project([(0.0, 0.0, 1.0)]).shape == (1, 2)
