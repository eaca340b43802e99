"""The `edge` command: flags, progress, results. The work is done by `pipeline.api`."""

import sys

if sys.platform == "win32":  # its file locks and processes are others; told before an import fails on them
    sys.stderr.write(
        "error: edge runs on Linux and macOS, not on Windows itself.\n"
        "  Use it in WSL; the bundles that it makes load on Windows.\n"
    )
    sys.exit(2)
