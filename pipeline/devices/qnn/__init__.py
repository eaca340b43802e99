"""Qualcomm's NPU without the device: QNN's libraries for x86-64 compile a graph ahead of time for a SoC, and compute on
this machine what its HTP would (`edge devices setup qnn`).
"""
