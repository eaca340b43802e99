"""Data sets: `datasets.py` finds a reader, `prepare.py` encodes samples for a model, `samples.py` stores the inputs."""
