"""The reports of `export` and `compare`: HTML for people, JSON for machines. `page` and `plots` are their parts."""
