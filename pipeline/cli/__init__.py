"""The `edge` command: flags, progress, results. The work is done by `pipeline.api`."""
