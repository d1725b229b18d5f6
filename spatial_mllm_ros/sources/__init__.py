"""Recordings as streams of frames: folders, rosbag2, video, rendered rooms."""
