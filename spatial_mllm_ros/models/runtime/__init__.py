"""Running an exported encoder: providers, engines kept on disk, sessions, and the gate that compares them with torch."""
