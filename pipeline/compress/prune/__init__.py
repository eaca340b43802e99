"""Structured pruning: neurons, heads, channels, layers, the residual stream, tokens; and how units are scored."""
