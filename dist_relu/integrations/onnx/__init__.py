"""Models as ONNX, and ONNX as models: to and from PyTorch, Keras, scikit-learn, and all that runs ONNX.

Needs the package onnx, and onnxruntime to compare with: `pip install 'dist_relu[onnx]'`.
"""

from dist_relu.integrations.onnx.certificate import Certificate, read_certificate, verify
from dist_relu.integrations.onnx.exporting import export_model, to_onnx
from dist_relu.integrations.onnx.importing import import_model

__all__ = ["Certificate", "export_model", "import_model", "read_certificate", "to_onnx", "verify"]
