"""ONNX Runtime sessions, and running graphs over samples."""
