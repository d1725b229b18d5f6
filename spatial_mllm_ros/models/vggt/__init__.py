"""VGGT, the spatial encoder: frames to geometry-aware tokens, cameras, depth and points (arXiv 2503.11651).

``config`` needs no torch; the modules do.
"""
