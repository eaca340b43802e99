"""Scripts that measure the project's published figures. Run with `make bench`; nothing here is a test."""
