"""Importance scores: which units of a layer matter least."""
