"""Spatial-MLLM and plain video-language models."""
