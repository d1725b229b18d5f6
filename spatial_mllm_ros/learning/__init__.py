"""Data engines and benchmarks: from one's own recordings to questions, and from answers to scores."""
