"""Frames, cameras, poses, time sync, transforms, voxels, planes and measurements. numpy and scipy only."""
