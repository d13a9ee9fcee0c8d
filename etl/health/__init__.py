"""How the job is doing, for people and for monitoring: read only."""
