"""`edge` in processes that are forked from one which has imported the libraries and traced a model: half of what an
export of a tiny model takes. Started as a program, this file is that process."""

from __future__ import annotations

import gc
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

IMPORTED = (
    "pipeline.cli.main",
    "pipeline.comparison.compare",
    "pipeline.compress.low_rank.run",
    "pipeline.compress.save_pretrained",
    "pipeline.compress.training.loop",
    "pipeline.quantize.quantize",
    "pipeline.quantize.write",
    "pipeline.trace.import_onnx",
    "pipeline.trace.to_onnx",
    "pipeline.report.publish",
    "scipy.stats",
    "transformers.models.bert.modeling_bert",
)


_TRACED = "traced"


class WarmProcess:
    """Runs commands one after the other, each in a process of its own."""

    def __init__(self, environment: Mapping[str, str], traced: bool = False) -> None:
        """`traced`: it pays where several commands trace models."""
        command = [sys.executable, __file__, *([_TRACED] if traced else [])]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(environment), text=True
        )

    def run(
        self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float, scratch: Path
    ) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run` would return of `edge` with its output captured."""
        assert self._server.stdin is not None  # a pipe
        assert self._server.stdout is not None
        files = [scratch / name for name in ("stdout", "stderr")]
        job = {"arguments": arguments, "cwd": str(cwd), "env": dict(env), "files": [str(file) for file in files]}
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        if not select.select([self._server.stdout], [], [], timeout)[0]:
            self.close()
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        code = int(self._server.stdout.readline())
        return subprocess.CompletedProcess(["edge", *arguments], code, *(file.read_text("utf-8") for file in files))

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()


def serve() -> None:
    """Fork for each line of standard input; answer with the exit code, negative for a signal."""
    for name in IMPORTED:
        import_module(name)
    if _TRACED in sys.argv:
        trace_once()
    gc.freeze()  # the forked processes share what is here: collecting would copy it
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = work(json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # an interpreter that shuts down touches all that is shared, which copies it
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def trace_once() -> None:
    """The first trace loads what imports do not: decompositions, signatures of operators, rewrite rules."""
    import torch  # noqa: PLC0415  # only the server waits for it, not each test that imports WarmProcess
    from transformers import BertConfig, BertModel  # noqa: PLC0415

    from pipeline.core.silence import silence_output  # noqa: PLC0415
    from pipeline.trace.to_onnx import trace  # noqa: PLC0415

    config = BertConfig(vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4)
    with silence_output(), torch.random.fork_rng(devices=[]):  # the forked processes draw as fresh ones do
        ids = torch.ones(2, 8, dtype=torch.int64)
        trace(BertModel(config).eval(), {"input_ids": ids, "attention_mask": ids}, 23)


def work(job: dict[str, object]) -> int:
    """The forked process becomes that of one command."""
    streams = [os.open(os.devnull, os.O_RDONLY)]
    streams += [os.open(str(file), os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for file in job["files"]]  # type: ignore[attr-defined]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(str(job["cwd"]))
    os.environ.clear()
    os.environ.update(job["env"])  # type: ignore[call-overload]
    sys.argv = ["edge", *job["arguments"]]  # type: ignore[misc]
    from pipeline.cli.main import entry  # noqa: PLC0415  # with the environment that it is given

    return entry()


if __name__ == "__main__":
    serve()
