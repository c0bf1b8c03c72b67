"""Make tests/data/foreign-cases.tar.gz: LoRA of other libraries than `adapters` and PEFT, as those compute them.

Each step runs where its library is, all in one folder:

    python make_foreign_cases.py bases FOLDER       adapterhub of this tree: base models, and what it writes
    python make_foreign_cases.py mlx FOLDER         mlx-lm 0.32.2 (mlx[cpu] 0.32.4)
    python make_foreign_cases.py gguf FOLDER        llama-cpp-python 0.3.36, gguf 0.19.0
    python make_foreign_cases.py loralib FOLDER     loralib 0.1.2, transformers 5
    python make_foreign_cases.py diffusers FOLDER   diffusers 0.36.0, PEFT 0.21.2, transformers 4.57.6
    python make_foreign_cases.py converted FOLDER   adapterhub of this tree: the last ones in each other's format
    python make_foreign_cases.py diffused FOLDER    as diffusers: runs those
    python make_foreign_cases.py pack FOLDER

The weights of the bases follow from their names (families.py), so that only adapters and outputs are kept.
"""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ARCHIVE = Path(__file__).parent.parent / "data" / "foreign-cases.tar.gz"

DECODERS = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi": "PhiForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}
"""Family → class with logits over the vocabulary."""

IDS = [[39, 26, 46, 55, 3, 7], [36, 96, 3, 28, 29, 11]]
"""What every model is asked; without padding, which not every library knows."""

OURS = {
    "plain": "lora[r=3,alpha=5]",
    "all": 'lora[targets=["all-linear"],r=2,alpha=6]',
    "paths": 'lora[targets=["PATH"],r=4,alpha=4]',
    "uneven": 'lora[r=4,alpha=8,ranks={"query":2},alphas={"query":4}]',
    "stable": "lora[r=4,alpha=2,rank_stabilised=true]",
    "dora": "dora[r=3,alpha=5]",
}
"""Case → adapter that is written; PATH is a map of the last layer."""

LAST = {"gpt2": "h.1.mlp.c_fc", "phi": "layers.1.mlp.fc1"}
"""Family → that map, where it is not layers.1.mlp.up_proj."""


def base_of(family: str) -> Any:
    """Return a model with weights that follow from the names of its parameters."""
    import transformers
    from families import configuration, settle

    config = configuration(family)
    if family == "gemma3_text":
        # The others want a layer of each kind, and the last of six is of the other one.
        config.num_hidden_layers = config.sliding_window_pattern = 6
        config.layer_types = ["sliding_attention"] * 5 + ["full_attention"]
    if family == "phi":
        # What transformers 5 writes elsewhere.
        config.partial_rotary_factor = 0.5
    if family == "qwen2":
        config.rope_theta = 10000.0
    if family == "gpt2":
        config.n_ctx, config.n_inner = config.n_positions, 4 * config.n_embd
    return settle(getattr(transformers, DECODERS[family])(config))


def ours(family: str) -> Iterator[tuple[str, str]]:
    """Yield case and adapter."""
    for case, text in OURS.items():
        # A DoRA of the parts of a joint map has no meaning.
        if case == "plain" or family == "llama" or (case == "dora" and family != "gpt2"):
            yield case, text.replace("PATH", LAST.get(family, "layers.1.mlp.up_proj"))


def adapter_of(family: str, case: str, text: str) -> Any:
    """Return an adapter of this package with values that follow from its keys."""
    import dataclasses

    from families import values

    from adapterhub.loader import attach

    adapters = attach(base_of(family))
    adapters.add("case", text)
    found = adapters.adapter("case")
    tensors = {
        key: values(f"{family}-{case}-{key}", t.shape, 0.5, 1.5 if key.endswith("magnitude") else 0.0)
        for key, t in found.tensors.items()
    }
    return dataclasses.replace(found, tensors=tensors)


def make_bases(folder: Path) -> None:
    """Save bases for the other libraries, and adapters in every format that says them."""
    from adapterhub.converters import write
    from adapterhub.errors import UnsupportedError
    from adapterhub.loader.known_base import KnownBase

    for family in DECODERS:
        base = base_of(family)
        # The first files of GPT-2 had no word for the wrapping class, and MLX-LM reads only those.
        (base.base_model if family == "gpt2" else base).save_pretrained(folder / "bases" / family)
        known = KnownBase(base)
        for case, text in ours(family):
            adapter = adapter_of(family, case, text)
            name = f"{family}-{case}"
            (folder / "ours").mkdir(exist_ok=True)
            write(adapter, folder / "ours" / f"{name}.safetensors", force=True)
            for format_, end in (("mlx", ""), ("gguf", ".gguf")):
                try:
                    (folder / "written" / format_).mkdir(parents=True, exist_ok=True)
                    write(adapter, folder / "written" / format_ / f"{name}{end}", format_, force=True, base=known)
                except UnsupportedError as error:
                    print(name, format_, error)


# MLX-LM

MLX_CASES: dict[str, dict[str, Any]] = {
    "default": {"num_layers": -1, "lora_parameters": {"rank": 3, "scale": 1.5, "dropout": 0.0}},
    "keys": {
        "num_layers": 1,
        "lora_parameters": {"rank": 2, "scale": 20, "dropout": 0.1, "keys": ["ATTENTION", "WIDENS"]},
    },
    "dora": {
        "fine_tune_type": "dora",
        "num_layers": 2,
        "lora_parameters": {"rank": 4, "scale": 0.7, "dropout": 0.0, "keys": ["ATTENTION"]},
    },
    "every": {"num_layers": -1, "lora_parameters": {"rank": 4, "scale": 0.3, "dropout": 0.0, "keys": ["ATTENTION"]}},
    "whole": {
        "num_layers": 0,
        "lora_parameters": {"rank": 2, "scale": 2.0, "dropout": 0.0, "keys": ["lm_head", "LAST"]},
    },
}
"""Case → what adapter_config.json says; words in capitals are modules of the family."""

MLX_WORDS = {
    "gpt2": {"ATTENTION": "attn.c_attn", "WIDENS": "mlp.c_fc", "LAST": "model.h.1.mlp.c_fc"},
    "phi": {"ATTENTION": "self_attn.q_proj", "WIDENS": "mlp.fc1", "LAST": "model.layers.1.mlp.fc1"},
    "": {"ATTENTION": "self_attn.q_proj", "WIDENS": "mlp.up_proj", "LAST": "model.layers.1.mlp.up_proj"},
}


def mlx_document(family: str, case: str) -> dict[str, Any]:
    """Return adapter_config.json of a case, with a few of the fields that training leaves there."""
    words = MLX_WORDS.get(family, MLX_WORDS[""])
    document = json.loads(json.dumps(MLX_CASES[case]))
    keys = document["lora_parameters"].get("keys")
    if keys is not None:
        document["lora_parameters"]["keys"] = [words.get(key, key) for key in keys]
    return {"fine_tune_type": "lora", "model": f"tiny/{family}", "iters": 10, "seed": 0, **document}


def make_mlx(folder: Path) -> None:
    """Make adapters as training leaves them, and run those and ours."""
    import mlx.core as mx
    import numpy as np
    from mlx.utils import tree_flatten, tree_unflatten
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_adapters, load_model, save_config

    mx.set_default_device(mx.cpu)
    expected = {}

    def logits(model: Any) -> Any:
        model.eval()
        return np.array(model(mx.array(IDS)).astype(mx.float32))

    for family in DECODERS:
        base, _ = load_model(folder / "bases" / family)
        expected[f"base-{family}"] = logits(base)
        for case in MLX_CASES:
            if case == "whole" and "lm_head" not in base:
                continue
            place = folder / "mlx" / f"{family}-{case}"
            place.mkdir(parents=True, exist_ok=True)
            model, _ = load_model(folder / "bases" / family)
            model.freeze()
            document = mlx_document(family, case)
            dora = document["fine_tune_type"] == "dora"
            linear_to_lora_layers(model, document["num_layers"], document["lora_parameters"], use_dora=dora)
            mx.random.seed(len(expected))
            grown = [
                (name, value * 1.2 if name.endswith(".m") else mx.random.normal(value.shape) * 0.2)
                for name, value in tree_flatten(model.trainable_parameters())
            ]
            model.update(tree_unflatten(grown))
            mx.save_safetensors(str(place / "adapters.safetensors"), dict(tree_flatten(model.trainable_parameters())))
            save_config(document, place / "adapter_config.json")
            again, _ = load_model(folder / "bases" / family)
            expected[f"mlx-{family}-{case}"] = logits(load_adapters(again, str(place)))
            assert np.array_equal(logits(model), expected[f"mlx-{family}-{case}"])
            assert np.abs(expected[f"mlx-{family}-{case}"] - expected[f"base-{family}"]).max() > 0.1
        for place in sorted((folder / "written" / "mlx").glob(f"{family}-*")):
            model, _ = load_model(folder / "bases" / family)
            expected[f"written-mlx-{place.name}"] = logits(load_adapters(model, str(place)))
    save_outputs(folder / "mlx.safetensors", expected)


# llama.cpp

GGUF_ARCH = {"mistral": "llama", "gemma3_text": "gemma3", "phi": "phi2"}
"""Family → what llama.cpp calls it, where that is another word."""

GGUF_CASES = {
    "attention": (["q_proj", "k_proj", "v_proj", "o_proj"], 4, 6.0),
    "feed-forward": (["gate_proj", "up_proj", "down_proj"], 2, 2.0),
    "output": (["lm_head"], 2, 1.0),
    "half": (["q_proj", "down_proj"], 3, 8.0),
    "unscaled": (["q_proj"], 3, 0.0),
}
"""Case → last words of the modules in llama, rank, alpha."""

GGUF_MODULES = {
    "gpt2": {"attention": ["c_attn"], "feed-forward": ["c_fc"], "half": ["c_attn"], "unscaled": ["c_attn"]},
    "phi": {
        "attention": ["q_proj", "k_proj", "v_proj", "dense"],
        "feed-forward": ["fc1", "fc2"],
        "half": ["q_proj", "fc2"],
    },
}


def in_pairs(rows: Any, heads: int) -> Any:
    """Return rows in the order that llama.cpp has them in for Llama and Mistral."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def gguf_names(family: str, layers: int) -> Callable[[str], str]:
    """Return what turns a parameter of transformers into its name in a GGUF file."""
    import gguf

    wanted = GGUF_ARCH.get(family, family)
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == wanted)
    known = gguf.get_tensor_name_map(arch, layers)

    def name(key: str) -> str:
        found = known.get_name(key, try_suffixes=(".weight", ".bias"))
        assert found is not None, key
        return found

    return name


def gguf_base(family: str, folder: Path, path: Path) -> None:
    """Write a base model with its weights as llama.cpp wants them, without a vocabulary."""
    import gguf
    from safetensors.numpy import load_file

    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    size = said.get("hidden_size", said.get("n_embd"))
    layers = said.get("num_hidden_layers", said.get("n_layer"))
    heads = said.get("num_attention_heads", said.get("n_head"))
    kv = said.get("num_key_value_heads") or heads
    arch = GGUF_ARCH.get(family, family)
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(40)
    writer.add_embedding_length(size)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(said.get("intermediate_size", said.get("n_inner")))
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    head = said.get("head_dim") or size // heads
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(said.get("rms_norm_eps", 1e-6))
    writer.add_layer_norm_eps(said.get("layer_norm_eps", said.get("layer_norm_epsilon", 1e-5)))
    rope = said.get("rope_parameters") or {}
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope.get("rope_theta", 10000.0))
    writer.add_rope_dimension_count(int(head * rope.get("partial_rotary_factor", 1.0)))
    writer.add_vocab_size(said["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    if family.startswith("gemma"):
        writer.add_sliding_window(16)
    if family == "gemma2":
        writer.add_attn_logit_softcapping(said["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(said["final_logit_softcapping"])
    name = gguf_names(family, layers)
    for key, value in load_file(folder / "model.safetensors").items():
        if family.startswith("gemma") and key.endswith("norm.weight"):
            value = value + 1
        if arch == "llama" and key.endswith(("q_proj.weight", "k_proj.weight")):
            value = in_pairs(value, heads if "q_proj" in key else kv)
        if family == "gpt2" and key.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            value = value.T
        writer.add_tensor(name(key), value.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_adapter(family: str, case: str, folder: Path, path: Path) -> bool:
    """Write an adapter as convert_lora_to_gguf.py does; return whether the family has the modules."""
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    ends, r, alpha = GGUF_CASES[case]
    ends = GGUF_MODULES.get(family, {}).get(case, ends)
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heads = said.get("num_attention_heads", said.get("n_head"))
    kv = said.get("num_key_value_heads") or heads
    weights = load_file(folder / "model.safetensors")
    arch = GGUF_ARCH.get(family, family)
    name = gguf_names(family, said.get("num_hidden_layers", said.get("n_layer")))
    modules = [key for key in weights if key.endswith(tuple(f"{end}.weight" for end in ends))]
    if not modules:
        return False
    writer = gguf.GGUFWriter(path, arch)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    writer.add_string("general.description", "kept as it is")
    writer.add_array("general.tags", ["a", "b"])
    dtype = np.float16 if case == "half" else np.float32
    draw = np.random.default_rng(len(family) + r)
    for key in modules:
        outputs, inputs = weights[key].shape[:: -1 if family == "gpt2" else 1]
        a = (draw.standard_normal((r, inputs)) * 0.3).astype(dtype)
        b = (draw.standard_normal((outputs, r)) * 0.3).astype(dtype)
        if arch == "llama" and key.endswith(("q_proj.weight", "k_proj.weight")):
            b = in_pairs(b, heads if "q_proj" in key else kv)
        writer.add_tensor(f"{name(key)}.lora_a", a)
        writer.add_tensor(f"{name(key)}.lora_b", b.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return True


def llama_logits(model_path: Path, adapter: Path | None) -> Any:
    """Return the logits of llama.cpp, with an adapter or without."""
    import ctypes

    import llama_cpp as cpp
    import numpy as np

    model = cpp.llama_model_load_from_file(str(model_path).encode(), cpp.llama_model_default_params())
    assert model, model_path
    settings = cpp.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_threads, settings.n_threads_batch = 64, 64, 1, 1
    settings.flash_attn_type = settings.type_k = settings.type_v = 0
    context = cpp.llama_init_from_model(model, settings)
    if adapter is not None:
        # What llama.cpp cannot find it does not always notice.
        assert adapter.read_bytes()[:4] == b"GGUF"
        lora = cpp.llama_adapter_lora_init(model, str(adapter).encode())
        assert lora, adapter
        loras = (cpp.llama_adapter_lora_p_ctypes * 1)(lora)
        assert cpp.llama_set_adapters_lora(context, loras, 1, (ctypes.c_float * 1)(1.0)) == 0
    count = cpp.llama_vocab_n_tokens(cpp.llama_model_get_vocab(model))
    rows = []
    for ids in IDS:
        cpp.llama_memory_clear(cpp.llama_get_memory(context), True)
        batch = cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for place, token in enumerate(ids):
            batch.token[place], batch.pos[place], batch.logits[place] = token, place, 1
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
        assert cpp.llama_decode(context, batch) == 0
        data = cpp.llama_get_logits(context)
        rows.append(np.ctypeslib.as_array(data, (len(ids), count)).copy())
        cpp.llama_batch_free(batch)
    cpp.llama_free(context)
    cpp.llama_model_free(model)
    return np.stack(rows)


def make_gguf(folder: Path) -> None:
    """Make bases and adapters, and run those and ours."""
    import numpy as np

    (folder / "models").mkdir(exist_ok=True)
    (folder / "gguf").mkdir(exist_ok=True)
    expected = {}
    for family in DECODERS:
        source, model = folder / "bases" / family, folder / "models" / f"{family}.gguf"
        gguf_base(family, source, model)
        expected[f"base-{family}"] = llama_logits(model, None)
        for case in GGUF_CASES:
            path = folder / "gguf" / f"{family}-{case}.gguf"
            if gguf_adapter(family, case, source, path):
                expected[f"gguf-{family}-{case}"] = llama_logits(model, path)
                assert np.abs(expected[f"gguf-{family}-{case}"] - expected[f"base-{family}"]).max() > 0.05
        for path in sorted((folder / "written" / "gguf").glob(f"{family}-*.gguf")):
            expected[f"written-gguf-{path.stem}"] = llama_logits(model, path)
    save_outputs(folder / "gguf.safetensors", expected)


# State dicts

LORALIB = {
    "qv": ("gpt2", {"c_attn": [True, False, True]}),
    "qkv": ("gpt2", {"c_attn": [True, True, True]}),
    "k-and-mlp": ("gpt2", {"c_attn": [False, True, False], "c_fc": None}),
    "linear": ("llama", {"q_proj": None, "down_proj": None, "embed_tokens": None}),
}
"""Case → family, and last words of modules with their enable_lora, None where they are no joint map."""


def loralib_layer(module: Any, parts: list[bool] | None) -> Any:
    """Return a layer of loralib with the weights of a module."""
    import loralib
    from torch import nn

    if isinstance(module, nn.Embedding):
        layer = loralib.Embedding(*module.weight.shape, r=3, lora_alpha=5, merge_weights=False)
    else:
        joint = not isinstance(module, nn.Linear)
        inputs, outputs = module.weight.shape[:: 1 if joint else -1]
        bias = module.bias is not None
        settings = {"r": 3, "lora_alpha": 5, "fan_in_fan_out": joint, "merge_weights": False, "bias": bias}
        if parts is None:
            layer = loralib.Linear(inputs, outputs, **settings)
        else:
            layer = loralib.MergedLinear(inputs, outputs, enable_lora=parts, **settings)
    layer.load_state_dict(module.state_dict(), strict=False)
    return layer


def make_loralib(folder: Path) -> None:
    """Save state dicts of loralib and of a whole model of PEFT, and run them."""
    import loralib
    import peft
    import torch
    from families import values
    from safetensors.torch import save_file

    (folder / "raw").mkdir(exist_ok=True)
    expected = {}
    for case, (family, modules) in LORALIB.items():
        model = base_of(family)
        for path, module in list(model.named_modules()):
            if path.rpartition(".")[2] in modules:
                model.set_submodule(path, loralib_layer(module, modules[path.rpartition(".")[2]]))
        state = {k: values(f"{case}-{k}", v.shape, 0.5) for k, v in loralib.lora_state_dict(model).items()}
        model.load_state_dict(state, strict=False)
        torch.save(state, folder / "raw" / f"{family}-{case}.bin")
        expected[f"raw-{family}-{case}"] = model.eval()(input_ids=torch.tensor(IDS)).logits.detach().numpy()
    config = peft.LoraConfig(target_modules=["q_proj", "embed_tokens"], r=3, lora_alpha=5)
    model = peft.get_peft_model(base_of("llama"), config).eval()
    state = {k: values(f"peft-{k}", v.shape, 0.5) for k, v in model.state_dict().items() if "lora_" in k}
    model.load_state_dict(state, strict=False)
    save_file(state, folder / "raw" / "llama-peft.safetensors")
    expected["raw-llama-peft"] = model(input_ids=torch.tensor(IDS)).logits.detach().numpy()
    save_outputs(folder / "raw.safetensors", expected)


# Diffusion models

UNET_MODULES = ["to_q", "to_v", "to_out.0", "ff.net.0.proj", "proj_in", "conv1", "time_emb_proj", "conv"]
# diffusers 0.36.0 reads the attention of a kohya file only where all of it is adapted, as sd-scripts does.
TEXT_MODULES = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 32,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}


def text_encoder() -> Any:
    """Return a CLIP text encoder.

    With transformers 5, diffusers 0.42.1 loses what other programs wrote for its attention.
    """
    from families import configuration, settle
    from transformers import CLIPTextModel

    return settle(CLIPTextModel(configuration("clip_text_model")))


def unet() -> Any:
    """Return a UNet."""
    from diffusers import UNet2DConditionModel
    from families import settle

    return settle(UNet2DConditionModel(**UNET))


def diffusion_outputs(path: Path) -> dict[str, Any]:
    """Return what both parts compute with a file, as far as it has them."""
    import torch
    from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader
    from families import values

    text, net = text_encoder(), unet()
    state, alphas, said = Loader.lora_state_dict(path, return_lora_metadata=True, unet_config=net.config)
    if any(key.startswith("unet.") for key in state):
        Loader.load_lora_into_unet(state, network_alphas=alphas, unet=net, metadata=said)
    if any(key.startswith("text_encoder.") for key in state):
        Loader.load_lora_into_text_encoder(state, alphas, text, prefix="text_encoder", metadata=said)
    with torch.no_grad():
        hidden = text.eval()(input_ids=torch.tensor(IDS)).last_hidden_state
        image = net.eval()(values("image", (2, 4, 8, 8), 1.0), 3, encoder_hidden_states=hidden).sample
    return {"text": hidden.numpy(), "image": image.numpy()}


def make_diffusers(folder: Path) -> None:
    """Make files as diffusers saves them, and as it makes them for other programs, and run them."""
    import numpy as np
    from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader
    from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_kohya
    from families import values
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    expected = {}
    for kind in ("diffusers", "kohya"):
        (folder / kind).mkdir(exist_ok=True)
    before = diffusion_outputs_of_nothing()
    for case, alpha in (("said", 6), ("plain", 4)):
        text, net = text_encoder(), unet()
        # The older spelling is read right only where nothing but attentions is adapted.
        modules = UNET_MODULES if case == "said" else ["to_q", "to_k", "to_v", "to_out.0"]
        pattern = {"conv1": 2} if case == "said" else {}
        net.add_adapter(LoraConfig(r=4, lora_alpha=alpha, target_modules=modules, rank_pattern=pattern))
        text.add_adapter(LoraConfig(r=4, lora_alpha=alpha, target_modules=TEXT_MODULES))
        parts = {}
        for name, model in (("unet", net), ("text_encoder", text)):
            state = get_peft_model_state_dict(model)
            parts[name] = {key: values(f"{name}-{key}", t.shape, 0.3) for key, t in state.items()}
        for names in (("unet", "text_encoder"), ("text_encoder",)):
            file = f"{case}-{'both' if len(names) > 1 else 'text'}.safetensors"
            said = {"r": 4, "lora_alpha": alpha, "rank_pattern": {}, "target_modules": TEXT_MODULES}
            net_said = {"r": 4, "lora_alpha": alpha, "target_modules": modules, "rank_pattern": pattern}
            state = {name: parts[name] for name in names}
            if case == "plain":
                state = {name: convert_state_dict_to_diffusers(part) for name, part in state.items()}
            Loader.save_lora_weights(
                folder / "diffusers",
                unet_lora_layers=state.get("unet"),
                text_encoder_lora_layers=state["text_encoder"],
                weight_name=file,
                unet_lora_adapter_metadata=net_said if case == "said" and len(names) > 1 else None,
                text_encoder_lora_adapter_metadata=said if case == "said" else None,
            )
            joined = {f"{name}.{key}": t for name in names for key, t in parts[name].items()}
            # The key of a text encoder alone has no number.
            kohya = {key.replace("lora_te1", "lora_te"): t for key, t in convert_state_dict_to_kohya(joined).items()}
            kohya = {key: t * 0 + alpha if key.endswith(".alpha") else t.contiguous() for key, t in kohya.items()}
            save_file(kohya, folder / "kohya" / file, {"ss_network_dim": "4", "ss_training_comment": "none"})
            for kind in ("diffusers", "kohya"):
                for name, found in diffusion_outputs(folder / kind / file).items():
                    expected[f"{kind}-{file.removesuffix('.safetensors')}-{name}"] = found
                    changed = np.abs(found - before[name]).max()
                    assert changed > 0.05, (kind, file, name, changed)
    save_outputs(folder / "diffusers.safetensors", expected)
    save_names(folder)


def diffusion_outputs_of_nothing() -> dict[str, Any]:
    """Return what both parts compute without an adapter."""
    import torch
    from families import values

    with torch.no_grad():
        hidden = text_encoder()(input_ids=torch.tensor(IDS)).last_hidden_state
        image = unet()(values("image", (2, 4, 8, 8), 1.0), 3, encoder_hidden_states=hidden).sample
    return {"text": hidden.numpy(), "image": image.numpy()}


def save_names(folder: Path) -> None:
    """Save the modules of a UNet of the size of SDXL's, and what diffusers makes of Stability's names."""
    from diffusers import UNet2DConditionModel
    from torch import nn

    sizes = {
        "block_out_channels": (4, 8, 8),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 64,
    }
    net = UNet2DConditionModel(**{**UNET, **sizes})
    names = [name for name, module in net.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    (folder / "unet-modules.json").write_text(json.dumps(sorted(names), indent=0) + "\n", encoding="utf-8")


def make_converted(folder: Path) -> None:
    """Convert the files of both formats into each other, and into themselves by way of ours."""
    import dataclasses

    from adapterhub.converters import read, write

    for kind in ("diffusers", "kohya"):
        for other in ("diffusers", "kohya"):
            for path in sorted((folder / kind).glob("*.safetensors")):
                target = folder / "written" / "diffusion" / f"{kind}-{other}-{path.name}"
                target.parent.mkdir(parents=True, exist_ok=True)
                write(read(path), target, other, force=True)
    # The same with the names of Stability's UNet, as sd-scripts writes them for SDXL.
    adapter = read(folder / "kohya" / "said-both.safetensors")
    extra = {"kohya": {**adapter.manifest.extra["kohya"], "stability": True}}
    adapter = dataclasses.replace(adapter, manifest=dataclasses.replace(adapter.manifest, extra=extra))
    write(adapter, folder / "written" / "diffusion" / "kohya-stability-said-both.safetensors", "kohya", force=True)


def run_converted(folder: Path) -> None:
    """Compare what diffusers computes with what was converted."""
    import numpy as np
    from safetensors.numpy import load_file

    expected = load_file(folder / "diffusers.safetensors")
    for path in sorted((folder / "written" / "diffusion").glob("*.safetensors")):
        kind, _, case = path.stem.split("-", 2)
        for name, found in diffusion_outputs(path).items():
            difference = np.abs(found - expected[f"{kind}-{case}-{name}"]).max()
            print(path.name, name, difference)
            assert difference < 1e-5


def save_outputs(path: Path, expected: dict[str, Any]) -> None:
    """Save outputs by their names."""
    from safetensors.numpy import save_file

    save_file({key: value.astype("float32") for key, value in expected.items()}, path)
    print(len(expected), "outputs in", path)


def pack(folder: Path, archive: Path = ARCHIVE) -> None:
    """Pack what the tests need, the same bytes for the same files."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode = 0, 0, 0, "", "", 0o644
        return member

    import gzip

    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = [path for path in files if path.relative_to(folder).parts[0] not in ("bases", "models")]
    with (
        archive.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for path in kept:
            tar.add(path, f"foreign-cases/{path.relative_to(folder)}", filter=plain)
    print(archive, archive.stat().st_size, "bytes")


STEPS: dict[str, Callable[[Path], None]] = {
    "bases": make_bases,
    "mlx": make_mlx,
    "gguf": make_gguf,
    "loralib": make_loralib,
    "diffusers": make_diffusers,
    "converted": make_converted,
    "diffused": run_converted,
    "pack": pack,
}

if __name__ == "__main__":
    STEPS[sys.argv[1]](Path(sys.argv[2]))
