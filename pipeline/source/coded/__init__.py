"""Checkpoints whose weights are codes already: GPTQ, AWQ, compressed-tensors and GGUF, each in a file of its own."""
