"""One self-contained HTML page about a recording: what was kept of it, where, and what was answered."""
