"""Types, artifacts, stages, the store and errors: no torch, no ONNX."""
