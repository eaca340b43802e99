"""Removing whole blocks: stacks of them, and which ones matter least."""
