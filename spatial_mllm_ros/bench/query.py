"""``spatial-mllm bench query``: what a question to a model costs, as published, from scratch, and from a warm context.

In the published way every question encodes all frames and prefills everything, and transformers' ``generate`` writes with
its own cache. Cold is this package's way with nothing encoded before; warm is with the context ready.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from spatial_mllm_ros.bench.measured import Answered, Measured
from spatial_mllm_ros.models.mllm.engine import ModelEngine
from spatial_mllm_ros.serving.interface import ModelError, ModelFrame, ModelQuestion

Progress = Callable[[str, int, int | None], None]
MIB = 1 << 20
QUESTIONS = (
    "How far is the chair from the table, measured in metres?",
    "Is there a sofa to the left of the window?",
    "What is the size of this room in square metres?",
    "How many lamps are on the shelf?",
    "Which way is the door from where I stand?",
)
WIDTH, HEIGHT = 640, 480


def run(
    subject: Measured, frames: int = 16, questions: int = 3, progress: Progress = lambda what, done, total: None
) -> dict[str, Any]:
    """Ask the same questions about the same frames in the three ways, then change frames."""
    seen = [frame(i, i) for i in range(frames)]
    asked = [ModelQuestion(QUESTIONS[i % len(QUESTIONS)]) for i in range(questions)]
    runs: dict[str, list[Answered]] = {"published": [], "cold": [], "warm": []}
    progress("warming up", 0, None)
    subject.published(asked[0], seen[:2])
    engine = subject.engine()
    progress("encoding the context", 0, None)
    whole = update(engine, seen)
    ours(engine, asked[0])
    for i, question in enumerate(asked):  # by turns, so that whatever else the machine does hits all alike
        progress("asking as published", 3 * i, 3 * questions)
        runs["published"].append(subject.published(question, seen))
        progress("asking cold", 3 * i + 1, 3 * questions)
        runs["cold"].append(ours(subject.engine(), question, seen))
        progress("asking warm", 3 * i + 2, 3 * questions)
        runs["warm"].append(ours(engine, question))
    tokens = {way: [answer.tokens for answer in answers] for way, answers in runs.items()}
    first = {way: median(answer.first_s for answer in answers) for way, answers in runs.items()}
    status = engine.status()
    changes = changed(engine, seen, whole, progress)
    size = subject.how.size([(HEIGHT, WIDTH)])
    return {
        "model": {
            "id": status.model_id,
            "weights": "random: what it says means nothing" if subject.random else "of the checkpoint",
            "weights_mib": status.memory["weights"] / MIB,
            "threads": subject.threads,
        },
        "frames": frames,
        "frame_size": f"{size[1]}x{size[0]}",
        "video_tokens": subject.how.tokens(frames, size),
        "question_tokens": int(median(len(subject.encoder.question(question).ids) for question in asked)),
        "questions": [{"way": way, **figures(answers)} for way, answers in runs.items()],
        "first_token_published_to_warm": first["published"] / first["warm"],
        "first_token_cold_to_warm": first["cold"] / first["warm"],
        # In other precisions whole-video and pairwise encoding round differently; warm and cold never do.
        "identical_tokens": tokens["warm"]
        == tokens["cold"]
        == (tokens["published"] if subject.exact else tokens["cold"]),
        "warm_tokens_are_those_of_cold": tokens["warm"] == tokens["cold"],
        "warm_tokens_are_published": tokens["warm"] == tokens["published"],
        "changes_of_frames": changes,
        "seconds_of_the_whole_update": {name: stage.seconds for name, stage in whole.items()},
        "decode_tokens_a_second_limit": subject.decode_limit(),
        "memory_mib": {name: nbytes / MIB for name, nbytes in status.memory.items()},
    }


def ours(engine: ModelEngine, question: ModelQuestion, frames: Sequence[ModelFrame] | None = None) -> Answered:
    """By the engine: about the warm context, or about frames."""
    start = time.perf_counter()
    answer = engine.answer(question, frames)
    return Answered(answer.first_token_ns / 1e9, time.perf_counter() - start, answer.token_ids)


def update(engine: ModelEngine, frames: Sequence[ModelFrame]) -> dict[str, Any]:
    """Encode a context; its stages."""
    engine.set_context(frames)
    while engine.step():
        pass
    if engine.status().reason:
        raise ModelError(engine.status().reason)
    return engine.last_update


def changed(
    engine: ModelEngine, seen: Sequence[ModelFrame], whole: dict[str, Any], progress: Progress
) -> list[dict[str, Any]]:
    """One frame of the context replaced, and what encoding it again costs; each change follows the one before.

    A frame that leaves or comes shifts the pairs between the two places: every frame there gets its other neighbour as its
    partner. Pairs of both kinds are kept, so those that a later change shifts back are still there.
    """
    count = len(seen)
    newest = [*seen[:-1], frame(count, count)]
    oldest = [*newest[1:], frame(count + 1, count + 1)]
    middle = sorted([*oldest[1:], frame(count + 2, count / 2 + 0.5)], key=lambda one: one.stamp_ns)
    total = seconds(whole)
    rows = [_row("all frames new", whole, total)]
    for i, (what, frames) in enumerate(
        (
            ("the newest for a newer one", newest),
            ("the oldest for a newer one", oldest),
            ("the oldest for one in the middle", middle),
        )
    ):
        progress("changing a frame", i, 3)
        rows.append(_row(what, update(engine, frames), total))
    return rows


def _row(what: str, stages: dict[str, Any], total: float) -> dict[str, Any]:
    steps = {name: stage.steps for name, stage in stages.items()}
    return {
        "change": what,
        "pairs_encoded": steps.get("features_2d", 0),
        "frames_encoded": steps.get("frame_tokens", 0),
        "seconds": seconds(stages),
        "of_all": seconds(stages) / total,
    }


def seconds(stages: dict[str, Any]) -> float:
    """Of all stages together."""
    return float(sum(stage.seconds for stage in stages.values()))


def figures(answers: Sequence[Answered]) -> dict[str, Any]:
    """Medians over questions."""
    return {
        "questions": len(answers),
        "first_token_s": median(answer.first_s for answer in answers),
        "total_s": median(answer.total_s for answer in answers),
        "tokens": int(median(len(answer.tokens) for answer in answers)),
        "decode_tokens_a_second": median(answer.decode_rate for answer in answers),
    }


def median(values: Any) -> float:
    return float(np.median(list(values)))


def frame(frame_id: int, at_s: float) -> ModelFrame:
    """A made-up frame with edges and areas, different for every id."""
    random = np.random.default_rng(frame_id)
    coarse = random.integers(0, 256, (HEIGHT // 32, WIDTH // 32, 3), dtype=np.uint8)
    image = np.kron(coarse, np.ones((32, 32, 1), np.uint8))
    return ModelFrame(frame_id, round(at_s * 1e9), image)
