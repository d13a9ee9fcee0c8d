"""Faults injected on real databases over real sockets, and what must be left after each."""
