"""Tell people and programs what happened: logs, progress, and changes read back from the timelines."""
