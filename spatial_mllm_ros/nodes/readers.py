"""What reads questions in words, by the node's settings."""

from __future__ import annotations

import os
from pathlib import Path

from spatial_mllm_ros.answering.checkpoint_reader import CheckpointReader
from spatial_mllm_ros.language.conversation import ConversationReader
from spatial_mllm_ros.language.endpoint import EndpointReader, ReaderUnavailable
from spatial_mllm_ros.language.own_words import OwnWords, OwnWordsError, load_own_words
from spatial_mllm_ros.nodes.model import ConfigurationError
from spatial_mllm_ros.nodes.parameters import Settings
from spatial_mllm_ros.serving.interface import SpatialModel

API_KEY = "SPATIAL_MLLM_READER_API_KEY"
"""The environment variable with the key of an endpoint; a parameter could be read by everybody on the graph."""


def make_reader(settings: Settings, model: SpatialModel | None) -> ConversationReader:
    """The reader that ``settings`` name; model: the one that is loaded. Raises ConfigurationError."""
    try:
        own_words = load_own_words(Path(settings.own_words).expanduser()) if settings.own_words else OwnWords()
    except (OSError, OwnWordsError) as error:
        raise ConfigurationError(f"own_words cannot be used: {error}") from error
    if settings.reader == "grammar":
        return ConversationReader(own_words=own_words)
    if settings.reader != "model":
        try:
            return ConversationReader(
                EndpointReader(
                    settings.reader,
                    model=settings.reader_model,
                    api_key=os.environ.get(API_KEY, ""),
                    timeout_s=settings.reader_timeout_s,
                ),
                own_words,
            )
        except ReaderUnavailable as error:
            raise ConfigurationError(f"reader cannot be used: {error}") from error
    if model is None:
        raise ConfigurationError("reader is model, but there is none: name a checkpoint in the parameter model")
    if settings.allow_random_weights:
        raise ConfigurationError(
            "reader is model, but allow_random_weights is set: a checkpoint that nobody trained would put questions that "
            "nobody asked"
        )
    return ConversationReader(CheckpointReader(model), own_words)
