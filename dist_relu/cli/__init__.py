"""The command line: `dist-relu`.  Each command has a module of its own; click and rich stay in here."""
