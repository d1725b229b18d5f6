"""The data engine of Multi-SpatialMLLM (arXiv 2505.17015) on any recording with depth and poses."""
