"""Prefixes, prompts and P-tuning as PEFT computes them, with adapters put together from its tensors by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from golden import GOLDEN, PEFT_PROMPTS, Case
from safetensors.torch import load_file
from tiny_models import family, with_adapters
from torch import Tensor

from adapterhub.adapter import Adapter, Base, Manifest, MethodConfig
from adapterhub.converters import write
from adapterhub.loader import AdapterSet, attach
from adapterhub.methods import PrefixTuningConfig, PromptTuningConfig, PTuningConfig
from adapterhub.sites import Layout

CASES = [
    *PEFT_PROMPTS.cases(),
    *GOLDEN.cases(ids="d-gpt2-ptuning d-llama-ptuning d-llama-prefix d-llama_mha-prefix d-t5-prefix"),
]
EAGER_ONLY = ("gemma2", "gptj", "deberta")


def prefix(fields: dict[str, Any], vectors: Tensor, layout: Layout) -> tuple[MethodConfig, dict[str, Tensor]]:
    """A prefix; the decoder of an encoder-decoder takes every second pair of keys and values, again and again."""
    n, pairs = fields["num_virtual_tokens"], vectors.view(fields["num_virtual_tokens"], fields["num_layers"], 2, -1)
    step = fields["num_transformer_submodules"]
    config = PrefixTuningConfig(
        flat=True, prefix_length=n, positions="shifted", encoder_prefix=False, cross_prefix=False
    )
    tensors: dict[str, Tensor] = {}
    for number, place in enumerate(one for one in layout.attentions if config.takes(one)):
        key, value = pairs[:, step * number % fields["num_layers"]].unbind(1)
        tensors |= {f"{place.path}.prefix_key": key.contiguous(), f"{place.path}.prefix_value": value.contiguous()}
    return config, tensors


def by_hand(case: Case, adapters: AdapterSet) -> Adapter:
    fields = json.loads((case.adapter / "adapter_config.json").read_text())
    vectors = load_file(case.adapter / "adapter_model.safetensors")["prompt_embeddings"]
    layout, n = adapters._ground.layout, fields["num_virtual_tokens"]
    spare = len(vectors) - n
    config: MethodConfig
    if fields["peft_type"] == "PREFIX_TUNING":
        config, tensors = prefix(fields, vectors, layout)
    else:
        tensors = {f"{layout.embeddings[0].tokens}.prompt": vectors}
        config = PromptTuningConfig(prompt_length=n, place="tokens", spare=spare)
        if fields["peft_type"] == "P_TUNING":
            config = PTuningConfig(prompt_length=n, encoder="none", spare=spare)
    return Adapter((config,), tensors, Manifest(name="task", base=Base(architecture=layout.architecture)))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_and_generated_texts_are_those_of_peft(case: Case, implementation: str) -> None:
    if case["arch"] in EAGER_ONLY:
        implementation = "eager"
    model = getattr(transformers, case["base_class"])
    base = model.from_pretrained(case.base, attn_implementation=implementation).eval()
    adapters = attach(base)
    adapters.load(by_hand(case, adapters), set_active=True)
    expected, batch = case.expected(), case.inputs()
    with torch.no_grad():
        found = base(**batch)[case["output_key"]]
    assert case.close(found, expected["output"]), float((found - expected["output"]).abs().max())
    rows = slice(None) if base.config.is_encoder_decoder else slice(0, 1)
    given = {key: batch[key][rows] for key in ("input_ids", "attention_mask")}
    for name, inputs in (("generated", given), ("generated_left", case.get("inputs_left", {}))):
        if name in expected:
            tensors = {key: torch.as_tensor(value) for key, value in inputs.items()}
            assert torch.equal(base.generate(**tensors, max_new_tokens=5, do_sample=False), expected[name]), name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["bert", "distilbert", "llama"])
def test_a_prompt_of_our_own_is_loaded_by_peft_in_every_family(name: str, tmp_path: Path) -> None:
    adapter = with_adapters(family(name), x="prompt_tuning[place=tokens,prompt_length=3]").adapter("x")
    folder = write(adapter, tmp_path / "x", "peft")
    assert peft.PeftModel.from_pretrained(family(name), folder).active_peft_config.token_dim == 32
