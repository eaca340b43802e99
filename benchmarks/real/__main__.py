"""`python -m benchmarks.real [NAME ...]`: one model after the other, as one line each."""

from __future__ import annotations

import sys

from benchmarks.real.models import MODELS
from benchmarks.real.run import result

if __name__ == "__main__":
    for name in sys.argv[1:] or list(MODELS):
        print(result(name).line(), flush=True)
