"""The command line: commands parse and call, screens print."""
