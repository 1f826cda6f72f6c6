"""The command line: flags from config fields, calls of the engine's public functions, lines out."""
