"""What an export judges below the shipped artifact, where torch is at hand: the ladder, and layer by layer. The gate
itself is runtime/verify, the record `Check` is runtime/verify/check.py.
"""
