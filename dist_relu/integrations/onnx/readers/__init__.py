"""What every operator of ONNX is in our layers: functions that add to an `Assembly`, by the names of operators."""
