"""Geometry from colour, in parts: see ``memory.rgb_geometry``, which puts them together."""
