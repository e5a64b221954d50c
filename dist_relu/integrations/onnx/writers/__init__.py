"""What every layer is in ONNX's operators: functions from a graph and a value to the next value, by layers."""
