"""The gate. `gate.judge` is what `export` runs: stages, graphs and pictures; `verify` (pocketdiffusion/verify.py) also
runs `contradictions`, the conformance vectors and the floors of recipes (quantize/stated_floors.py).

`check` is the record of what is compared with what, `tolerances` has every floor, `metrics` measures. `stages`,
`golden_cases`, `step_tables`, `pictures` and `conformance` judge; `self_test` judges a runtime part. `contradictions`
calls `settings` and other generators of sentences. `recording`, `recorded` and `golden` hold what is compared.
`questions`, `prompts`, `vectors` and `vector_check` are the conformance vectors. `compare`, `controls`, `finite`,
`peak`, `known_units` and `skipped` judge nothing.
"""
