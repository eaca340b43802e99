"""A scheme: static INT8 as w8a8, with ranges found by this package's observer."""

from pipeline.quantize.schemes import W8A8

W8A8_SIGMA = W8A8.model_copy(update={"name": "w8a8-sigma", "observer": "three_sigma"})
