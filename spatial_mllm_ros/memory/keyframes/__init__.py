"""Space-aware frame selection: the published offline algorithm and the streaming selector."""
