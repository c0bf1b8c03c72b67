"""Make tests/data/peft-prompt-cases.tar.gz: prefixes and prompts as PEFT computes them.

    python make_peft_prompt_cases.py [ARCHIVE]    needs PEFT 0.21.2 and transformers 5.23.0, half a minute

README.md beside this file tells what is inside and why.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from make_bottleneck_cases import pack
from prefix_families import BART, BERT, BOTH, DECODER, ENCODER, GPT2, LLAMA, SHORT, T5, TEXT, Options
from reference_models import fill, fill_base, generator

ARCHIVE = Path(__file__).parent.parent / "data" / "peft-prompt-cases.tar.gz"
TOLERANCE = {"atol": 2e-5, "rtol": 2e-5}

WINDOW: Options = {"sliding_window": 4}
GEMMA: Options = LLAMA | {"head_dim": 6, "layer_types": ["sliding_attention", "full_attention"]} | WINDOW
LEFT: Options = {"input_ids": [[9, 26, 36, 35, 14], [1, 1, 36, 6, 28]], "attention_mask": [[1] * 5, [0, 0, 1, 1, 1]]}
NO_END: Options = {"eos_token_id": 39, "bos_token_id": 2}


@dataclass(frozen=True)
class Base:
    """A base.

    Attributes:
        cls: class of transformers.
        config: of the base.
        task: task type of PEFT.
        kinds: types of PEFT that it can run.
    """

    cls: str
    config: Options
    task: str
    kinds: tuple[str, ...] = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")

    @property
    def key(self) -> str:
        """The output that is compared."""
        return "last_hidden_state" if self.task == "FEATURE_EXTRACTION" else "logits"

    @property
    def inputs(self) -> Options:
        """Its inputs; PEFT counts the mask of its decoder, so that there is one."""
        return BOTH if self.task == "SEQ_2_SEQ_LM" else DECODER if self.task == "CAUSAL_LM" else ENCODER


PROMPTS = ("PROMPT_TUNING", "P_TUNING")
FEATURES, CAUSAL, BOTH_WAYS = "FEATURE_EXTRACTION", "CAUSAL_LM", "SEQ_2_SEQ_LM"
BASES: dict[str, Base] = {
    "bert": Base("BertModel", BERT | TEXT, FEATURES),
    "roberta": Base("RobertaModel", BERT | TEXT, FEATURES),
    "electra": Base("ElectraModel", BERT | TEXT | {"embedding_size": 16}, FEATURES),
    "distilbert": Base(
        "DistilBertModel", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 20} | TEXT, FEATURES, PROMPTS
    ),
    "deberta": Base("DebertaModel", BERT | TEXT | {"relative_attention": True}, FEATURES, PROMPTS),
    "gpt2": Base("GPT2LMHeadModel", GPT2 | TEXT | NO_END | {"n_positions": 40}, CAUSAL),
    "gptj": Base("GPTJForCausalLM", GPT2 | TEXT | NO_END | {"n_positions": 40, "rotary_dim": 4}, CAUSAL),
    "llama": Base("LlamaForCausalLM", LLAMA | TEXT | NO_END, CAUSAL),
    "mistral": Base("MistralForCausalLM", LLAMA | TEXT | NO_END | WINDOW, CAUSAL),
    "qwen2": Base("Qwen2ForCausalLM", LLAMA | TEXT | NO_END, CAUSAL),
    "qwen3": Base("Qwen3ForCausalLM", LLAMA | TEXT | NO_END | {"head_dim": 8}, CAUSAL),
    "gemma2": Base("Gemma2ForCausalLM", GEMMA | TEXT | NO_END | {"head_dim": 8}, CAUSAL),
    "gemma3_text": Base("Gemma3ForCausalLM", GEMMA | TEXT | NO_END | {"head_dim": 8}, CAUSAL),
    "phi": Base("PhiForCausalLM", BERT | TEXT | NO_END, CAUSAL),
    "bart": Base("BartForConditionalGeneration", BART | TEXT | NO_END | {"decoder_start_token_id": 2}, BOTH_WAYS),
    "t5": Base(
        "T5ForConditionalGeneration",
        T5 | SHORT | {"vocab_size": 40, "pad_token_id": 1, "decoder_start_token_id": 2, "eos_token_id": 39, "d_kv": 8},
        BOTH_WAYS,
    ),
    "t5three": Base(
        "T5ForConditionalGeneration",
        T5
        | SHORT
        | {"vocab_size": 40, "pad_token_id": 1, "d_kv": 8, "num_layers": 3, "num_decoder_layers": 3}
        | {"decoder_start_token_id": 2, "eos_token_id": 39},
        BOTH_WAYS,
        ("PREFIX_TUNING",),
    ),
}


def load(root: Path, name: str) -> Any:
    """Return a base in eval mode; the path is not written into what is saved."""
    import transformers

    model = getattr(transformers, BASES[name].cls).from_pretrained(root / "bases" / name).eval()
    model.name_or_path = model.config.name_or_path = f"bases/{name}"
    return model


def make_base(root: Path, name: str) -> None:
    """Save a randomly filled base under bases/."""
    import transformers

    cls = getattr(transformers, BASES[name].cls)
    model = cls(cls.config_class(**BASES[name].config))
    fill_base(model, name)
    model.save_pretrained(root / "bases" / name)


def configuration(kind: str, task: str) -> Any:
    """Return the configuration of an adapter."""
    import peft

    cls = {
        "PREFIX_TUNING": peft.PrefixTuningConfig,
        "PROMPT_TUNING": peft.PromptTuningConfig,
        "P_TUNING": peft.PromptEncoderConfig,
    }[kind]
    extra = {"encoder_hidden_size": 12} if kind == "P_TUNING" else {}
    # PEFT does not find the sizes of every model.
    extra |= {"token_dim": 16, "num_attention_heads": 2} if kind != "PREFIX_TUNING" else {}
    return cls(task_type=task, num_virtual_tokens=3, **extra)


def outputs(model: Any, base: Base, kind: str) -> Options:
    """Return output name → what the model computes."""
    import torch

    with torch.no_grad():
        tensors = {key: torch.tensor(value) for key, value in base.inputs.items()}
        found = {"output": model(**tensors)[base.key].contiguous()}
        if base.task == FEATURES:
            return found
        few = {"max_new_tokens": 5, "do_sample": False}
        given = {key: tensors[key] for key in ("input_ids", "attention_mask")}
        given = {key: t[:1] for key, t in given.items()} if base.task == CAUSAL else given
        found["generated"] = model.generate(**given, **few)
        if base.task == CAUSAL and kind == "PREFIX_TUNING":
            left = {key: torch.tensor(value) for key, value in LEFT.items()}
            found["generated_left"] = model.generate(**left, **few)
    return found


def make_case(root: Path, name: str, kind: str) -> None:
    """Make one case."""
    import peft
    from safetensors.torch import save_file

    base, case = BASES[name], f"d-{name}-{kind.lower()}"
    model = peft.get_peft_model(load(root, name), configuration(kind, base.task)).eval()
    gen = generator(f"adapter {case}")
    for parameter in model.prompt_encoder.parameters():
        fill(parameter, gen, 0.5)
    folder = root / case / "adapters" / "default"
    model.save_pretrained(folder)
    again = peft.PeftModel.from_pretrained(load(root, name), folder).eval()
    got, plain = outputs(again, base, kind), outputs(load(root, name), base, kind)
    assert (got["output"] - outputs(model, base, kind)["output"]).abs().max() < 1e-5, case
    same = got["output"][:, -plain["output"].shape[1] :]
    effect = float((same - plain["output"]).norm() / plain["output"].norm())
    assert effect > 1e-2, (case, effect)
    save_file(got | {"base_output": plain["output"]}, root / case / "expected.safetensors")
    write_case(root, name, case, effect)
    (folder / "README.md").unlink()


def write_case(root: Path, name: str, case: str, effect: float) -> None:
    """Write case.json."""
    from importlib.metadata import version

    fields = {
        "id": case,
        "arch": name,
        "group": "D",
        "kind": "peft-loader",
        "library": {key: version(key) for key in ("peft", "torch", "transformers")},
        "base": f"../bases/{name}",
        "base_class": BASES[name].cls,
        "adapters": [{"name": "default", "path": "adapters/default", "weights_format": "safetensors"}],
        "active": "default",
        "inputs": BASES[name].inputs,
        "inputs_left": LEFT,
        "float_inputs": [],
        "output_key": BASES[name].key,
        "tolerance": TOLERANCE,
        "checks": {"rel_diff_vs_base": effect},
        "what": "output_key equals `output` for `inputs`; greedy generation of 5 tokens gives `generated` (one row in"
        " decoders) and `generated_left` for `inputs_left`",
    }
    text = json.dumps(fields, indent=1, sort_keys=True)
    (root / case / "case.json").write_text(text + "\n", encoding="utf-8")


def main(archive: Path) -> None:
    """Make all cases and pack them."""
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        root, count = Path(folder), 0
        for name, base in BASES.items():
            make_base(root, name)
            for kind in base.kinds:
                make_case(root, name, kind)
                count += 1
        pack(root, archive, "peft-prompt-cases")
    print(f"{count} cases, {archive.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ARCHIVE)
