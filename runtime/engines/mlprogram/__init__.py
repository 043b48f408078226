"""Our executor of Core ML programs: `program` reads a package, `execute` runs it in numpy, by the table of
`operators`."""
