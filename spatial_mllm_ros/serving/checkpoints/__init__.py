"""Checkpoints on the hub and on disk."""
