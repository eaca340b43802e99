"""The work of the `low_rank` pass: which layers, what their inputs look like, which ranks, and their factors."""
