"""What talks to a model: its interface, child processes, files and downloads. Never torch."""
