"""Hostile bodies, crontabs and configurations, judged a second time by code that shares nothing with the product."""
