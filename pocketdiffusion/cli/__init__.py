"""The command line. Each command of `app` is a file of its name; what it does is in the package above. The other files
are shared: `arguments` and `options`; `console`, `progress`, `streams`, `interrupts` and `encoding`; `tables`,
`json_output`; `extras`, `machine`, `completion`. `plan` is a part of export, `device_report` of verify.
"""
