"""Recipes run in an environment with the library `adapters`; pytest must not import them."""

collect_ignore_glob = ["*.py"]
