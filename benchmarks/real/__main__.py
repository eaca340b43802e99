"""`python -m benchmarks.real [NAME ...]`: one model after the other, as one line each. The rows of each are written as
soon as it is measured, those of all at the end of a run without names."""

from __future__ import annotations

import sys

from benchmarks.real import rows
from benchmarks.real.models import MODELS
from benchmarks.real.run import result
from benchmarks.run import publish

if __name__ == "__main__":
    for name in sys.argv[1:] or list(MODELS):
        print(result(name).line(), flush=True)
        if result(name).peer is not None and MODELS[name].compared:
            publish(rows.of_model(name))
    if not sys.argv[1:]:
        publish(rows.OF_ALL)
