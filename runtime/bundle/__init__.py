"""The files of a bundle. `manifest.Manifest` is the complete record in memory, `layout` splits it into the JSON files,
`*_records`, `graph_needs` and `verdicts` are its parts, `schemas` writes the JSON Schemas of this folder.

`bundle` opens one, `sealing` and `staging` write one, `file_table` has digests and ids, `runtime_part` copies what an
app ships, `arrays` and `step_files` are the binary files.
"""
