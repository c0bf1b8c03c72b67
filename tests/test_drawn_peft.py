"""Law 2 for PEFT: adapters with random options, made by the library here and now, give its output.

tests/recipes/make_drawn_peft_cases.py makes as many as one likes; those here found faults, or are a fair sample.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from golden import Case
from make_drawn_peft_cases import peft_case
from make_peft_cases import make_bases, make_case
from test_peft_outputs import assert_close, base_of, output_of

from adapterhub.loader import attach

FOUND = (177, 351, 453, 1038, 1092, 1155)
"""Numbers of the cases that found a fault of ours."""

SAMPLE = (0, 2, 43, 85, 126, 246, 333, 416, 457)
"""Numbers of others."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("drawn")
    make_bases(made)
    return made


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Let PEFT warn of what it is asked for."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("number", [*FOUND, *SAMPLE])
def test_an_adapter_of_peft_gives_its_output(number: int, root: Path) -> None:
    row = peft_case(number)
    torch.manual_seed(0)
    make_case(root, row)
    (file,) = root.glob(f"*{row[0]}/case.json")
    case = Case(file.parent, json.loads(file.read_text("utf-8")))
    adapters = attach(base_of(case))
    adapters.load(case.adapter, set_active=True)
    assert_close(case, output_of(case, adapters.model))
