"""Why frames were refused or came without something, and what to do about it."""

from __future__ import annotations

_TF = "no transform from the camera to the fixed frame at the image's stamp: record /tf and /tf_static with the images"
_CLOCKS = "stamps are of different clocks: have all drivers stamp with the system's time, or all with the simulation's"
_DAMAGED = "the file is damaged or cut off: copy or record it again"
_FORMAT = "convert the images to an encoding that is known (rgb8, bgr8, mono8, 16UC1, 32FC1, JPEG, PNG)"

HELP: dict[str, str] = {
    "no_pose": "no pose is known for the frame, so it has no place in space and is measured alone: give poses (TF, pose files, "
    "a tracker), or set static for a camera that does not move",
    "bad_pose": "the pose is not a rigid transform: check whoever writes it",
    "invalid_pose": "the pose file holds no rigid 4x4 or 3x4 matrix: the frame came without pose; check who writes it",
    "no_camera_info": "no CameraInfo or intrinsics came with the images: record camera_info, or add intrinsics.txt",
    "bad_camera_info": "CameraInfo is not calibrated, contradicts itself, or is of a distortion model that is not supported",
    "other_camera": "geometry from color follows one camera, the one that came first",
    "little_change": "the camera showed nothing new",
    "window_dropped": "the images around it did not fit together: a jump, a blocked view, or much that moved",
    "scale_came_too_late": "no metres could be told for it in time: move the camera sideways",
    "scale_uncertain": "its metres are not known well enough",
    "no_image": "it has no color image",
    "too_slow": "geometry from color could not keep up",
    "camera_size": "CameraInfo is of another size than the image: use the camera_info of the very image topic",
    "image_size": "the image is of another size than its camera model: do not mix resolutions",
    "stamp_repeated": "a second frame with the same stamp: the first one counts",
    "repeated_stamp": "a second frame with the same stamp: the first one counts",
    "bad_stamp": "the stamp lies beyond the year 2262: the file is damaged, or its times are in another unit",
    "stamp_negative": "the stamp is negative: check the clock of the driver",
    "stamp_from_the_future": "the stamp is ahead of the clock: check use_sim_time and the clocks' synchronisation",
    "other_world_frame": "the pose is in another fixed frame than the first one's: use one fixed frame",
    "out_of_order": "it came later than the queue waits: raise the queue size",
    "queue_full": "depth or pose did not come in time: raise the queue size, or record what is missing",
    "unpaired_depth": "depth without a color image of its time: check that both cameras are synchronised",
    "no_depth": "no depth came for the image: it can be shown, not measured",
    "depth_size": (
        "depth is of another shape than its image: register it to the color camera, or give the depth image's own CameraInfo "
        "(depth_camera_info_topic)"
    ),
    "depth_resampled": (
        "depth has the image's frame and shape but not its size: it was taken for the same view, at the image's size. If it is "
        "another view, give its CameraInfo (depth_camera_info_topic)"
    ),
    "eight_bit_depth": "depth of 8 bits is a picture, no measure: record raw depth or compressedDepth",
    "bad_depth": "depth is neither uint16 millimetres nor float32 metres",
    "bad_image": "the image is not RGB of 8 bits",
    "damaged_depth": "the depth image does not decode: the frame came without depth",
    "missing_file": "a file that is listed is not there: copy the folder again, or correct the list",
    "not_listed": "an image lies beside those that are listed: the list may be cut off",
    "missing_depth": "the depth image that is listed is not there: the frame came without depth; copy the folder again",
    "missing_pose": "the pose file that is listed is not there: the frame came without pose; copy the folder again",
    "lost_pose": "the recording says that tracking was lost (inf, nan or -1): the frame came without pose",
    "pose_without_image": "a pose lies there without an image of its name",
    "not_optimized": "the node is not in RTAB-Map's optimized graph: it came without pose",
    "depth_without_image": "a 16-bit PNG is depth, and no image has its name or number: name them alike",
    "depth_without_reader": "its reader is not installed: pip install 'spatial_mllm_ros[phone]'",
    "heic_without_reader": "HEIC needs a reader: pip install 'spatial_mllm_ros[phone]', or convert the images to JPEG",
    "not_in_frames_csv": "frames.csv does not list the image: add it, or delete frames.csv",
    "unreadable_file": "the file is there but cannot be read: check its permissions",
    "damaged_file": _DAMAGED,
    "truncated_video": "the video breaks off before its announced end: copy or convert it again",
    "truncated_png": _DAMAGED,
    "truncated_jpeg": _DAMAGED,
    "bad_jpeg": _DAMAGED,
    "does_not_decode": _DAMAGED,
    "undecodable_message": "a message does not decode: the bag is damaged, or its type definition is missing",
    "unknown_compression": _FORMAT,
    "unknown_encoding": _FORMAT,
    "data_size": "the image has fewer bytes than its size needs: check the driver",
    "row_step": "the image's rows are not as long as its encoding says: check the driver",
    "tf_unknown_frame": (
        "no transform tells of that frame: record /tf and /tf_static with the images, name a pose_topic, or set static for a "
        "camera that does not move"
    ),
    "tf_not_connected": "no chain of transforms leads from the camera to the fixed frame: set world_frame, or record them",
    "tf_past": "the transforms begin after the image: record them from before the images on",
    "tf_once": (
        "a mount that never changes was sent once on /tf, where it holds for that moment alone: publish it on /tf_static "
        "(static_transform_publisher, robot_state_publisher)"
    ),
    "no_frame_id": "the images name no frame: set the frame_id of the camera's driver, or name it in TF as it does",
    "tf_future": "the transforms end before the image: does the localiser run on, and were its last ones recorded?",
    "tf_gap": "transforms come too seldom to interpolate between: raise tf_max_gap_s, or publish them more often",
    "info_clock": "CameraInfo is stamped by another clock than its images: its calibration is used for all of them",
    "tf_invalid": "a transform is not rigid: check whoever publishes it",
    "tf_loop": "a transform would close a loop: two nodes publish the same frame",
    "clock_reset": "stamps jumped back (a bag played again, a clock that was set): what waited was given out as it was",
}


def what_to_do(reason: str, latest: str = "") -> str:
    """One line for people about a reason by which frames are counted. latest: its latest case, in figures."""
    remedy = HELP.get(reason, _TF if reason.startswith("tf_") else "see the log")
    if "another clock" in latest and reason != "info_clock":
        remedy = _CLOCKS
    return f"{remedy}. Latest: {latest}" if latest else remedy


COLOR_ONLY = (
    "This recording has images only. Frames without depth and pose carry no geometry: nothing in them can be measured, "
    "so the memory refuses them as no_pose. Give depth and poses (an RGB-D folder, a TUM folder or a rosbag2 with TF), or "
    "have them estimated (--rgb-geometry). A model (--model) is shown evenly spaced ones of them."
)
