"""Where float models come from: Hugging Face folders and hub ids, PyTorch factories, ONNX files."""
