"""What the original computes: `pipeline` opens diffusers' own pipeline, `record` draws the gate's `requests` with it
and keeps every call of every graph, `drawings` draws others. `scheduler` compares samplers before anything is drawn.
`torch_runner` and `torch_candidate` run modules in torch as one of the sides of a comparison.
"""
