"""Stage functions that tests, also in other processes, name as `stage_functions:...`."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import numpy as np

from pipeline.core.paths import link
from pipeline.core.stage import StageContext


def write(context: StageContext) -> dict[str, object]:
    """Writes its text, and leaves a mark for each time it really ran. With a `gate`, a named pipe, it goes on once
    somebody opens that for writing."""
    (context.out / "text.txt").write_text(context.config["text"])
    if "marks" in context.config:
        descriptor = os.open(context.config["marks"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, b"ran\n")
        os.close(descriptor)
    if "gate" in context.config:
        Path(context.config["gate"]).read_bytes()
    return {"length": len(context.config["text"])}


def linked(context: StageContext) -> dict[str, object]:
    """Has a file under a second name, and says what its digest is."""
    link(Path(context.config["file"]), context.out / "linked")
    context.digests["linked"] = context.config["digest"]
    return {}


def copy(context: StageContext) -> dict[str, object]:
    (context.out / "copy.txt").write_bytes(context.inputs["source"].file("text.txt").read_bytes())
    return {}


def write_then_wait(context: StageContext) -> dict[str, object]:
    (context.out / "half.txt").write_text("half")
    print("ready", flush=True)  # noqa: T201  # the test reads it
    signal.pause()
    return {}


def fail(context: StageContext) -> dict[str, object]:
    (context.out / "half.txt").write_text("half")
    raise ValueError("no")


def full_disk(context: StageContext) -> dict[str, object]:
    raise OSError(errno.ENOSPC, "No space left on device")


def hungry(context: StageContext) -> dict[str, object]:
    return {"bytes": np.ones(10**13, np.uint8).nbytes}


def torch_like(context: StageContext) -> dict[str, object]:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
