"""The commands of ``spatial-mllm``, one module each."""
