"""The verbs of the command line, a module for each group: what `cli.py` has parsed is done here, and told to a person.

`lookup.py` finds what the options point at, `terminal.py` asks and prints: they are everybody's hands.
"""
