"""The command line as a user runs it: real processes, a tiny model, a store shared by the session's tests."""

from fixtures import edge, second_store, store, tiny, warm_process, workspace  # noqa: F401
