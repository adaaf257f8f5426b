"""Notebooks, and a command that runs them anew: `python -m notebooks`."""
