"""Data sets: `datasets.py` finds a reader, `encode.py` encodes samples for a model, `samples.py` stores the inputs."""
