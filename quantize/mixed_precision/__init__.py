"""The recipe "mixed": `search` measures what each weight costs in each storage, `knapsack` chooses the best that a size
allows.
"""
