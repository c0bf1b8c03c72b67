"""Law 2 for PEFT: adapters with random options, made by the library here and now, give its output.

tests/recipes/make_drawn_peft_cases.py makes as many as one likes; those here found faults, or are a fair sample.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from drawn_peft_families import TYPES, answer, given, made
from families import FAMILIES
from golden import Case
from make_drawn_peft_cases import peft_case
from make_further_cases import with_head
from make_peft_cases import make_bases, make_case
from test_peft_outputs import assert_close, base_of, output_of

from adapterhub.loader import attach

pytestmark = pytest.mark.usefixtures("quiet")

FOUND = (177, 351, 453, 1038, 1092, 1155)
"""Numbers of the cases that found a fault of ours."""

SAMPLE = (0, 2, 43, 85, 126, 246, 333, 416, 457)
"""Numbers of others."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("drawn")
    make_bases(made)
    return made


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


CONV1D = ("gpt2", "encoder-decoder-gpt2")
PLAIN = ("C3AConfig", "GloraConfig")
"""Types that PEFT puts on no Conv1D."""

DRAWN = [
    (TYPES[(5 * number + 9 * turn) % len(TYPES)], name) for number, name in enumerate(FAMILIES) for turn in range(2)
]
ON_FAMILIES = [(kind, name) for kind, name in DRAWN if not (kind in PLAIN and name in CONV1D)]


FAULTS = [("DeloraConfig", "modernbert", 1), ("IA3Config", "encoder-decoder-electra", 7)]
"""Type, family and seed of those that found a fault of ours."""


@pytest.mark.parametrize(("kind", "name", "seed"), [*FAULTS, *((kind, name, 1) for kind, name in ON_FAMILIES)])
def test_an_adapter_of_peft_gives_its_output_on_every_family(kind: str, name: str, seed: int, tmp_path: Path) -> None:
    adapters = attach(with_head(name))
    before = answer(adapters.model, given(name))
    expected = made(kind, name, adapters._ground.layout, seed, tmp_path)
    adapters.load(tmp_path, name="x", set_active=True)
    found = answer(adapters.model, given(name))
    assert float((found - expected).abs().max()) < 5e-5 * max(1.0, float(expected.abs().max()))
    assert float((before - expected).abs().max()) > 1e-3
