"""Editing ONNX graphs: what every stage and number format does with nodes and constants."""
