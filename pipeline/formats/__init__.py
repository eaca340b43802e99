"""Number formats: how the weights of one class of tensors are stored and computed, one file each.

`format.py` says what a format answers for, `scheme.py` which format a scheme gives to which weight. The arithmetic is
here, below the compression passes, so that a trial rounds with the very code that the export encodes with.
"""

from __future__ import annotations

from pipeline.core.registry import Registry
from pipeline.formats.format import NumberFormat

NUMBER_FORMATS: Registry[type[NumberFormat]] = Registry(
    "number_format",
    {
        "fp32": "pipeline.formats.float32:Float32",
        "fp16": "pipeline.formats.float16:Float16",
        "int8-channel": "pipeline.formats.int8_channel:Int8Channel",
        "int8-tensor": "pipeline.formats.int8_channel:Int8Tensor",
        "int8-npu": "pipeline.formats.int8_npu:Int8Npu",
        "int8-lstm": "pipeline.formats.int8_lstm:Int8Lstm",
        "int8-stored": "pipeline.formats.int8_stored:Int8Stored",
        "int8-block": "pipeline.formats.int_block:Int8Block",
        "int4-block": "pipeline.formats.int_block:Int4Block",
        "int2-block": "pipeline.formats.int_block:Int2Block",
        "int4-widened": "pipeline.formats.int4_widened:Int4Widened",
    },
    words="number format",
    parts=("name", "meaning", "code_bits"),
)
