"""Measurements in torch by which recipes decide: `fake_quantize` rounds a module, `activation_stats` has value ranges,
`sensitivity` and `analysis` the error that each weight causes, `cache` keeps it on disk. Only here does quantize import
torch.
"""
