"""Models that read images and text: Gemma 3 is described as its language model, others are refused by name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from families import settle
from safetensors.torch import load_file, save_file
from tiny_models import answers, randomise
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3Model, PreTrainedModel

from adapterhub.converters import read
from adapterhub.converters.peft.families import naming
from adapterhub.errors import BaseMismatchError, UnsupportedError, UsageError
from adapterhub.loader import attach

pytestmark = pytest.mark.usefixtures("quiet")

TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 100,
    "max_position_embeddings": 64,
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 8,
    "patch_size": 2,
}
IMAGE, PAD = 99, 0
LANGUAGE = r".*language_model.*\.(q_proj|v_proj|down_proj)"

CONFIGURATIONS: dict[str, peft.PeftConfig] = {
    "in both": peft.LoraConfig(r=3, target_modules=["q_proj", "v_proj"]),
    "language": peft.LoraConfig(r=3, target_modules=LANGUAGE),
    "every map": peft.LoraConfig(r=3, target_modules="all-linear"),
    "dora": peft.LoraConfig(r=3, target_modules=LANGUAGE, use_dora=True),
    "one layer": peft.LoraConfig(r=3, target_modules=["q_proj"], layers_to_transform=[0]),
    "patterns": peft.LoraConfig(
        r=3,
        target_modules=["q_proj", "fc1"],
        rank_pattern={"language_model.layers.1.self_attn.q_proj": 2},
        alpha_pattern={"fc1": 5},
    ),
    "excluded": peft.LoraConfig(r=3, target_modules=["q_proj"], exclude_modules=r".*vision_tower.*"),
    "head": peft.LoraConfig(r=3, target_modules=["q_proj", "lm_head"]),
    "embeddings": peft.LoraConfig(r=3, target_modules=["embed_tokens", "q_proj"]),
    "ia3": peft.IA3Config(target_modules=LANGUAGE, feedforward_modules=r".*down_proj"),
    "lokr": peft.LoKrConfig(r=2, target_modules=LANGUAGE),
    "vera": peft.VeraConfig(r=4, target_modules=["q_proj"]),
    "norms": peft.LNTuningConfig(target_modules=["input_layernorm", "norm"]),
    "prefix": peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
}


def gemma(cls: type[PreTrainedModel] = Gemma3ForConditionalGeneration) -> PreTrainedModel:
    config = Gemma3Config(
        text_config={**TEXT, "head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16},
        vision_config=VISION,
        mm_tokens_per_image=4,
        image_token_index=IMAGE,
    )
    made: PreTrainedModel = settle(cls(config))
    return made


def batch() -> dict[str, torch.Tensor]:
    """Two texts of an image and words, the second padded on the left."""
    ids = torch.tensor([[2, 97, *4 * [IMAGE], 98, 5, 6, 7], [PAD, 2, 97, *4 * [IMAGE], 98, 9, 10]])
    pixels = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
    return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "pixel_values": pixels}


def made_by_peft(base: PreTrainedModel, config: peft.PeftConfig, folder: Path) -> Any:
    """Return a model of PEFT with random weights, saved in a folder."""
    torch.manual_seed(0)
    model = peft.get_peft_model(base, config).eval()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or "lora_" in name:
            parameter.data.add_(torch.randn(parameter.shape) * 0.2)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_an_adapter_of_peft_gives_its_output(name: str, tmp_path: Path) -> None:
    expected = answers(made_by_peft(gemma(), CONFIGURATIONS[name], tmp_path), batch())
    adapters = attach(gemma())
    before = answers(adapters.model, batch())
    adapters.load(tmp_path, name="x", set_active=True)
    found = answers(adapters.model, batch())
    scale = max(1.0, float(expected.abs().max()))
    assert float((found - expected).abs().max()) < 2e-5 * scale
    assert float((before - expected).abs().max()) > 0.1
    adapters.activate(None)
    assert torch.equal(answers(adapters.model, batch()), before)


def test_images_are_seen_through_the_token_types_too() -> None:
    adapters = attach(gemma())
    adapters.add("x", "seq_bn[reduction_factor=4]")
    randomise(adapters, "x")
    adapters.activate("x")
    types = {"token_type_ids": (batch()["input_ids"] == IMAGE).long()}
    assert not torch.allclose(answers(adapters.model, batch() | types), answers(adapters.model, batch()), atol=1e-3)


@pytest.mark.parametrize("method", ["double_seq_bn[reduction_factor=4]", "loreft", "prefix_tuning_flat", "lora+par_bn"])
@pytest.mark.parametrize("cls", [Gemma3ForConditionalGeneration, Gemma3Model])
def test_methods_act_in_the_language_model(method: str, cls: type[PreTrainedModel], tmp_path: Path) -> None:
    adapters = attach(gemma(cls))
    before = answers(adapters.model, batch())
    adapters.add("x", method)
    randomise(adapters, "x")
    adapters.activate("x")
    after = answers(adapters.model, batch())
    assert float((after - before).abs().max()) > 1e-2
    assert not any("vision" in key for key in adapters.adapter("x").tensors)
    path = adapters.save("x", tmp_path / "x.safetensors")
    again = attach(pickle.loads(pickle.dumps(gemma(cls))))
    again.load(path, name="y", set_active=True)
    assert torch.allclose(answers(again.model, batch()), after, atol=1e-5)


def test_the_adapter_of_a_language_model_alone_is_for_another_architecture(tmp_path: Path) -> None:
    adapters = attach(gemma().model.language_model)
    adapters.add("x", "seq_bn")
    path = adapters.save("x", tmp_path / "x.safetensors")
    with pytest.raises(BaseMismatchError, match="made for a gemma3_text model, this one is a gemma3"):
        attach(gemma()).load(path)


def test_names_of_earlier_releases_lead_to_the_same_modules(tmp_path: Path) -> None:
    expected = answers(made_by_peft(gemma(), CONFIGURATIONS["in both"], tmp_path), batch())
    file = tmp_path / "adapter_model.safetensors"
    rules = ("model.language_model.", "language_model.model."), ("model.vision_tower.", "vision_tower.vision_model.")
    tensors = load_file(file)
    for today, former in rules:
        tensors = {
            key.replace(f"base_model.model.{today}", f"base_model.model.{former}"): x for key, x in tensors.items()
        }
    save_file(tensors, file)
    adapters = attach(gemma())
    adapters.load(tmp_path, name="x", set_active=True)
    assert torch.allclose(answers(adapters.model, batch()), expected, atol=2e-5)


@pytest.mark.parametrize("method", ["prompt_tuning", "prompt_tuning[place=tokens]", "seq_bn_inv"])
def test_what_joins_the_embeddings_is_refused_by_name(method: str) -> None:
    with pytest.raises((UnsupportedError, UsageError), match=r"gemma3 models|nothing is known to enter the layers"):
        attach(gemma()).add("x", method)


def others() -> dict[str, PreTrainedModel]:
    """Tiny models of other families that read images and text."""
    llava = transformers.LlavaConfig(
        text_config={**TEXT, "model_type": "llama"},
        vision_config={**VISION, "model_type": "clip_vision_model", "projection_dim": 8},
        image_token_index=IMAGE,
    )
    qwen = transformers.Qwen2VLConfig(
        text_config={**TEXT, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "patch_size": 4},
        image_token_id=IMAGE,
    )
    return {
        "llava": transformers.LlavaForConditionalGeneration(llava),
        "qwen2_vl": transformers.Qwen2VLForConditionalGeneration(qwen),
    }


def test_a_language_model_of_a_known_family_can_be_attached_to_inside_another_model() -> None:
    base = others()["llava"]
    adapters = attach(base.model.language_model)
    assert adapters._ground.architecture.name == "llama"
    before = base(input_ids=batch()["input_ids"][:1, 7:]).logits
    adapters.add("x", "seq_bn[reduction_factor=4]")
    randomise(adapters, "x")
    adapters.activate("x")
    assert not torch.allclose(base(input_ids=batch()["input_ids"][:1, 7:]).logits, before, atol=1e-3)


@pytest.mark.parametrize("mapped", [True, False], ids=["said by auto_mapping", "not said"])
@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_other_models_of_images_and_text_are_refused_by_name(name: str, tmp_path: Path, *, mapped: bool) -> None:
    base = others()[name]
    with pytest.raises(UnsupportedError, match=rf"models of type '{name}' are not known.*describe another one"):
        attach(base)
    made_by_peft(base, peft.LoraConfig(r=2, target_modules=LANGUAGE), tmp_path)
    if not mapped:
        file = tmp_path / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_mapping": None, "task_type": "CAUSAL_LM"}))
    with pytest.raises(
        UnsupportedError, match="says that the base model is a" if mapped else "nothing says which it is"
    ):
        read(tmp_path)


@pytest.mark.parametrize("path", ["decoder.trunk.0.q", "head.trunk.0.q"])
def test_words_that_stand_around_some_models_tell_no_family(path: str) -> None:
    with pytest.raises(UnsupportedError, match="none of the module paths in the keys"):
        naming([path], {}, None)
