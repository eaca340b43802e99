"""A stand-in for onnxruntime_perf_test, whose Android build the tests cannot have: its flags, files and words, with
ONNX Runtime's Python at work. The form of its output is that of ONNX Runtime 1.20 and later."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import numpy_helper


def main() -> None:
    parser = argparse.ArgumentParser()
    for flag in ("-m", "-e", "-p", "-u", "-C"):
        parser.add_argument(flag)
    parser.add_argument("-r", type=int)
    parser.add_argument("-x", type=int)
    parser.add_argument("model", type=Path)
    parser.add_argument("result", nargs="?")
    given = parser.parse_args()
    options = ort.SessionOptions()
    options.intra_op_num_threads = given.x
    if given.p:
        options.enable_profiling, options.profile_file_prefix = True, given.p
    if given.u:
        options.optimized_model_filepath = given.u
    for entry in filter(None, (given.C or "").split(" ")):
        options.add_session_config_entry(*entry.split("|"))
    begin = time.perf_counter()
    session = ort.InferenceSession(str(given.model), options, providers=["CPUExecutionProvider"])
    created = time.perf_counter() - begin
    feed = {}
    for file in sorted((given.model.parent / "test_data_set_0").glob("input_*.pb")):
        tensor = onnx.TensorProto.FromString(file.read_bytes())
        feed[tensor.name] = numpy_helper.to_array(tensor)
    times = []
    for _ in range(given.r + 1):
        begin = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - begin)
    average = 1e3 * sum(times[1:]) / given.r
    sys.stdout.write(
        f"Session creation time cost: {created:.7g} s\nTotal inference requests: {given.r}\n"
        f"Average inference time cost: {average:.6g} ms\n"
    )
    if given.result:
        with Path(given.result).open("a") as out:
            out.writelines(f"g,{ms:.6g},36696064,96,{run}\n" for run, ms in enumerate(times[1:]))
    session.end_profiling()


if __name__ == "__main__":
    main()
