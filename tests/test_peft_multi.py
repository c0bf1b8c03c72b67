"""Several adapters of PEFT on one base: each by name, and mixed within a batch, give the outputs of that library."""

from __future__ import annotations

import pytest
import torch
from golden import GOLDEN, Case
from test_reference_outputs import base_of

from adapterhub.loader import attach


@pytest.mark.parametrize("case", GOLDEN.cases(groups="D", kinds="peft-multi"), ids=str)
@torch.no_grad()
def test_adapters_of_peft_swap_and_mix_as_there(case: Case) -> None:
    base, expected, given = base_of(case), case.expected(), case.inputs()
    before = base(**given)[case["output_key"]]
    adapters = attach(base)
    for name, path in case.adapters.items():
        adapters.load(path, name=name)
    for name in case["set_adapter"]:
        adapters.activate(name)
        found = base(**given)[case["output_key"]]
        assert case.close(found, expected[f"output_{name}"]), name
    adapters.activate(None)
    assert torch.equal(base(**given)[case["output_key"]], before)
    mixed = case.get("mixed_adapter_names")
    if mixed:
        with adapters.per_row([None if name == "__base__" else name for name in mixed]):
            assert case.close(base(**given)[case["output_key"]], expected["output_mixed"])
