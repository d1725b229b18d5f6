"""Readers of the layouts in which people keep recordings, one small file each, on one base."""
