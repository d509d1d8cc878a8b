"""Reactors: the only code with side effects outside of the log. See README.md."""
