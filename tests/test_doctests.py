"""The examples in docstrings are right."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import adapterhub

OUTSIDE_THE_PACKAGE = {"tests", "benchmarks", "examples", "docs", "build", "dist"}


def module_names() -> list[str]:
    """Return the names of all modules of the package, found on the disk."""
    names = ["adapterhub"]
    for part in pkgutil.iter_modules(adapterhub.__path__, "adapterhub."):
        if part.name.split(".")[1] in OUTSIDE_THE_PACKAGE:
            continue
        names.append(part.name)
        if part.ispkg:
            folder = importlib.import_module(part.name).__path__
            inner = [module.name for module in pkgutil.iter_modules(folder, f"{part.name}.")]
            names += [name for name in inner if not name.endswith(".__main__")]
    return names


@pytest.mark.parametrize("name", module_names())
def test_the_examples_of_a_module_are_right(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples_to_check() -> None:
    finder = doctest.DocTestFinder()
    assert (
        sum(len(test.examples) for name in module_names() for test in finder.find(importlib.import_module(name))) > 20
    )
