"""One small script per candidate, run as `python SCRIPT BASE_URL DATABASE_URL` from the candidate's own environment."""
