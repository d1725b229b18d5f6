"""ROS messages to images, cameras and transforms.

Messages are duck-typed: those of rclpy, rosbags and cyclonedds have the same fields. Encodings are those of
sensor_msgs/image_encodings.hpp; 8UC3 and 8UC4, which name no colors, are taken as OpenCV's BGR.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.camera import CameraModel, InvalidCamera
from spatial_mllm_ros.scene.depth import Depth, metric_depth
from spatial_mllm_ros.scene.images import EncodedImage
from spatial_mllm_ros.scene.inputs import InputSettings
from spatial_mllm_ros.scene.rigid import Rigid, rigid
from spatial_mllm_ros.scene.transform_tree import Stddev
from spatial_mllm_ros.sources.compressed import JPEG, PNG, TIFF, BadImage, decode_depth, decode_png16, encoded_image
from spatial_mllm_ros.sources.rvl import decode_rvl

# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first row's first two.
BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
# Encoding: channels, bytes of a channel, and OpenCV's conversion to RGB (None: it is RGB).
PACKED: dict[str, tuple[int, int, int | None]] = {
    "rgb8": (3, 1, None),
    "bgr8": (3, 1, cv2.COLOR_BGR2RGB),
    "8UC3": (3, 1, cv2.COLOR_BGR2RGB),
    "rgba8": (4, 1, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, 1, cv2.COLOR_BGRA2RGB),
    "8UC4": (4, 1, cv2.COLOR_BGRA2RGB),
    "rgb16": (3, 2, None),
    "bgr16": (3, 2, cv2.COLOR_BGR2RGB),
    "16UC3": (3, 2, cv2.COLOR_BGR2RGB),
    "rgba16": (4, 2, cv2.COLOR_RGBA2RGB),
    "bgra16": (4, 2, cv2.COLOR_BGRA2RGB),
    "16UC4": (4, 2, cv2.COLOR_BGRA2RGB),
    "mono8": (1, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, 1, cv2.COLOR_GRAY2RGB),
    "mono16": (1, 2, cv2.COLOR_GRAY2RGB),
    "yuv422": (2, 1, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, 1, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, 1, cv2.COLOR_YUV2RGB_YUYV),
    "yuyv": (2, 1, cv2.COLOR_YUV2RGB_YUYV),
    **{f"bayer_{pattern}8": (1, 1, conversion) for pattern, conversion in BAYER.items()},
    **{f"bayer_{pattern}16": (1, 2, conversion) for pattern, conversion in BAYER.items()},
}
# A plane of luma, then one of chroma. Encoding: bytes of both per pixel, and OpenCV's conversion (None: it has none).
PLANAR: dict[str, tuple[float, int | None]] = {
    "nv12": (1.5, cv2.COLOR_YUV2RGB_NV12),
    "nv21": (1.5, cv2.COLOR_YUV2RGB_NV21),
    "nv24": (3.0, None),
}
COLOR_ENCODINGS = frozenset((*PACKED, *PLANAR))
"""What ``color_image`` reads."""
DEPTH_ENCODINGS: dict[str, np.dtype] = {
    "16UC1": np.dtype(np.uint16),
    "mono16": np.dtype(np.uint16),
    "16SC1": np.dtype(np.int16),
    "32FC1": np.dtype(np.float32),
    "64FC1": np.dtype(np.float64),
}
"""What ``depth_image`` reads. mono16 may be grey as well."""
COMPRESSED_DEPTH_HEADER = 12
RGB_OF_YUV = np.array([[1.164, 0.0, 1.596], [1.164, -0.392, -0.813], [1.164, 2.017, 0.0]], np.float32)
"""ITU-R BT.601, luma from 16, chroma about 128: what OpenCV takes YUV of 4:2:0 and 4:2:2 to be."""
LARGEST_ROW_PADDING = 256
LARGEST_M = 30.0
"""A pose that is less certain than this, m, says that its publisher does not know."""


def stamp_ns(stamp: Any) -> int:
    """builtin_interfaces/Time as integer nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def encoding_name(text: str) -> str:
    """An encoding as image_encodings.hpp spells it: "BGR8" is bgr8, "16uc" is 16UC1. Of CompressedImage.format the part
    that says what was compressed."""
    name = text.split(";", maxsplit=1)[0].strip()
    if numbers := re.fullmatch(r"(\d+[USF]C)(\d*)", name.upper()):
        return numbers[1] + (numbers[2] or "1")
    return name.lower()


def color_image(message: Any) -> NDArray[np.uint8]:
    """sensor_msgs/Image as uint8 RGB [height, width, 3]; 16-bit colors lose their low byte.

    Raises BadImage for an unknown encoding or data that disagrees with its own header.
    """
    encoding = encoding_name(message.encoding)
    if encoding in PLANAR:
        return _planar_image(message, *PLANAR[encoding])
    if encoding not in PACKED:
        hint = (
            "; it is a depth image"
            if encoding in DEPTH_ENCODINGS
            else f"; known are {', '.join(sorted(COLOR_ENCODINGS))}"
        )
        raise BadImage("unknown_encoding", f"color encoding {message.encoding!r} is not known{hint}")
    channels, depth_bytes, conversion = PACKED[encoding]
    pixels = _pixels(message, channels, np.dtype(np.uint8 if depth_bytes == 1 else np.uint16))
    if depth_bytes == 2:
        pixels = (pixels >> 8).astype(np.uint8)
    if conversion is None:
        return np.ascontiguousarray(pixels)
    if encoding.startswith(("bayer", "yuv", "uyvy", "yuyv")) and (pixels.shape[0] < 2 or pixels.shape[1] % 2):
        raise BadImage("data_size", f"{message.encoding} needs an even width and two rows, not {pixels.shape[:2]}")
    if channels == 1:
        pixels = pixels[..., 0]
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), conversion), np.uint8)


def depth_of(message: Any, settings: InputSettings) -> Depth:
    """Image or CompressedImage of depth as a Frame has it: uint16 mm or float32 m. Raises BadImage."""
    return metric_depth(compressed_depth(message) if hasattr(message, "format") else depth_image(message), settings)


def depth_image(message: Any) -> NDArray:
    """sensor_msgs/Image (REP 118) as counts of depth [height, width], in the type of its encoding.

    Raises BadImage for another encoding or data that disagrees with its own header.
    """
    encoding = encoding_name(message.encoding)
    if encoding not in DEPTH_ENCODINGS:
        raise BadImage(
            "unknown_encoding", f"depth encoding {message.encoding!r} is not known, only {', '.join(DEPTH_ENCODINGS)}"
        )
    return np.ascontiguousarray(_pixels(message, 1, DEPTH_ENCODINGS[encoding])[..., 0])


def compressed_color(message: Any) -> tuple[EncodedImage, tuple[int, int]]:
    """sensor_msgs/CompressedImage (JPEG or PNG) as an image to be decoded on demand, and its (width, height).

    What counts is the data; of ``format`` ("jpeg", "rgb8; jpeg compressed bgr8") only whether the colors inside are
    swapped. Raises BadImage for other compressions and for data that was cut off.
    """
    if "compressedDepth" in message.format:
        raise BadImage("unknown_encoding", f"{message.format!r} is depth, not color")
    swapped = message.format.replace(" ", "").endswith("compressedrgb8")
    encoding = encoding_name(message.format)
    mosaic = BAYER.get(encoding.removeprefix("bayer_")[:4]) if encoding.startswith("bayer_") else None
    return encoded_image(bytes(message.data), stored_as_rgb=swapped, mosaic=mosaic)


def compressed_depth(message: Any) -> NDArray:
    """CompressedImage of depth as counts [height, width], uint16, or float32 metres.

    16UC1 as PNG or RVL, 32FC1 as PNG of quantised inverse depth, both of compressed_depth_image_transport; also a plain
    PNG of 16 bits or TIFF, as the ``compressed`` transport makes them. The 12 bytes before the data are a format number
    and two float32, depthQuantA and depthQuantB: depth = A / (value - B), 0 = no data. A ``format`` that does not say
    what was compressed ("png", "") is taken for 32FC1 where these two make sense. Raises BadImage.
    """
    data = bytes(message.data)
    if data.startswith(JPEG):
        raise BadImage(
            "eight_bit_depth", "depth as JPEG has 8 bits, which is no measure: publish it raw or as compressedDepth"
        )
    encoding = encoding_name(message.format)
    if data.startswith(TIFF):
        return decode_depth(data)
    if data.startswith(PNG):
        if encoding in ("32FC1", "64FC1"):
            raise BadImage("bad_depth", f"a PNG without the quantisation of compressedDepth cannot hold {encoding}")
        return decode_png16(data)
    if len(data) <= COMPRESSED_DEPTH_HEADER:
        raise BadImage("data_size", f"compressed depth of {len(data)} bytes is empty")
    _, quant_a, quant_b = struct.unpack_from("<iff", data)
    body = data[COMPRESSED_DEPTH_HEADER:]
    if body.startswith(PNG):
        values = decode_png16(body)
    elif "png" not in message.format.lower() and (encoding == "" or "rvl" in message.format.lower()):
        values = decode_rvl(body)
    else:
        raise BadImage("unknown_compression", f"compressed depth {message.format!r} holds neither PNG nor RVL")
    if encoding in ("", "png", "rvl", "compresseddepth"):
        encoding = "32FC1" if _is_quantisation(quant_a, quant_b) else "16UC1"
    if encoding in ("16UC1", "mono16"):
        return values
    if encoding != "32FC1":
        raise BadImage("unknown_encoding", f"compressed depth {message.format!r} is neither 16UC1 nor 32FC1")
    if not np.isfinite([quant_a, quant_b]).all() or quant_a <= 0:
        raise BadImage("bad_depth", f"compressed depth has the quantisation A {quant_a}, B {quant_b}")
    inverse = values.astype(np.float32) - np.float32(quant_b)
    with np.errstate(divide="ignore"):
        metres = np.float32(quant_a) / inverse
    return np.where((values > 0) & (inverse > 0), metres, np.float32(np.nan))


def _is_quantisation(a: float, b: float) -> bool:
    """Whether they are as the encoder chooses them: A = q (q + 1) for a precision q of 1 to 150, B = 1 - A / depth_max."""
    return 2 <= a <= 1e5 and b < 1 and 0.1 <= a / (1 - b) <= 1e4


def camera_model(message: Any, rectified: bool = False, size: tuple[int, int] | None = None) -> CameraModel:
    """sensor_msgs/CameraInfo as the model of the image that goes with it.

    K, D and the size are of the full sensor; ``roi`` and ``binning`` reduce them to the image's pixels.
    rectified: the image was rectified (image_rect): P instead of K, and no distortion. Without distortion either stands in
    for the other where that is zero. size: (width, height) of the image, px, where known: some drivers leave it out, some
    say ``roi`` or ``binning`` of what is that of the image already. Raises InvalidCamera.
    """
    P, K = np.asarray(message.p, np.float64), np.asarray(message.k, np.float64)
    if P.shape != (12,):
        raise InvalidCamera(f"CameraInfo.p must have 12 elements, not {P.size}")
    of_P = P.reshape(3, 4)[:, :3].reshape(-1)
    given = (int(message.width), int(message.height))
    whole = given if all(given) or size is None else size
    distorted = np.any(np.asarray(message.d, np.float64))
    matrix = of_P if (rectified and (np.any(of_P) or distorted)) or not (np.any(K) or distorted) else K
    if rectified:
        full = CameraModel.from_camera_info(*whole, matrix)
    else:
        full = CameraModel.from_camera_info(*whole, matrix, message.d, message.distortion_model)
    roi, bx, by = message.roi, max(int(message.binning_x), 1), max(int(message.binning_y), 1)
    width, height = int(roi.width) or full.width, int(roi.height) or full.height
    reduced = (width // bx, height // by)
    if reduced == whole or (size == whole and reduced != size):
        return full
    return CameraModel(
        *reduced,
        full.fx / bx,
        full.fy / by,
        (full.cx - int(roi.x_offset) + 0.5) / bx - 0.5,  # the corner, not the centre, of pixel 0 stays in place
        (full.cy - int(roi.y_offset) + 0.5) / by - 0.5,
        full.distortion_model,
        full.distortion,
    )


def transform(message: Any) -> tuple[str, str, int, Rigid]:
    """geometry_msgs/TransformStamped as parent, child, stamp (ns) and T_parent_child. Raises InvalidTransform."""
    t, q = message.transform.translation, message.transform.rotation
    T = rigid(t.x, t.y, t.z, q.x, q.y, q.z, q.w)
    return message.header.frame_id, message.child_frame_id, stamp_ns(message.header.stamp), T


def pose(message: Any) -> tuple[str, str, int, Rigid, Stddev]:
    """Odometry, PoseStamped or PoseWithCovarianceStamped as parent, child ('' where it tells none), stamp (ns),
    T_parent_child and its standard deviation.

    Of the covariance (row-major 6x6: x, y, z and rotations about them) the largest deviation of each kind counts; what is
    not positive, or larger than any room, is what publishers write where they know nothing. Raises InvalidTransform.
    """
    value = message.pose
    covariance = np.zeros(36) if not hasattr(value, "covariance") else np.asarray(value.covariance, np.float64)
    value = value.pose if hasattr(value, "covariance") else value
    p, q = value.position, value.orientation
    T = rigid(p.x, p.y, p.z, q.x, q.y, q.z, q.w)
    variances = covariance.reshape(6, 6).diagonal()
    known = np.where((variances > 0) & (variances < [LARGEST_M**2] * 3 + [np.pi**2] * 3), variances, 0.0)
    stddev = (float(np.sqrt(known[:3].max())), float(np.sqrt(known[3:].max())))
    return message.header.frame_id, getattr(message, "child_frame_id", ""), stamp_ns(message.header.stamp), T, stddev


def _planar_image(message: Any, bytes_per_pixel: float, conversion: int | None) -> NDArray[np.uint8]:
    """RGB of a plane of luma with one of chroma below. Drivers disagree on whether ``height`` and ``step`` count both."""
    width, height, step = int(message.width), int(message.height), int(message.step)
    data = np.frombuffer(message.data, np.uint8)
    what = f"{message.encoding} image of {width}x{height}"
    if data.size == step * height and step < width * bytes_per_pixel:
        height = round(height / bytes_per_pixel)
    if width <= 0 or height <= 0 or width % 2 or height % 2:
        raise BadImage("data_size", f"{what} needs an even size")
    rows = round(height * bytes_per_pixel)
    planes: NDArray[np.uint8]
    if data.size == width * rows:
        planes = data.reshape(rows, width)
    elif step >= width and data.size == step * rows:
        planes = data.reshape(rows, step)
        if conversion is None and step > width:  # two bytes of chroma a pixel, in rows of twice the luma's
            chroma = planes[height:].reshape(height, 2 * step)[:, : 2 * width].reshape(2 * height, width)
            planes = np.concatenate([planes[:height, :width], chroma])
        planes = planes[:, :width]
    else:
        raise BadImage("data_size", f"{what} needs {width * rows} bytes, but has {data.size} (step {step})")
    if conversion is not None:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(planes), conversion), np.uint8)
    yuv = np.concatenate([planes[:height, :, None], planes[height:].reshape(height, width, 2)], axis=2)
    yuv = yuv.astype(np.float32) - np.array([16, 128, 128], np.float32)
    return np.clip(np.rint(yuv @ RGB_OF_YUV.T), 0, 255).astype(np.uint8)


def _pixels(message: Any, channels: int, dtype: np.dtype) -> NDArray:
    """Image.data as [height, width, channels] in the machine's byte order, without the padding of rows."""
    width, height, step = int(message.width), int(message.height), int(message.step)
    row = width * channels * dtype.itemsize
    data = np.frombuffer(message.data, np.uint8)
    what = f"{message.encoding} image of {width}x{height}"
    if width <= 0 or height <= 0:
        raise BadImage("data_size", f"{what} is empty")
    if step < row or (step >= 2 * row and step - row > LARGEST_ROW_PADDING):
        raise BadImage(
            "row_step", f"{what} should have rows of {row} bytes, but step is {step}: is the encoding right?"
        )
    if data.size != step * height:
        raise BadImage("data_size", f"{what} with step {step} needs {step * height} bytes, but has {data.size}")
    if step == 2 * row and dtype.itemsize > 1:
        raise BadImage("row_step", f"{what} has rows twice as long as the encoding says: is the encoding right?")
    rows = data.reshape(height, step)[:, :row]
    typed = np.ascontiguousarray(rows).view(dtype.newbyteorder(">" if message.is_bigendian else "<"))
    return typed.astype(dtype, copy=False).reshape(height, width, channels)
