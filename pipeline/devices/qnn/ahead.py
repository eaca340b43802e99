"""The program that compiles a graph ahead of time, in a process of its own, as `devices/worker.py` measures."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import onnxruntime as ort

from pipeline.devices.worker import ORT_ERRORS, Refusal, Request, add_plugin, cannot, in_process, main, session_options

_NO_RANDOM_ADDRESSES = 0x0040000  # ADDR_NO_RANDOMIZE of sys/personality.h


@dataclass(frozen=True, kw_only=True)
class Compile(Request):
    """Have the only subject's plug-in compile its model ahead of time, to `output`, a graph whose EPContext nodes hold
    what it made. `placed`: this process's addresses are the same each time already."""

    mode: ClassVar[str] = "compile"
    program: ClassVar[str] = __file__
    output: str
    placed: bool = False


def compile_ahead(request: Compile) -> dict[str, Any]:
    """`placed`: whether addresses were the same as each time. A compiler that writes memory as it finds it (QNN's)
    gives the same bytes then alone, so that a process without random addresses does the work, where the system lets
    one be."""
    if not request.placed and sys.platform == "linux":
        placed = ctypes.CDLL(None).personality(_NO_RANDOM_ADDRESSES) != -1
        if placed:
            return in_process({"mode": request.mode, **asdict(request), "placed": True}, __file__)
    (subject,) = request.subjects
    options = session_options(subject.threads, subject.config)
    if subject.plugin is not None:
        add_plugin(options, subject.plugin)
    model, out = Path(subject.model).absolute(), Path(request.output).absolute()
    os.chdir(model.parent)  # the names of the compiled parts are hashes of the path that is given
    level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # folds constants, which loading does: parts lose no input then
    try:
        compiler = ort.ModelCompiler(
            options, model.name, embed_compiled_data_into_model=True, graph_optimization_level=level
        )
        compiler.compile_to_file(str(out))
    except ORT_ERRORS as error:
        raise Refusal("refused", cannot(f"compile {model.name}", error)) from error
    return {"placed": request.placed}


if __name__ == "__main__":
    sys.exit(main({Compile.mode: (Compile, compile_ahead)}))
