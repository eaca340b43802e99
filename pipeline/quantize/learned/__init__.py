"""Codes and scales of a language model's weights, learned block by block on calibration texts."""
