"""A recording of its own: furnished rooms, rendered with exact depth, poses and objects."""
