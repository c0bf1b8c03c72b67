"""LoRA files of diffusion models: diffusers' and kohya-ss's, and how their modules are named.

diffusers made the files and ran what is made of them here; see tests/recipes/make_foreign_cases.py.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import settle
from golden import Archive
from make_foreign_cases import IDS
from safetensors.torch import load_file, save_file
from test_foreign_formats import same, same_adapters
from tiny_models import family, with_adapters

from adapterhub.adapter import Adapter
from adapterhub.converters import by_name as format_of
from adapterhub.converters import detect, diffusion, read, write
from adapterhub.errors import AdapterHubError, FormatError, UnsupportedError, UsageError
from adapterhub.loader import attach

FOLDER = Archive("foreign-cases.tar.gz").folder()
EXPECTED = load_file(FOLDER / "diffusers.safetensors")
KINDS = ("diffusers", "kohya")
FILES = [f"{kind}/{path.name}" for kind in KINDS for path in sorted((FOLDER / kind).glob("*.safetensors"))]
TEXTS = [file for file in FILES if "-text" in file]
BOTH = [file for file in FILES if "-both" in file]
MODULES: list[str] = json.loads((FOLDER / "unet-modules.json").read_text("utf-8"))


def kind_of(file: str) -> str:
    return file.partition("/")[0]


def hidden(adapter: Adapter | None) -> torch.Tensor:
    """Return what the text encoder of the recipe computes."""
    base = settle(family("clip_text_model"), lambda key: f"text_model.{key}")
    if adapter is not None:
        attach(base).load(adapter, set_active=True)
    with torch.no_grad():
        found: torch.Tensor = base(input_ids=torch.tensor(IDS)).last_hidden_state
    return found


# What diffusers computes


@pytest.mark.parametrize("file", FILES)
def test_the_text_encoder_of_a_file_computes_what_it_does_in_diffusers(file: str) -> None:
    options = {} if file in TEXTS else {"part": "text_encoder"}
    adapter = read(FOLDER / file, options=options)
    assert adapter.manifest.base.architecture == "clip_text_model"
    wanted = EXPECTED[f"{file.replace('/', '-').removesuffix('.safetensors')}-text"]
    assert torch.allclose(hidden(adapter), wanted, atol=1e-4, rtol=1e-4)
    assert (hidden(None) - wanted).abs().max() > 0.05


@pytest.mark.parametrize("other", KINDS)
@pytest.mark.parametrize("file", FILES)
def test_what_diffusers_ran_of_a_conversion_is_what_is_written_today(file: str, other: str, tmp_path: Path) -> None:
    kind, name = file.split("/")
    path = write(read(FOLDER / file), tmp_path / name, other)
    ran = FOLDER / "written" / "diffusion" / f"{kind}-{other}-{name}"
    assert same(format_of(other).read(path), format_of(other).read(ran))
    if kind == other:
        assert same(format_of(other).read(path), format_of(other).read(FOLDER / file))


def test_the_names_of_stability_s_unet_that_diffusers_ran_are_those_of_the_same_modules() -> None:
    ran = read(FOLDER / "written" / "diffusion" / "kohya-stability-said-both.safetensors")
    adapter = read(FOLDER / "kohya" / "said-both.safetensors")
    assert ran.config == adapter.config
    assert ran.tensors.keys() == adapter.tensors.keys()
    assert any("input_blocks" in key for key in format_of("kohya").encode(ran).tensors["adapter"])


# The laws


@pytest.mark.parametrize("file", FILES)
def test_a_file_comes_back_as_it_was_by_way_of_the_native_format(file: str, tmp_path: Path) -> None:
    assert detect(FOLDER / file).name == kind_of(file)
    adapter = read(FOLDER / file)
    again = read(write(adapter, tmp_path / "a.safetensors"))
    assert same_adapters(again, adapter)
    assert same(format_of(kind_of(file)).encode(again), format_of(kind_of(file)).read(FOLDER / file))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text",
    [
        "lora",
        "lora[rank_stabilised=true,r=5,alpha=7]",
        'lora[ranks={"query":2},alphas={"value":3}]',
        'lora[targets=["all-linear"],leave_out=[0]]',
    ],
)
def test_an_adapter_of_our_own_comes_back_as_it_was(kind: str, text: str, tmp_path: Path) -> None:
    adapter = with_adapters(family("clip_text_model"), x=text).adapter("x")
    path = write(adapter, tmp_path / "x.safetensors", kind)
    assert detect(path).name == kind
    assert same_adapters(read(path), adapter)


@pytest.mark.parametrize(("kind", "other"), [KINDS, KINDS[::-1]])
def test_a_file_goes_to_the_other_format_and_back(kind: str, other: str, tmp_path: Path) -> None:
    source = FOLDER / kind / "said-both.safetensors"
    there = write(read(source), tmp_path / "there.safetensors", other)
    back = write(read(there), tmp_path / "back.safetensors", kind)
    assert same(format_of(kind).read(back), format_of(kind).read(source))


# Names


@pytest.mark.parametrize("start", range(0, len(MODULES), 200))
def test_every_module_of_a_unet_is_told_from_its_joined_name(start: int) -> None:
    for name in MODULES[start : start + 200]:
        assert diffusion.dotted(name.replace(".", "_")) == name
        theirs = diffusion.to_stability(name)
        assert theirs is not None, name
        assert diffusion.from_stability(theirs) == name
        assert diffusion.dotted(theirs.replace(".", "_")) == theirs


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("input_blocks.0.0", "conv_in"),
        ("input_blocks.1.0.in_layers.2", "down_blocks.0.resnets.0.conv1"),
        ("input_blocks.3.0.op", "down_blocks.0.downsamplers.0.conv"),
        ("middle_block.1.proj_in", "mid_block.attentions.0.proj_in"),
        ("middle_block.2.out_layers.3", "mid_block.resnets.1.conv2"),
        ("output_blocks.2.2.conv", "up_blocks.0.upsamplers.0.conv"),
        ("output_blocks.8.0.skip_connection", "up_blocks.2.resnets.2.conv_shortcut"),
        ("label_emb.0.2", "add_embedding.linear_2"),
    ],
)
def test_modules_of_stability_s_unet_are_those_of_diffusers(theirs: str, ours: str) -> None:
    assert diffusion.from_stability(theirs) == ours
    assert diffusion.to_stability(ours) == theirs


@pytest.mark.parametrize(
    "path",
    [
        "input_blocks.3.0.x",
        "input_blocks.0.1.a",
        "middle_block.3.a",
        "output_blocks.1.2.conv",
        "input_blocks.x.0.a",
        "a",
    ],
)
def test_what_stability_s_unet_has_not_is_none(path: str) -> None:
    assert diffusion.from_stability(path) is None


def test_files_of_transformers_5_have_no_word_in_front_of_a_text_encoder(tmp_path: Path) -> None:
    tensors = load_file(FOLDER / "diffusers" / "plain-text.safetensors")
    path = tmp_path / "x.safetensors"
    save_file({key.replace(".text_model.", "."): t for key, t in tensors.items()}, path)
    adapter, former = read(path), read(FOLDER / "diffusers" / "plain-text.safetensors")
    assert adapter.tensors.keys() == former.tensors.keys()
    assert same(format_of("diffusers").encode(adapter), format_of("diffusers").read(path))


def test_older_spellings_of_diffusers_are_read_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    module = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor"
    pairs = {"to_q_lora": (8, 8), "to_out_lora": (8, 8)}
    tensors = {f"{module}.{name}.down.weight": torch.ones(2, size[1]) for name, size in pairs.items()}
    tensors |= {f"{module}.{name}.up.weight": torch.ones(size[0], 2) for name, size in pairs.items()}
    save_file(tensors, path)
    adapter = read(path)
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A" in adapter.tensors
    assert same(format_of("diffusers").encode(adapter), format_of("diffusers").read(path))


# Parts


def test_a_part_is_read_alone_and_nothing_can_be_attached_to_all() -> None:
    path = FOLDER / "kohya" / "said-both.safetensors"
    whole = read(path)
    assert whole.manifest.base.architecture == "diffusion_pipeline"
    text, unet = (read(path, options={"part": part}) for part in ("text_encoder", "unet"))
    assert len(text.tensors) + len(unet.tensors) == len(whole.tensors)
    with pytest.raises(UsageError, match=r"it has (unet, text_encoder|text_encoder, unet)\Z"):
        read(path, options={"part": "text_encoder_2"})
    with pytest.raises(AdapterHubError, match="diffusion_pipeline"):
        hidden(whole)


def test_a_second_text_encoder_is_a_part(tmp_path: Path) -> None:
    tensors = load_file(FOLDER / "kohya" / "said-text.safetensors")
    both = {key.replace("lora_te_", f"lora_te{n}_"): t.clone() for key, t in tensors.items() for n in (1, 2)}
    save_file(both, tmp_path / "x.safetensors")
    adapter = read(tmp_path / "x.safetensors")
    assert same(format_of("kohya").encode(adapter), format_of("kohya").read(tmp_path / "x.safetensors"))
    second = read(tmp_path / "x.safetensors", options={"part": "text_encoder_2"})
    assert second.tensors.keys() == read(FOLDER / "kohya" / "said-text.safetensors").tensors.keys()


# What is wrong

KEY = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({f"{KEY}.alpha": torch.tensor(0.0)}, r"alpha of text_encoder.*q_proj is 0\.0"),
        ({f"{KEY}.alpha": torch.tensor(float("nan"))}, "is nan"),
        ({f"{KEY}.alpha": torch.ones(4)}, "no number"),
        ({f"{KEY}.alpha": torch.tensor(6.0, dtype=torch.float16)}, "several ways"),
        ({f"{KEY}.lora_up.weight": None}, "missing"),
        ({f"{KEY}.lora_down.weight": None}, "no matrix A"),
        ({f"{KEY}.lora_up.weight": torch.ones(32, 3)}, "has shape"),
        ({f"{KEY}.lora_mid.weight": torch.ones(3, 3)}, "lora_mid.weight, which is no LoRA"),
        ({f"{KEY}.dora_scale": torch.ones(3)}, "dora_scale, which is no LoRA"),
        ({f"{KEY}.hada_w1_a": torch.ones(3)}, "hada_w1_a, which is no LoRA"),
        ({f"{KEY}.other": torch.ones(3)}, "ends in no lora_down"),
        ({"some.weight": torch.ones(3)}, "of no part"),
        ({"lora_te_text_model_nothing.lora_up.weight": torch.ones(3, 3)}, "no name that is known"),
        ({"lora_te_text_model_encoder_layers_9_mlp_fc1.alpha": torch.tensor(6.0)}, "and no update of it"),
        ({"lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(6.0)}, "no name that is known"),
    ],
    ids=str,
)
def test_a_wrong_file_of_kohya_is_told(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    tensors = {**load_file(FOLDER / "kohya" / "said-text.safetensors"), **change}
    save_file({key: t for key, t in tensors.items() if t is not None}, tmp_path / "x.safetensors")
    with pytest.raises(AdapterHubError, match=says):
        read(tmp_path / "x.safetensors", finite=False)


def test_a_map_without_alpha_has_a_scale_of_one(tmp_path: Path) -> None:
    tensors = load_file(FOLDER / "kohya" / "said-text.safetensors")
    some = {key: t for key, t in tensors.items() if not (key.endswith(".alpha") and "fc1" in key)}
    save_file(some, tmp_path / "x.safetensors")
    (config,) = read(tmp_path / "x.safetensors").config
    values = config.to_json()
    assert values["alpha"] == 6
    assert set(values["alphas"].values()) == {4.0}
    parts = format_of("kohya").read(tmp_path / "x.safetensors")
    assert same(format_of("kohya").encode(read(tmp_path / "x.safetensors")), parts)


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("[]", "no object"),
        ("no json", "JSON"),
        ('{"text_encoder.lora_alpha": "x"}', "no number"),
        ('{"text_encoder.lora_alpha": 1e999}', "no number|JSON|finite"),
        ('{"text_encoder.lora_alpha": 2, "text_encoder.alpha_pattern": 3}', "no number"),
        ('{"text_encoder.lora_alpha": 2, "text_encoder.use_dora": true}', "use_dora is True"),
        ('{"text_encoder.lora_alpha": 2, "text_encoder.modules_to_save": ["a"]}', "modules_to_save"),
    ],
)
def test_a_wrong_header_of_diffusers_is_told(said: str, says: str, tmp_path: Path) -> None:
    tensors = load_file(FOLDER / "diffusers" / "said-text.safetensors")
    save_file(tensors, tmp_path / "x.safetensors", {"lora_adapter_metadata": said})
    with pytest.raises(AdapterHubError, match=says):
        read(tmp_path / "x.safetensors")


def test_patterns_in_the_header_of_diffusers_count(tmp_path: Path) -> None:
    tensors = load_file(FOLDER / "diffusers" / "said-text.safetensors")
    said = {"lora_alpha": 2, "alpha_pattern": {"q_proj": 8}, "use_rslora": True, "r": 4}
    text = json.dumps({f"text_encoder.{key}": value for key, value in said.items()})
    save_file(tensors, tmp_path / "x.safetensors", {"lora_adapter_metadata": text, "mine": "kept"})
    adapter = read(tmp_path / "x.safetensors")
    values = adapter.config[0].to_json()
    assert values["alpha"] == 4.0
    assert set(values["alphas"].values()) == {16.0}
    assert same(format_of("diffusers").encode(adapter), format_of("diffusers").read(tmp_path / "x.safetensors"))


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("text_encoder.text_model.x.lora.alpha", "of no update"),
        ("vae.x.lora_A.weight", "of no update"),
        ("text_encoder.text_model.encoder.layers.7.self_attn.q_proj.lora.down.weight", "spelled otherwise"),
    ],
)
def test_a_key_that_is_none_of_diffusers_is_told(key: str, says: str, tmp_path: Path) -> None:
    tensors = load_file(FOLDER / "diffusers" / "said-text.safetensors")
    save_file({**tensors, key: torch.ones(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(FormatError, match=says):
        read(tmp_path / "x.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_is_no_part_of_a_pipeline_is_refused(kind: str) -> None:
    adapter = with_adapters(family("llama"), x="lora").adapter("x")
    with pytest.raises(UnsupportedError, match="llama is no part of a diffusion model"):
        format_of(kind).encode(adapter)
    whole = read(FOLDER / "kohya" / "said-both.safetensors")
    for other in ("peft", "mlx", "gguf", "adapters"):
        with pytest.raises(UnsupportedError, match="diffusion_pipeline"):
            format_of(other).encode(whole)
    changed = {key.replace("unet.", "vae."): t for key, t in whole.tensors.items()}
    (config,) = whole.config
    targets = tuple(target.replace("unet.", "vae.") for target in config.to_json()["targets"])
    ranks = {path.replace("unet.", "vae."): r for path, r in config.to_json()["ranks"].items()}
    odd = Adapter((dataclasses.replace(config, targets=targets, ranks=ranks),), changed, whole.manifest)  # type: ignore[type-var]
    with pytest.raises(UnsupportedError, match=r"vae\."):
        format_of(kind).encode(odd)


@pytest.mark.parametrize("file", TEXTS)
def test_a_file_that_is_cut_anywhere_ends_in_an_error_of_ours(file: str, tmp_path: Path) -> None:
    data = (FOLDER / file).read_bytes()
    path = tmp_path / "x.safetensors"
    for size in range(0, len(data), 997):
        path.write_bytes(data[:size])
        with pytest.raises(AdapterHubError):
            read(path, format=kind_of(file))
