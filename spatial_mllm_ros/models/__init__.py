"""The models: VGGT, Spatial-MLLM and plain video-language models, their checkpoints, and how they are served.

Importing this package, ``interface`` or ``process`` loads neither torch nor transformers.
"""
