"""What a track of poses says of its own noise and of what is missing in it."""

import numpy as np
import pytest

from spatial_mllm_ros.memory.track import PoseTrack, across_gap, gaps, jitter
from spatial_mllm_ros.scene.pose import make_transform

STAMPS = np.arange(200, dtype=np.int64) * 100_000_000
ANGLE = np.linspace(0, 4 * np.pi, 200)
CIRCLE = np.stack([np.cos(ANGLE), np.sin(ANGLE), 0 * ANGLE], axis=1)


@pytest.mark.parametrize("noise", [0.001, 0.01, 0.03])
def test_jitter_is_told_by_the_positions_themselves(noise):
    noisy = CIRCLE + noise * np.random.default_rng(0).standard_normal(CIRCLE.shape)
    assert jitter(STAMPS, noisy) == pytest.approx(noise, rel=0.25)


def test_a_smooth_track_has_next_to_no_jitter():
    assert jitter(STAMPS, CIRCLE) < 1e-5


def test_too_few_positions_tell_nothing():
    assert jitter(STAMPS[:4], CIRCLE[:4]) is None
    assert jitter(STAMPS[:1], CIRCLE[:1]) is None


def test_a_chord_across_a_gap_is_lengthened_with_a_deviation_that_covers_the_arc():
    kept = np.r_[0:60, 80:200]
    stamps, positions = STAMPS[kept], CIRCLE[kept]
    (index,) = gaps(stamps)
    arc = 21 * (ANGLE[1] - ANGLE[0])
    chord = float(np.linalg.norm(positions[index + 1] - positions[index]))
    more, stddev = across_gap(stamps, positions, int(index))
    assert more > 0
    assert abs(chord + more - arc) < 2 * stddev


def test_even_images_have_no_gaps():
    assert len(gaps(STAMPS)) == 0
    assert len(gaps(STAMPS[:1])) == 0


def test_a_pose_in_a_gap_is_as_uncertain_as_the_camera_may_have_gone_another_way():
    """On a circle with a gap of 1.5 s: what is told covers the error, grows towards the middle, and is nothing elsewhere."""
    track = PoseTrack()
    for stamp, position in zip(STAMPS.tolist(), CIRCLE, strict=True):
        if not 5_000_000_000 < stamp < 6_500_000_000:
            track.set(stamp, make_transform(np.eye(3), position))
    assert track.gap_stddev(3_000_000_000) == (0.0, 0.0)
    assert track.gap_stddev(3_050_000_000) == (0.0, 0.0)
    told = [track.gap_stddev(5_000_000_000 + k * 100_000_000)[0] for k in range(16)]
    assert told[0] == told[-1] == 0.0
    assert told[7] > told[3] > told[1] > 0
    for k in range(1, 15):
        stamp = 5_000_000_000 + k * 100_000_000
        off = np.linalg.norm(track.at(stamp, 2_000_000_000)[:3, 3] - CIRCLE[50 + k])
        assert off < 3 * told[k]
