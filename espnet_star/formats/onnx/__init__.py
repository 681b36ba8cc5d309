"""The student as an ONNX file."""
