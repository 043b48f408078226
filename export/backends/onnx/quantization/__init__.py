"""Integer weights and activations of a plan in an ONNX graph; the entry is `lower_weights`."""
