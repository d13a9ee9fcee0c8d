"""Read what is live, apply changes with their history, and keep the log of runs."""
