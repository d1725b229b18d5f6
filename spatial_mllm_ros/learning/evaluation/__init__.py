"""Benchmarks from local copies: questions in, scores as published out."""
