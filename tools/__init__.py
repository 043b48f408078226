"""Installers of what stands in for a phone. The runtime finds what they leave, and never imports them."""
