"""`python -m pipeline` is the `edge` command."""

import sys

from pipeline.cli.main import entry

if __name__ == "__main__":
    sys.exit(entry())
