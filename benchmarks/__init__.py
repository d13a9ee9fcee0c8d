"""Whole-process comparison of this job with its peers; `python -m benchmarks.run --help` says how to repeat it."""
