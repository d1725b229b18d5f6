"""The spatial encoder on ONNX Runtime."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Generator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from spatial_mllm_ros.models.onnx.seams import SEAM
from spatial_mllm_ros.models.onnx.sessions import OnProgress, Profile, Sessions, load_sessions, run_error
from spatial_mllm_ros.models.vggt.config import PATCH_START
from spatial_mllm_ros.models.vggt.dinov2 import patch_grid
from spatial_mllm_ros.models.vggt.spatial_encoder import finish
from spatial_mllm_ros.serving.onnx_file import Description

log = logging.getLogger(__name__)
STEP_S = 0.02
"""What runs in the background is looked at this often."""


class OnnxEncoder:
    """An exported encoder, on the first provider that works. A ``spatial_encoder.SpatialEncoder``.

    Frames go through the first part one at a time, as with torch, so that their tokens can be kept. Inputs and outputs
    are bound where they are, without copies; results are float32 on the device of the input.
    """

    def __init__(self, sessions: Sessions) -> None:
        """Use ``load``."""
        self.description: Description = sessions.description
        self.provider = sessions.provider
        self._sessions = sessions
        self._locks = {part: threading.Lock() for part in sessions.by_part}
        self._tables: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        on_gpu = self.provider != "cpu" and torch.cuda.is_available()
        self.device = torch.device("cuda" if on_gpu else "cpu")
        """Where inputs and outputs are bound; with a torch that has no CUDA, ONNX Runtime copies them itself."""

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        providers: str | Sequence[str] = "auto",
        cache: str | os.PathLike[str] | None = None,
        profile: Profile | None = None,
        threads: int = 0,
        progress: OnProgress = lambda what, done, total: None,
    ) -> OnnxEncoder:
        """Load an exported file, and build its engine first unless it is kept from before; see ``load_sessions``.

        threads: of the CPU provider; 0: as many as torch uses. Raises ExportError with the reason and what to do.
        """
        encoder = cls(
            load_sessions(
                path,
                "encoder",
                providers=providers,
                cache=cache,
                profile=profile,
                threads=threads or torch.get_num_threads(),
                progress=progress,
            )
        )
        log.info("the spatial encoder runs on %s", encoder.name)
        return encoder

    @property
    def name(self) -> str:
        """For people, logs and ``model_id``: runtime, provider and precision."""
        return self._sessions.name

    @property
    def patch_size(self) -> int:
        return self.description.patch_size

    @property
    def embed_dim(self) -> int:
        """Channels of a frame's token; spatial tokens have twice as many."""
        return self.description.embed_dim

    def frame_tokens(self, frames: Tensor) -> Tensor:
        """See SpatialEncoder."""
        if frames.ndim != 4 or frames.shape[0] == 0 or frames.shape[1] != 3:
            raise ValueError(f"frames must be [T, 3, height, width] with T at least 1, not {list(frames.shape)}")
        size = (int(frames.shape[2]), int(frames.shape[3]))
        rows, columns = patch_grid(size, self.patch_size)
        out = torch.empty(len(frames), rows * columns, self.embed_dim, device=self.device)
        for frame, tokens in zip(frames, out, strict=True):
            self._tables[size] = self._run_frame(frame, tokens, PATCH_START + rows * columns)
        return out.to(frames.device)

    def relate_steps(self, frame_tokens: Tensor, image_size: tuple[int, int]) -> Generator[None, None, Tensor]:
        """See SpatialEncoder. ONNX Runtime does not pause within a graph, so it runs in a thread of its own, and a step
        looks whether it is done; a generator that is closed before ends it."""
        rows, columns = patch_grid(image_size, self.patch_size)
        if frame_tokens.ndim != 3 or frame_tokens.shape[0] == 0 or frame_tokens.shape[1] != rows * columns:
            raise ValueError(
                f"frame tokens {list(frame_tokens.shape)} are not [T, {rows * columns}, channels], "
                f"as frames of {image_size[1]}x{image_size[0]} px have them"
            )
        if image_size not in self._tables:  # the tokens were kept from another run
            blank = torch.zeros(3, *image_size)
            self._tables[image_size] = self._run_frame(
                blank, torch.empty(rows * columns, self.embed_dim, device=self.device), PATCH_START + rows * columns
            )
        cosine, sine = self._tables[image_size]
        out = torch.empty(1, len(frame_tokens), rows * columns, 2 * self.embed_dim, device=self.device)
        inputs = dict(zip(SEAM, (frame_tokens, cosine, sine), strict=True))
        run = _Run(self, "relate", inputs, {"spatial_tokens": out})
        run.start()
        try:
            while not run.done.wait(STEP_S):
                yield
        finally:
            run.end()
        run.check()
        return out[0].to(frame_tokens.device)

    def encode(self, frames: Tensor) -> Tensor:
        """See SpatialEncoder."""
        return finish(self.relate_steps(self.frame_tokens(frames), (int(frames.shape[2]), int(frames.shape[3]))))

    def _run_frame(self, frame: Tensor, tokens: Tensor, length: int) -> tuple[Tensor, Tensor]:
        half = self.embed_dim // int(self.description.config["num_heads"]) // 2
        cosine, sine = (torch.empty(length, half, device=self.device) for _ in range(2))
        outputs = dict(zip(SEAM, (tokens[None], cosine, sine), strict=True))
        run = _Run(self, "frames", {"frames": frame[None, None]}, outputs)
        run.run()
        run.check()
        return cosine, sine


class _Run(threading.Thread):
    """A part of an encoder at work on inputs and outputs, which stay where they are until it has ended.

    Either ``run`` it here, or ``start`` it in a thread. Runs of one part come one after the other.
    """

    def __init__(
        self, encoder: OnnxEncoder, part: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
    ) -> None:
        super().__init__(name=f"onnxruntime-{part}", daemon=True)
        self.done = threading.Event()
        self._error: Exception | None = None
        self._session, self._lock = encoder._sessions.by_part[part], encoder._locks[part]
        self._options = encoder._sessions.run_options()
        self._ended = False
        self._binding = self._session.io_binding()
        place = {"device": encoder.device, "dtype": torch.float32}
        self._inputs = {key: value.to(**place).contiguous() for key, value in inputs.items()}
        self._outputs = outputs
        for bind, tensors in ((self._binding.bind_input, self._inputs), (self._binding.bind_output, outputs)):
            for key, value in tensors.items():
                bind(key, encoder.device.type, 0, np.float32, list(value.shape), value.data_ptr())
        if encoder.device.type == "cuda":  # ONNX Runtime computes in a stream of its own
            torch.cuda.current_stream().synchronize()

    def run(self) -> None:
        try:
            while not self._lock.acquire(timeout=STEP_S):
                if self._ended:
                    return
            try:
                self._session.run_with_iobinding(self._binding, self._options)
            finally:
                self._lock.release()
        except Exception as error:  # noqa: BLE001 - raised by ``check``
            self._error = error
        finally:
            self.done.set()

    def end(self) -> None:
        """Returns when it has ended; what has not, is told to, which takes as long as the operation that it is at."""
        if not self.done.is_set():
            self._ended = True
            self._options.terminate = True
        self.join()

    def check(self) -> None:
        """Raise what went wrong. Once: errors hold on to the frames that they passed, and these to tensors."""
        error, self._error = self._error, None
        if error is not None:
            raise run_error(error, {key: value.shape for key, value in self._inputs.items()}) from error
