"""Answers from measured depth, camera models and poses: one handler a question family."""
