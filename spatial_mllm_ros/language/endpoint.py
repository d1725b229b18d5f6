"""A language model behind an OpenAI-compatible endpoint (llama_ros, vLLM, Ollama and others) as translator.

The library is openai's, of the extra ``reader``; it is imported when a reader is made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from spatial_mllm_ros.language.translation import (
    BadReply,
    Exchange,
    Translation,
    messages,
    reply_schema,
    translation_of,
)

MAX_TOKENS = 1024
"""Of a reply: three times what the longest example of a query takes."""


class ReaderUnavailable(Exception):
    """The reader cannot be used. ``str()`` says why and what to do."""


class EndpointReader:
    """Translates questions by a chat-completions endpoint.

    url: the API's base, as http://127.0.0.1:8080/v1. model: its name there; '': the first one that it lists. api_key: ''
    where none is needed. timeout_s: of one translation at most. Safe to use from several threads. Raises
    ReaderUnavailable when the library is missing or the URL is none.
    """

    def __init__(self, url: str, *, model: str = "", api_key: str = "", timeout_s: float = 10.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ReaderUnavailable(f"{url!r} is no URL of an endpoint: http://127.0.0.1:8080/v1 would be one")
        try:
            import openai
        except ImportError as error:
            raise ReaderUnavailable(
                "a reader behind an endpoint needs the library openai: pip install 'spatial_mllm_ros[reader]'"
            ) from error
        self._errors: Any = openai
        self._client: Any = openai.OpenAI(base_url=url, api_key=api_key or "none", timeout=timeout_s, max_retries=0)
        self._url, self._model, self._timeout_s = url, model, timeout_s

    @property
    def name(self) -> str:
        """How its readings are marked."""
        return f"{self._model or 'model'} at {self._url}"

    def translate(
        self,
        question: str,
        *,
        points: int,
        boxes: int,
        times: int,
        choices: Sequence[str] = (),
        history: Sequence[Exchange] = (),
        timeout_s: float = math.inf,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Translation:
        """What the question means. Raises ReaderUnavailable when the endpoint fails, is too slow or replies nonsense."""
        deadline = time.monotonic() + min(timeout_s, self._timeout_s)
        chat = messages(question, points=points, boxes=boxes, times=times, choices=choices, history=history)
        reply = self._complete(chat, deadline, cancelled)
        try:
            return translation_of(reply, question, points=points, boxes=boxes, times=times)
        except BadReply as error:
            raise ReaderUnavailable(f"the reader ({self.name}) gave no usable reading: {error}") from error

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def _complete(self, chat: list[dict[str, str]], deadline: float, cancelled: Callable[[], bool]) -> str:
        """The reply. Streamed, so that a server that dribbles is cut off at the deadline and a cancelled one at once."""
        format_ = {"type": "json_schema", "json_schema": {"name": "reading", "schema": reply_schema(), "strict": True}}
        pieces: list[str] = []
        try:
            if not self._model:
                self._model = next(iter(self._client.models.list())).id
            stream = self._client.chat.completions.create(
                model=self._model,
                messages=chat,
                response_format=format_,
                temperature=0,
                max_tokens=MAX_TOKENS,
                stream=True,
                timeout=max(deadline - time.monotonic(), 0.01),
            )
            with stream:
                for chunk in stream:
                    if time.monotonic() > deadline:
                        raise ReaderUnavailable(f"the reader ({self.name}) was too slow")
                    if cancelled():
                        raise ReaderUnavailable("the question was given up")
                    for choice in chunk.choices[:1]:
                        pieces.append(choice.delta.content or "")
                        if choice.finish_reason == "length":
                            raise ReaderUnavailable(f"the reader ({self.name}) did not come to an end")
        except StopIteration:
            raise ReaderUnavailable(f"{self._url} lists no model: name one in reader_model") from None
        except self._errors.APITimeoutError as error:
            raise ReaderUnavailable(f"the reader ({self.name}) was too slow") from error
        except (self._errors.OpenAIError, ValueError, TypeError, AttributeError) as error:
            raise ReaderUnavailable(f"the reader ({self.name}) failed: {error}") from error
        return "".join(pieces)
