"""``spatial-mllm bench query``: what a question to a model costs, as published, from scratch, and from a warm context.

In the published way every question encodes all frames and prefills everything, and transformers' ``generate`` writes with
its own cache. Cold is this package's way with nothing encoded before; warm is with the context ready.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import StoppingCriteria

from spatial_mllm_ros.models import precision as precisions
from spatial_mllm_ros.models.encoder import VideoEncoder
from spatial_mllm_ros.models.engine import ModelEngine
from spatial_mllm_ros.models.interface import ModelFrame, ModelOptions, ModelQuestion
from spatial_mllm_ros.models.loading import load_model
from spatial_mllm_ros.models.processing import FrameFormat, frame_format, video_inputs
from spatial_mllm_ros.models.prompts import Prompts
from spatial_mllm_ros.models.random_weights import SIZES, build_random_model, make_config, make_tokenizer

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
VGGT: dict[str, Any] = {"vggt_layers": 2, "vggt_dim": 128, "vggt_heads": 2, "dino_layers": 4, "vision_layers": 4}
"""Sizes of the encoders: small enough for a CPU, where attention across all frames would take minutes otherwise."""


@dataclass(frozen=True)
class Subject:
    """The model that is measured, and what it needs."""

    model: Any
    encoder: VideoEncoder
    prompts: Prompts
    how: FrameFormat
    options: ModelOptions
    random: bool

    def engine(self) -> ModelEngine:
        return ModelEngine(self.encoder, self.options)


def subject_of(options: ModelOptions) -> Subject:
    """A checkpoint. Raises ModelUnavailable."""
    loaded = load_model(options)
    encoder = VideoEncoder(loaded.model, loaded.tokenizer, loaded.prompts, loaded.format, loaded.model_id, options)
    return Subject(loaded.model, encoder, loaded.prompts, loaded.format, options, loaded.random_weights)


def random_subject(layers: int, hidden: int, options: ModelOptions, *, full: bool = False) -> Subject:
    """A Spatial-MLLM that nobody trained. full: of the size of the published ones; layers and hidden do not count then.

    options.model does not count. Raises ModelUnavailable for a device or a precision that does not work here.
    """
    device = precisions.choose_device(options.device)
    precision = precisions.choose_precision(options.precision, device)
    tokenizer = make_tokenizer()
    heads = max(hidden // 64, 2)
    size = replace(
        SIZES["small"],
        layers=layers,
        hidden=hidden,
        attention_heads=heads,
        kv_heads=heads // 6 if heads % 6 == 0 else 1,
        intermediate=hidden * 8 // 3 // 64 * 64,
        **VGGT,
    )
    config = make_config(SIZES["full"] if full else size, tokenizer)
    model = build_random_model(config, precisions.base_dtype(precision), device)
    if precision in precisions.QUANTISED:
        precisions.quantise(model, precision, device)
    model.generation_config.eos_token_id = None  # where an answer ends is chance: all are equally long
    how, prompts = frame_format("spatial-mllm", options), Prompts(tokenizer, "spatial-mllm")
    encoder = VideoEncoder(model, tokenizer, prompts, how, f"random weights {precision} {device.type}", options)
    encoder.end_ids = ()
    return Subject(model, encoder, prompts, how, options, random=True)


def run(
    subject: Subject, frames: int = 16, questions: int = 3, progress: Progress = lambda what, done, total: None
) -> dict[str, Any]:
    """Ask the same questions about the same frames in the three ways, then change frames."""
    if subject.options.threads:
        torch.set_num_threads(subject.options.threads)
    seen = [frame(i, i) for i in range(frames)]
    asked = [ModelQuestion(QUESTIONS[i % len(QUESTIONS)]) for i in range(questions)]
    runs: dict[str, list[Answered]] = {"published": [], "cold": [], "warm": []}
    progress("warming up", 0, None)
    published(subject, asked[0], seen[:2])
    engine = subject.engine()
    progress("encoding the context", 0, None)
    whole = update(engine, seen)
    ours(engine, asked[0])
    for i, question in enumerate(asked):  # by turns, so that whatever else the machine does hits all alike
        progress("asking as published", 3 * i, 3 * questions)
        runs["published"].append(published(subject, question, seen))
        progress("asking cold", 3 * i + 1, 3 * questions)
        runs["cold"].append(ours(subject.engine(), question, seen))
        progress("asking warm", 3 * i + 2, 3 * questions)
        runs["warm"].append(ours(engine, question))
    tokens = {way: [answer.tokens for answer in answers] for way, answers in runs.items()}
    first = {way: median(answer.first_s for answer in answers) for way, answers in runs.items()}
    status = engine.status()
    changes = changed(engine, seen, whole, progress)
    size = subject.how.size([(HEIGHT, WIDTH)])
    exact = subject.model.dtype == torch.float32
    return {
        "model": {
            "id": status.model_id,
            "weights": "random: what it says means nothing" if subject.random else "of the checkpoint",
            "weights_mib": status.memory["weights"] / MIB,
            "threads": torch.get_num_threads(),
        },
        "frames": frames,
        "frame_size": f"{size[1]}x{size[0]}",
        "video_tokens": subject.how.tokens(frames, size),
        "question_tokens": int(median(len(subject.encoder.question(question).ids) for question in asked)),
        "questions": [{"way": way, **figures(answers)} for way, answers in runs.items()],
        "first_token_published_to_warm": first["published"] / first["warm"],
        "first_token_cold_to_warm": first["cold"] / first["warm"],
        # In other precisions whole-video and pairwise encoding round differently; warm and cold never do.
        "identical_tokens": tokens["warm"] == tokens["cold"] == (tokens["published"] if exact else tokens["cold"]),
        "warm_tokens_are_those_of_cold": tokens["warm"] == tokens["cold"],
        "warm_tokens_are_published": tokens["warm"] == tokens["published"],
        "changes_of_frames": changes,
        "seconds_of_the_whole_update": {name: stage.seconds for name, stage in whole.items()},
        "decode_tokens_a_second_limit": decode_limit(subject),
        "memory_mib": {name: nbytes / MIB for name, nbytes in status.memory.items()},
    }


@dataclass(frozen=True)
class Answered:
    """A question's cost: seconds to the first token and altogether. tokens: what was said."""

    first_s: float
    total_s: float
    tokens: tuple[int, ...]

    @property
    def decode_rate(self) -> float:
        """Tokens a second, after the first."""
        return (len(self.tokens) - 1) / (self.total_s - self.first_s) if len(self.tokens) > 1 else 0.0


def ours(engine: ModelEngine, question: ModelQuestion, frames: Sequence[ModelFrame] | None = None) -> Answered:
    """By the engine: about the warm context, or about frames."""
    start = time.perf_counter()
    answer = engine.answer(question, frames)
    return Answered(answer.first_token_ns / 1e9, time.perf_counter() - start, answer.token_ids)


def published(subject: Subject, question: ModelQuestion, frames: Sequence[ModelFrame]) -> Answered:
    """As the published script does it, but greedily: everything anew, transformers' ``generate`` with its own cache."""
    start = time.perf_counter()
    model, device = subject.model, subject.model.device
    inputs: dict[str, Any] = dict(video_inputs(frames, subject.how))
    size = subject.how.size([frame.image.shape[:2] for frame in frames])
    prefix = subject.prompts.prefix(subject.how, [frame.stamp_ns for frame in frames], size)
    ids = torch.tensor([[*prefix, *subject.prompts.question(question).ids]], device=device)
    if subject.how.family.startswith("qwen"):
        inputs["mm_token_type_ids"] = 2 * (ids == subject.prompts.pad_id).int()
    first = FirstToken(device)
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **{name: value.to(device) for name, value in inputs.items()},
            do_sample=False,
            max_new_tokens=subject.options.max_new_tokens,
            stopping_criteria=[first],
            pad_token_id=0,
        )
        said = tuple(output[0, ids.shape[1] :].tolist())
    return Answered(first.at - start, time.perf_counter() - start, said)


class FirstToken(StoppingCriteria):
    """Notes when ``generate`` has its first token."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.at = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        if not self.at:
            input_ids[0, -1].item()  # waits for a device that is behind
            self.at = time.perf_counter()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def update(engine: ModelEngine, frames: Sequence[ModelFrame]) -> dict[str, Any]:
    """Encode a context; its stages."""
    engine.set_context(frames)
    while engine.step():
        pass
    if engine.status().reason:
        raise RuntimeError(engine.status().reason)
    return engine.last_update


def changed(
    engine: ModelEngine, seen: Sequence[ModelFrame], whole: dict[str, Any], progress: Progress
) -> list[dict[str, Any]]:
    """One frame of the context replaced, and what encoding it again costs; each change follows the one before.

    A frame that leaves or comes at an odd place shifts the pairs after it. Two frames that follow each other are a pair in
    at most one other way than before, so pairs shifted back are still there.
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


def decode_limit(subject: Subject) -> float:
    """Tokens a second if reading the language model's weights from memory, once a token, were all there is to do."""
    language_model = subject.model.model.language_model
    weights = precisions.n_bytes(torch.nn.ModuleList([language_model.layers, subject.model.lm_head]))
    source = torch.ones(64 * MIB, dtype=torch.float32, device=subject.model.device)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        float(source.sum())
        times.append(time.perf_counter() - start)
    return source.nbytes / min(times) / weights


def median(values: Any) -> float:
    return float(np.median(list(values)))


def frame(frame_id: int, at_s: float) -> ModelFrame:
    """A made-up frame with edges and areas, different for every id."""
    random = np.random.default_rng(frame_id)
    coarse = random.integers(0, 256, (HEIGHT // 32, WIDTH // 32, 3), dtype=np.uint8)
    image = np.kron(coarse, np.ones((32, 32, 1), np.uint8))
    return ModelFrame(frame_id, round(at_s * 1e9), image)
