"""coremltools, imported without its warnings of versions that it was not tested with, and of not being on a Mac."""
# ruff: noqa: E402

import logging

logging.getLogger("coremltools").setLevel(logging.ERROR)
import coremltools as ct

__all__ = ["ct"]
