"""The fuzzer needs atheris, which the tests do not; pytest must not import it."""

collect_ignore = ["fuzz.py"]
