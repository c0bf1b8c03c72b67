"""Law 2: the outputs equal those of the library that wrote the checkpoint, and inactive ones those of the base."""

from __future__ import annotations

import pytest
import torch
import transformers
from golden import BOTTLENECKS, COMPOSITIONS, GOLDEN, PREFIXES, Case

from adapterhub.errors import UnsupportedError
from adapterhub.loader import attach

ARCHS = "bert roberta xlm-roberta distilbert"
WITH_WEIGHTS = ("prelu", "xielu")
"""Activations with weights of their own, which are refused by name."""


def golden_cases() -> list[Case]:
    kinds = "adapters-loader head head-only static-head legacy legacy-head"
    return GOLDEN.cases(groups="ACF", kinds=kinds)


def own_cases() -> list[Case]:
    return [case for case in BOTTLENECKS.cases(archs=ARCHS) if isinstance(case["active"], str)]


def base_of(case: Case) -> transformers.PreTrainedModel:
    attention = {"attn_implementation": case["attn_implementation"]} if case.get("attn_implementation") else {}
    base = getattr(transformers, case["base_class"]).from_pretrained(case.base, **attention)
    made: transformers.PreTrainedModel = base.eval()
    return made


@torch.no_grad()
def check(case: Case) -> None:
    """Hold base, active and inactive outputs of a case against the reference's."""
    base = base_of(case)
    expected, batch = case.expected(), case.inputs()
    base_key = case.get("base_output_key", case["output_key"])
    plain = {key: x.flatten(0, -2) for key, x in batch.items()} if case.get("base_inputs_flatten") else batch
    before = base(**plain)[base_key]
    adapters = attach(base)
    adapters.load(case.adapter, name="task")
    assert torch.equal(base(**plain)[base_key], before)
    if expected["base_output"].shape == before.shape:
        assert case.close(before, expected["base_output"])
    adapters.activate("task")
    found = base(**batch)[case["output_key"]]
    assert case.close(found, expected["output"]), float((found - expected["output"]).abs().max())
    if "output_unpadded" in expected:
        found = base(**case.inputs("inputs_unpadded"))[case["output_key"]]
        assert case.close(found, expected["output_unpadded"])
    adapters.activate(None)
    assert torch.equal(base(**plain)[base_key], before)


@pytest.mark.parametrize("case", golden_cases(), ids=str)
def test_a_golden_case_gives_the_output_of_the_reference(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", PREFIXES.cases(), ids=str)
def test_every_prefix_and_prompt_gives_the_output_of_the_reference(case: Case) -> None:
    check(case)


def composed_cases() -> list[Case]:
    return [*GOLDEN.cases(groups="B", kinds="composition"), *COMPOSITIONS.cases()]


@pytest.mark.parametrize("case", composed_cases(), ids=str)
def test_a_composition_gives_the_output_of_the_reference_with_compat(case: Case) -> None:
    adapters = attach(base_of(case), compat="adapters")
    for row in [*case["adapters"], *case["fusions"]]:
        adapters.load(case.folder / row["path"], name=row["name"])
    adapters.activate(case.active)
    with torch.no_grad():
        found = adapters.model(**case.inputs())[case["output_key"]]
    assert case.close(found, case.expected()["output"]), float((found - case.expected()["output"]).abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("case", own_cases(), ids=str)
def test_every_option_of_a_bottleneck_gives_the_output_of_the_reference(case: Case) -> None:
    if any(word in str(case) for word in WITH_WEIGHTS):
        with pytest.raises(UnsupportedError, match="has weights"):
            check(case)
    else:
        check(case)
