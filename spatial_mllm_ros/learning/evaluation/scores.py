"""Scores of numbers, as suites compute them."""

from __future__ import annotations

import numpy as np


def mra(told: float, truth: float) -> float:
    """Mean relative accuracy of VSI-Bench (arXiv 2412.14171): the share of the confidences 0.5, 0.55 ... 0.95 for which
    the relative error is **at most** one minus the confidence; in double precision, as in its suite in lmms-eval.

    A truth of zero, on which that divides by zero, is met by zero alone.
    """
    if truth == 0:
        return float(told == 0)
    return float(np.mean(abs(told - truth) / truth <= 1 - np.linspace(0.5, 0.95, 10)))


def strict_mra(told: float, truth: float) -> float:
    """The same with an error **below** one minus the confidence, in single precision, as Spatial-MLLM computes it."""
    p, t = np.float32(told), np.float32(truth)
    error = np.abs(p - t) / (np.abs(t) + np.float32(1e-8))
    confidence = (0.5 + 0.05 * np.arange(10)).astype(np.float32)
    return float(np.mean((error < np.float32(1) - confidence).astype(np.float32)))


def signed_mra(told: float, truth: float) -> float:
    """SPAR-Bench's: of the error's size also for a negative truth; of the error itself where the truth is zero."""
    error = abs(told - truth) if truth == 0 else abs((told - truth) / truth)
    return float(np.mean(error <= 1 - np.linspace(0.5, 0.95, 10)))
