"""What can be set of the MultiSPA engine, and where each default comes from."""

from __future__ import annotations

from dataclasses import dataclass

PUBLISHED = "the authors' data engine"


@dataclass(frozen=True, kw_only=True)
class MultiSpaSettings:
    """train, evaluation: questions of each subtask, as far as the recordings give them. evaluation_share: of the
    recordings, held out whole; none of their images is in the training set. frames: of each recording, evenly spaced.

    overlap_percent: pairs of images, by the points that both see of those that either sees; each 1 % of it gets the same
    number of pairs (published: 6 to 35). least_move_m, least_turn_deg: a direction is asked only of a movement
    along its axis of at least so much, as less is within the error of poses (published: no bound, which 0 gives).
    least_depth_gap: depths are compared only when they differ by this share of the nearer one (published: whole
    millimetres that differ).
    most_share: of a question of direction, no answer is given more often than this, or the question alone would give it
    away; what is over is left out (published: images are swapped at random, which evens out turns, but not the way
    towards what a camera circles; 1 leaves nothing out).
    points_per_group, pairs_per_bin, reversed_share: of tracked points (published for training: 15, 30, 0.05).
    """

    train: int = 200
    evaluation: int = 40
    evaluation_share: float = 0.2
    frames: int = 120
    overlap_percent: tuple[int, int] = (6, 35)
    least_move_m: float = 0.05
    least_turn_deg: float = 3.0
    least_depth_gap: float = 0.05
    most_share: float = 0.6
    points_per_group: int = 15
    pairs_per_bin: int = 30
    reversed_share: float = 0.05
    tracked_points: int = 240
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.overlap_percent
        if not 0 <= low < high <= 100:
            raise ValueError(f"overlap must be two whole percentages, the lower first, not {low} and {high}")
        if not 0 <= self.evaluation_share < 1:
            raise ValueError(f"the share of recordings held out must be 0 to below 1, not {self.evaluation_share:g}")
