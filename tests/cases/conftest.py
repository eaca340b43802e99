"""Models and data as people bring them, each made anew in its test. `edge` runs as in tests/e2e."""

from fixtures import edge, store, workspace  # noqa: F401
