"""Geometry from color images alone, in parts: ``rgb_geometry`` puts them together."""
