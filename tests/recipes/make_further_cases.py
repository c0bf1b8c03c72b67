"""Make tests/data/further-cases.tar.gz: Compacter, invertible adapters and ReFT as `adapters` computes them.

    python make_further_cases.py [ARCHIVE]    needs adapters 1.3.0 and transformers 4.57.6, two minutes

The weights of the bases follow from their names (families.py), so that only adapters and outputs are kept.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bottleneck_options import DOUBLE, PAR, SEQ, Options
from families import FAMILIES, batch, configuration, settle, values
from make_bottleneck_cases import pack_listed
from make_family_cases import MUTED, output, plain, without_made_up_biases
from reference_models import CRASHES, LARGEST_OUTPUT, LEAST_EFFECT, relative, stand_in_for_torchvision

ARCHIVE = Path(__file__).parent.parent / "data" / "further-cases.tar.gz"

WITH_HEAD = {
    "bert": "BertForMaskedLM",
    "roberta": "RobertaForMaskedLM",
    "xlm-roberta": "XLMRobertaForMaskedLM",
    "distilbert": "DistilBertForMaskedLM",
    "albert": "AlbertForMaskedLM",
    "electra": "ElectraForMaskedLM",
    "deberta": "DebertaForMaskedLM",
    "deberta-v2": "DebertaV2ForMaskedLM",
    "xmod": "XmodForMaskedLM",
    "xmod-pre-norm": "XmodForMaskedLM",
    "bert-generation": "BertGenerationDecoder",
    "modernbert": "ModernBertForMaskedLM",
    "gpt2": "GPT2LMHeadModel",
    "gptj": "GPTJForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi": "PhiForCausalLM",
    "t5": "T5ForConditionalGeneration",
    "mt5": "MT5ForConditionalGeneration",
    "bart": "BartForConditionalGeneration",
    "mbart": "MBartForConditionalGeneration",
    "plbart": "PLBartForConditionalGeneration",
    "whisper": "WhisperForConditionalGeneration",
    "vit": "ViTForImageClassification",
    "beit": "BeitForImageClassification",
    "clip_text_model": "CLIPTextModelWithProjection",
    "clip_vision_model": "CLIPVisionModelWithProjection",
}
"""Classes with a head; what all layers share is saved from them, and from T5's only with the library's own class."""

LANGUAGE = ("MaskedLM", "CausalLM", "LMHeadModel", "ConditionalGeneration", "Decoder")

PHM: Options = {"phm_layer": True, "phm_dim": 2, "reduction_factor": 4, "non_linearity": "gelu"}
DOUBLE_PHM = DOUBLE | PHM | {"cross_adapter": True}
SEQ_PHM = SEQ | PHM
OWN = {"shared_phm_rule": False}
INVERSE: Options = {"inv_adapter": "nice", "inv_adapter_reduction_factor": 2}
REFT: Options = {
    "architecture": "reft",
    "layers": "all",
    "prefix_positions": 2,
    "suffix_positions": 2,
    "r": 2,
    "orthogonality": True,
}
NOREFT = REFT | {"orthogonality": False}
SMALL: Options = {"reduction_factor": 16}
PROMPT: Options = {"architecture": "prompt_tuning", "prompt_length": 3}
AFTER_BOS = PROMPT | {"combine": "prefix_after_bos"}

EVERYWHERE: dict[str, list[Options]] = {
    "compacter": [DOUBLE_PHM],
    "compacter-own": [SEQ_PHM | OWN | {"factorized_phm_W": False}],
    "inverse": [SEQ | SMALL | INVERSE],
    "loreft": [REFT],
    "noreft-tied": [NOREFT | {"tied_weights": True, "layers": [1], "suffix_positions": 1, "non_linearity": "relu"}],
    "noreft": [NOREFT | {"prefix_positions": 3, "suffix_positions": 0}],
}
ON_BERT: dict[str, list[Options]] = {
    "phm-dim": [SEQ_PHM | {"phm_dim": 4}],
    "phm-rank": [SEQ_PHM | {"phm_rank": 3}],
    "phm-dense": [SEQ_PHM | {"factorized_phm_W": False}],
    "phm-shared": [DOUBLE_PHM | {"shared_W_phm": True}],
    "phm-shared-weights": [DOUBLE_PHM | OWN | {"shared_W_phm": True}],
    "phm-vectors": [DOUBLE_PHM | {"factorized_phm_rule": True}],
    "phm-own-vectors": [DOUBLE_PHM | OWN | {"factorized_phm_rule": True}],
    "phm-no-bias": [DOUBLE_PHM | {"phm_bias": False}],
    "phm-uniform": [SEQ_PHM | {"phm_c_init": "uniform", "phm_init_range": 0.5, "learn_phm": False}],
    "phm-start": [SEQ_PHM | {"hypercomplex_nonlinearity": "normal", "init_weights_seed": 3}],
    "phm-parallel": [PAR | PHM | {"init_weights": "bert", "scaling": "learned"}],
    "phm-norms": [SEQ_PHM | {"ln_after": True, "adapter_residual_before_ln": True}],
    "phm-norm-before": [DOUBLE_PHM | {"ln_before": True}],
    "phm-gated": [DOUBLE_PHM | {"use_gating": True, "scaling": "channel"}],
    "phm-layers": [DOUBLE_PHM | {"leave_out": [0]}],
    "phm-factors": [DOUBLE_PHM | {"reduction_factor": {"0": 4, "default": 16}}],
    "phm-bare": [SEQ_PHM | {"original_ln_after": False, "residual_before_ln": False}],
    "phm-without-head": [SEQ_PHM],
    "phm-inverse": [DOUBLE_PHM | INVERSE],
    "inverse-factor": [SEQ | SMALL | INVERSE | {"inv_adapter_reduction_factor": 3.5, "non_linearity": "tanh"}],
    "inverse-double": [DOUBLE | SMALL | INVERSE],
    "inverse-alone": [SEQ | SMALL | INVERSE | {"output_adapter": False}],
    "inverse-apart": [SEQ | SMALL, DOUBLE | INVERSE | {"mh_adapter": False, "output_adapter": False, "leave_out": [0]}],
    "reft-prefix": [REFT | {"suffix_positions": 0}],
    "reft-suffix": [REFT | {"prefix_positions": 0, "r": 3}],
    "reft-tied": [REFT | {"tied_weights": True}],
    "reft-long": [REFT | {"prefix_positions": 3, "suffix_positions": 3}],
    "reft-layers": [NOREFT | {"layers": [0]}],
    "reft-tanh": [REFT | {"non_linearity": "tanh", "dropout": 0.3, "init_weights_seed": 2}],
    "reft-and-bottleneck": [REFT, SEQ | SMALL],
    "reft-bos-tied": [REFT | {"tied_weights": True, "prefix_positions": 4}, AFTER_BOS],
    "prompt-reft-suffix": [PROMPT, REFT | {"prefix_positions": 0, "suffix_positions": 3}, SEQ | SMALL],
    "reft-compacter-inverse": [NOREFT, SEQ_PHM | INVERSE, {"architecture": "lora", "r": 2, "alpha": 3}],
}
WITH_PROMPT: dict[str, list[Options]] = {
    "reft-prompt": [REFT | {"suffix_positions": 1}, PROMPT],
    "prompt-noreft": [AFTER_BOS, NOREFT],
}
"""Cases of the families that have prompts in the library; they bring ReFT along."""

PROMPTED = (
    *("bert", "roberta", "xlm-roberta", "distilbert", "albert", "electra", "deberta", "deberta-v2"),
    *("xmod", "bert-generation", "vit", "beit"),
)
MASKS = {"left": [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]], "none": None}
"""Further masks for the cases of ReFT on BERT."""


def cases_of(name: str) -> dict[str, list[Options]]:
    """Return the cases of a family."""
    return EVERYWHERE | (ON_BERT if name == "bert" else {}) | (WITH_PROMPT if name in PROMPTED else {})


def config_of(members: list[Options]) -> Any:
    """Return the configuration of an adapter."""
    from adapters import BnConfig, ConfigUnion, LoRAConfig, PromptTuningConfig
    from adapters.configuration.adapter_config import ReftConfig

    kinds = {"reft": ReftConfig, "lora": LoRAConfig, "prompt_tuning": PromptTuningConfig, None: BnConfig}
    found = [kinds[member.get("architecture")].from_dict(dict(member)) for member in members]
    return found[0] if len(found) == 1 else ConfigUnion(*found)


def model_of(name: str, *, bare: bool = False) -> tuple[Any, Any]:
    """Return the model with adapters, of a class with a head where there is one, and the bare one in it."""
    import adapters

    if bare:
        model = plain(name)
        adapters.init(model)
        return model, model
    if name in ("t5", "mt5"):
        model = getattr(adapters, FAMILIES[name].model.removesuffix("Model") + "AdapterModel")(configuration(name))
        settle(model.base_model)
        return model.eval(), model.base_model
    model = with_head(name)
    adapters.init(model)
    without_made_up_biases(model)
    return model, bare_of(name, model)


def bare_of(name: str, model: Any) -> Any:
    """Return the bare model in one with a head."""
    return model.model if name == "gemma3_text" else model.base_model


def with_head(name: str, rename: Callable[[str], str] = str) -> Any:
    """Return a model of a class with a head, the bare one in it as if it were alone; rename as in settle."""
    import transformers

    made = getattr(transformers, WITH_HEAD.get(name, FAMILIES[name].model))
    model = settle(made(configuration(name)), rename)
    settle(bare_of(name, model), rename)
    return model


def with_language_head(name: str) -> bool:
    """Return whether a family's model has logits over the vocabulary; those of mT5 differ among releases."""
    return name != "mt5" and (name.startswith("encoder-decoder") or WITH_HEAD.get(name, "").endswith(LANGUAGE))


def language_model(name: str) -> Any:
    """Return the class with logits over the vocabulary, with adapters."""
    import adapters

    model = with_head(name)
    adapters.init(model)
    without_made_up_biases(model)
    return model


def inputs_of(name: str, members: list[Options]) -> dict[str, Any]:
    """Return a batch; where positions are counted in the encoder's text, the decoder's is as long."""
    import torch

    found = batch(plain(name), padded=FAMILIES[name].padded)
    if "decoder_input_ids" in found and any(member.get("architecture") == "reft" for member in members):
        found["decoder_input_ids"] = torch.tensor([[68, 10, 73, 5, 11, 12], [7, 81, 12, 94, 6, 8]])
    return found


def fill(model: Any, case: str) -> None:
    """Give the adapter weights with an effect everywhere; signs of orthonormal rows stay, most bases pack well."""
    import torch

    for key, base in model.named_buffers():
        if key.endswith(".base") and case != "bert reft-tanh":
            order = torch.argsort(values(f"{case} {key}", base.shape[:1], 1.0) * len(base) + torch.arange(len(base)))
            base.copy_(torch.eye(len(base))[order])

    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if ".task." not in f".{key}.":
                continue
            is_scale = key.endswith((".scaling", "adapter_norm_before.weight", "adapter_norm_after.weight"))
            wide = 0.9 if "phm_rule" in key else 0.6 if parameter.dim() > 1 else 0.4
            wide = 0.3 if "invertible" in key else wide
            new = values(f"{case} {key}", parameter.shape, wide, 1.0 if is_scale else 0.0)
            if key.endswith(".original"):
                new.diagonal().copy_(parameter.diagonal())
            parameter.copy_(new)


def lacks_shared(folder: Path, members: list[Options]) -> bool:
    """Return whether the library has not saved what the layers share."""
    from safetensors import safe_open

    if not any(member.get("phm_layer") and member.get("shared_phm_rule", True) for member in members):
        return False
    file = folder / "adapter.safetensors"
    if not file.exists():
        return False
    with safe_open(file, "pt") as tensors:
        return not any("shared_parameters" in key for key in tensors.keys())  # noqa: SIM118  # it is no dictionary


def make_case(root: Path, name: str, case: str, members: list[Options]) -> tuple[dict[str, Any], Options]:
    """Save the adapter of one case; return the outputs and what is known of it."""
    import torch

    model, bare = model_of(name, bare=case == "phm-without-head")
    model.add_adapter("task", config=config_of(members))
    fill(model, f"{name} {case}")
    model.set_active_adapters("task")
    model.eval()
    inputs, key = inputs_of(name, members), f"{name}-{case}"
    found = {key: output(bare, inputs)}
    folder = root / key
    kinds = ("inv_adapter", "phm_layer")
    shares = name.startswith("encoder-decoder") and any(member.get(kind) for member in members for kind in kinds)
    safe = not shares and not any(member.get("ln_before") for member in members)
    model.save_adapter(str(folder), "task", use_safetensors=safe, with_head=False)
    if lacks_shared(folder, members):
        return {}, {"family": name, "case": case, "outputs": []}
    again, bare = model_of(name)
    again.load_adapter(str(folder), use_safetensors=safe)
    again.set_active_adapters("task")
    again.eval()
    assert float((output(bare, inputs) - found[key]).abs().max()) == 0, (name, case)
    assert float(found[key].abs().max()) < LARGEST_OUTPUT, (name, case)
    if name == "bert" and any(member.get("architecture") == "reft" for member in members):
        for kind, mask in MASKS.items():
            other = {"input_ids": inputs["input_ids"]}
            found[f"{key}-{kind}"] = output(
                bare, other if mask is None else other | {"attention_mask": torch.tensor(mask)}
            )
    if any(member.get("inv_adapter") for member in members) and with_language_head(name):
        language = language_model(name)
        language.load_adapter(str(folder), use_safetensors=safe)
        language.set_active_adapters("task")
        language.eval()
        with torch.no_grad():
            found[f"{key}-logits"] = language(**inputs).logits.contiguous().clone()
    return found, {"family": name, "case": case, "outputs": sorted(found)}


def make(archive: Path) -> None:
    """Make all cases and pack them."""
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    stand_in_for_torchvision()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cases: list[Options] = []
        refused: list[Options] = []
        expected: dict[str, Any] = {}
        for name in FAMILIES:
            for case, members in cases_of(name).items():
                try:
                    found, fields = make_case(root, name, case, members)
                except CRASHES as error:
                    text = f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"
                    refused.append({"family": name, "case": case, "error": text})
                    continue
                cases.append(fields)
                if not found:
                    continue
                before = output(plain(name), inputs_of(name, members))
                text = found[f"{name}-{case}"][:, -before.shape[1] :] if before.dim() == 3 else found[f"{name}-{case}"]
                assert name in MUTED or relative({"": text}, {"": before}) > LEAST_EFFECT, (name, case)
                expected |= found
        pack_listed(root, archive, "further-cases", cases, refused, expected)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else ARCHIVE)
