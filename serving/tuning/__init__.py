"""Tuning: a search over engine arguments on the hardware at hand, and what it found."""
