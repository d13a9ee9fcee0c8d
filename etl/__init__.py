"""Loads the outgoing-call numbers of MegaFon's virtual PBX into a relational database."""

__version__ = "0.1.0"
