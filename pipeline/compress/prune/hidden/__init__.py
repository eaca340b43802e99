"""A narrower residual stream: where it runs, and which of its features matter least."""
