"""Mirrors `serving.tuning`."""
