"""How weights and activations of a plan become integers in an ONNX graph: `lower_weights` first."""
