"""A small bundle that is whole."""

from small_bundle import bundle  # noqa: F401
