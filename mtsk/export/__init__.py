"""Models for programs without Python: one ONNX graph from an image to its scores."""

from mtsk.export.onnx import export_onnx

__all__ = ["export_onnx"]
