"""The metrics that budgets limit, one file per family: figure, meaning, tolerance, explanation. `core/budgets.py` lists
them by name."""
