"""What a model is to those who ask it: frames and a question in, words with their probabilities out. No torch here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_ros.scene.window import WindowGeometry

PRECISIONS = ("auto", "float32", "bfloat16", "int8", "int4")
ATTENTIONS = ("auto", "eager", "sdpa", "flash")
ENCODER_RUNTIMES = ("torch", "onnx", "auto")


class ModelError(Exception):
    """The model failed at a question. ``str()`` says how, and what to do."""


class ModelUnavailable(ModelError):
    """The model cannot be loaded, or is gone. ``str()`` says why, and what to do."""


class ModelBusy(ModelError):
    """Too many questions wait for the model already."""


class ModelCancelled(ModelError):
    """The caller gave the question up."""


class ModelTimeout(ModelError):
    """The time limit passed before the answer was complete."""


@dataclass(frozen=True)
class ModelOptions:
    """How a model is loaded and run.

    model: folder of a checkpoint, or its id on the hub when it was downloaded. precision: of the weights; int8 and int4
    are weight-only; auto is bfloat16 where the device computes in it, else float32. device: auto, cpu, cuda or cuda:N.
    attention: implementation of attention; auto is the fastest that is installed and passes the parity check.
    min_pixels, max_pixels: budget of a frame after resizing; the defaults are those of training. video_fps: frames per
    second that the positions of the video tokens assume, as in training. max_new_tokens: bound of an answer.
    cache_mib: bound of all caches of encoded frames together. max_context_frames: bound of a context. threads: of the CPU
    that the model computes with; 0 is all but one, which is left to the node.
    encoder_runtime: of the spatial encoder: torch; onnx, an exported file that must say what torch says, or the model is
    not loaded; auto, the same, but torch with a warning where it does not. encoder_file: the exported file.
    encoder_providers: of ONNX Runtime, by preference, or auto. encoder_engine_folder: where its engines are kept; '' is the
    user's cache.
    """

    model: str
    precision: str = "auto"
    device: str = "auto"
    attention: str = "auto"
    min_pixels: int = 293_216
    max_pixels: int = 324_576
    video_fps: float = 4.0
    max_new_tokens: int = 128
    cache_mib: int = 1024
    max_context_frames: int = 32
    threads: int = 0
    encoder_runtime: str = "torch"
    encoder_file: str = ""
    encoder_providers: str = "auto"
    encoder_engine_folder: str = ""


@dataclass(frozen=True, eq=False)
class ModelFrame:
    """A frame for a model. image: uint8 RGB [height, width, 3]. The same frame_id always names the same image."""

    frame_id: int
    stamp_ns: int
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class ModelQuestion:
    """A question in words, and the options it is to choose from, if any.

    schema: a JSON Schema that the answer is held to, for what is asked of the language model alone: it needs no frames and
    is shown none. chat: the (role, content) of a system message and whatever else comes before ``text`` then.
    """

    text: str
    choices: tuple[str, ...] = ()
    schema: str = ""
    chat: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Generated:
    """What a model said.

    text: the words, without special tokens; with choices, the option chosen. token_ids: all tokens generated, the end
    token included. token_probabilities: of each, given those before it (the whole vocabulary, no temperature).
    choice_probabilities: of each option given that it is one of them; () without choices. complete: ended by itself, not
    by max_new_tokens. frame_ids: the frames of the context that answered, in time order. context: "warm" when the
    prefix was ready when the question came, "updated" when it had to wait for it, "cold" for a context of its own.
    encoding_ns: time spent on encoding and prefilling frames for this question (0 when warm). first_token_ns: from the
    question's turn to its first token. generating_ns: from its turn to the end, without encoding.
    """

    text: str
    token_ids: tuple[int, ...]
    token_probabilities: tuple[float, ...]
    choice_probabilities: tuple[float, ...]
    complete: bool
    frame_ids: tuple[int, ...]
    context: str
    encoding_ns: int
    first_token_ns: int
    generating_ns: int


@dataclass(frozen=True)
class ModelStatus:
    """How a model fares. Bytes by name: ``weights`` and every cache; device memory where there is a device of its own.

    state: loading, ready, updating (encodes a context), answering, restarting or failed. reason: why it failed or
    restarts. context_frames: frames of the last complete context. pending: whether a newer one is being made.
    """

    state: str = "loading"
    reason: str = ""
    model_id: str = ""
    memory: dict[str, int] = field(default_factory=dict)
    context_frames: tuple[int, ...] = ()
    pending: bool = False
    waiting: int = 0
    answered: int = 0
    failed: int = 0
    updates: int = 0
    update_s: float = math.nan
    """Time that the last update of the context took."""


class SpatialModel(Protocol):
    """A loaded model. Safe to use from several threads; one question is answered at a time."""

    @property
    def model_id(self) -> str:
        """The checkpoint, its precision and the runtime, for example "Spatial-MLLM-v1.1-Instruct-135K bfloat16 cuda"."""

    def set_context(self, frames: Sequence[ModelFrame]) -> None:
        """Encode these frames in the background, in time order; questions without frames of their own are about them.

        Never waits. A newer call replaces one that has not been worked off. No frames: the context is forgotten at once.
        """

    def ask(
        self,
        question: ModelQuestion,
        frames: Sequence[ModelFrame] | None = None,
        *,
        timeout_s: float = math.inf,
        cancelled: Callable[[], bool] = lambda: False,
        on_text: Callable[[str], None] | None = None,
        wait_for_context: bool = False,
    ) -> Generated:
        """Answer a question about the context, or about ``frames`` alone.

        wait_for_context: the newest context, even if it is still being encoded; else the last complete one (and only the
        very first is waited for). on_text: called with each further piece of the answer's text.
        Raises ModelError, ModelUnavailable, ModelCancelled or ModelTimeout; ValueError without any frames.
        """

    def status(self) -> ModelStatus:
        """Never waits for the model."""

    def close(self) -> None:
        """Free everything; questions that run or wait raise ModelCancelled."""


class GeometryPredictor(Protocol):
    """A network, or a stand-in, that sees a few overlapping images at once."""

    @property
    def name(self) -> str:
        """What people call it, with its weights where that matters."""
        ...

    def predict(self, images: NDArray[np.uint8]) -> WindowGeometry:
        """Geometry of RGB images [T, H, W, 3], in a frame and unit of its own choice. T may be 1.

        Raises InvalidWindow when what comes out is no geometry. Called from one thread at a time.
        """
        ...
