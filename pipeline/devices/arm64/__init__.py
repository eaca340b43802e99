"""ONNX Runtime's own ARM64 build under user-mode emulation: one CPU tier per target.

`tiers.py` says which CPUs stand for which instruction sets, `packages.py` fetches Debian's and PyPI's packages,
`environment.py` makes, finds and removes what they are unpacked into, `runner.py` runs the worker in it.
"""
