"""Parts that families share: components (`clip_text`, `unet2d`, `autoencoder_kl`, ...), each with the count of its
sites by kind, and the record of a graph's call in diffusers' pipeline (`graph_call`). No file here is a family.
"""
