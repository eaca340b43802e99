"""The command line as a user runs it: real processes, a tiny model, a store shared by the session's tests."""

from fixtures import clients, edge, export_once, exported, plain_export, second_store, small, store, tiny, workspace  # noqa: F401
