"""Samplers as numbers: `schedule` reads a checkpoint's noise schedule and `scheduler_settings` its settings, `samplers`
writes each sampler as a `step_table`, `stored_tables` packs the tables of a bundle.
"""
