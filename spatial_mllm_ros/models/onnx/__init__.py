"""Exported encoders: writing them, and running them on ONNX Runtime."""
