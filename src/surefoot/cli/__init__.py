"""The command line: what a person types to execute runs, look at them, and end what nobody knows.

Data goes to stdout, words to stderr; `--json` prints one document of a documented shape; exit codes are a table.
"""

from surefoot.cli.app import main

__all__ = ["main"]
