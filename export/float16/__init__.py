"""The range audit: `audit` finds results of an artifact that overflow float16, `scale_propagation` computes which
powers of two prevent it, `weight_rescaling` applies them to the weights. `activation_forms` has the forms of SiLU and
GELU and their errors in float16.
"""
