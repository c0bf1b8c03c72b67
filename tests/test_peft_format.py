"""Files of PEFT: the laws of the format, and what is said of files that are wrong."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from golden import GOLDEN, PEFTS
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_adapters_format import same
from tiny_models import model, with_adapters

import adapterhub.peft_plugin  # noqa: F401 — one more type
from adapterhub.adapter import Adapter, Base, Manifest
from adapterhub.architectures import by_name
from adapterhub.converters import detect, read, write
from adapterhub.converters import peft as peft_format
from adapterhub.converters.peft import bottleneck, documents, prompts, types
from adapterhub.converters.peft.pattern import Ends, Fuel, ends, matches
from adapterhub.errors import AdapterHubError, FormatError, UnsupportedError
from adapterhub.methods import parse_method

Tensors = dict[str, torch.Tensor]
PLAIN = PEFTS.case("bert-lora-list").adapter


def adapter_of(case: str) -> Adapter:
    return read(PEFTS.case(case).adapter)


# The types


def test_every_type_of_peft_is_read_or_refused_with_a_reason() -> None:
    known = {kind.value for kind in peft.PeftType}
    native = {codec.type for codec in (*types.CODECS, *prompts.CODECS)}
    known |= {bottleneck.TYPE}
    assert native | types.REFUSED.keys() == known == documents.defaults().keys()
    assert not native & types.REFUSED.keys()
    assert all(refused.reason and refused.instead for refused in types.REFUSED.values())


def default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory is not dataclasses.MISSING
    value = field.default_factory() if made else None if field.default is dataclasses.MISSING else field.default
    return value.value if isinstance(value, enum.Enum) else value


@pytest.mark.parametrize("kind", list(peft.PeftType), ids=lambda kind: kind.value)
def test_the_fields_of_a_type_and_their_defaults_are_those_of_peft(kind: peft.PeftType) -> None:
    config = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    wanted = {f.name: default(f) for f in dataclasses.fields(config) if f.init and f.name != "runtime_config"}
    assert documents.defaults()[kind.value] == wanted | {"peft_type": kind.value}


def test_there_is_a_case_of_every_native_type() -> None:
    cases = {case["method"] for case in PEFTS.cases()}
    golden = {
        json.loads((case.adapter / "adapter_config.json").read_text("utf-8"))["peft_type"]
        for case in GOLDEN.cases(groups="D")
    }
    assert {codec.type for codec in (*types.CODECS, *prompts.CODECS)} <= cases | golden | {bottleneck.TYPE}


# The laws


def made(text: str, family: str = "bert") -> Adapter:
    """Return an adapter of our own with random values, as it comes from a model."""
    adapters = with_adapters(model(family), x=text)
    found = adapters.adapter("x")
    manifest = dataclasses.replace(
        found.manifest,
        summary="A line",
        license="MIT",
        extra={"adapters": {"prefix": ""}, "else": [1, {"a": None}]},
    )
    return dataclasses.replace(found, manifest=manifest)


WRITABLE = [
    "lora",
    "lora[r=3,alpha=5,rank_stabilised=true]",
    'lora[ranks={"query":2},alphas={"value":3}]',
    'lora[targets=["query","encoder.layer.1.output.dense"],magnitude=dora]',
    "lora[leave_out=[0]]",
    "lora+layer_norm",
    "ia3",
    "vera[r=4]",
    "loha[r=3]",
    "lokr[r=3]",
    "hira[r=3]",
    "miss[r=4]",
    "delora[r=3]",
    "shira[r=2]",
    "c3a[block_size=8]",
    "fourierft[frequencies=10]",
    "oft[block_size=8]",
    "boft[block_size=4]",
    "hra[r=4]",
    "road[group_size=8]",
    "adalora[r=4]",
    "gralora[r=4]",
    "randlora[r=4]",
    "vblora[r=2,vectors=8,length=16]",
    "waveft[frequencies=10]",
    "beft",
    "deft[r=4]",
    "glora[r=4]",
    "peanut[r=4]",
    "supertuning[sparsity=0.9]",
    "layer_norm",
    "p_tuning[encoder=none]",
    "prompt_tuning[place=tokens]",
    "seq_bn[reduction_factor=4]",
    "double_seq_bn[reduction_factor=4,scaling=channel,use_gating=true,ln_before=true]+layer_norm",
    "compacter[reduction_factor=4]",
    "compacter++[reduction_factor=4,shared_W_phm=true,factorized_phm_rule=true,leave_out=[1]]",
]


@pytest.mark.parametrize("text", WRITABLE)
def test_an_adapter_of_our_own_comes_back_as_it_was(text: str, tmp_path: Path) -> None:
    adapter = made(text)
    back = read(write(adapter, tmp_path / "out", format="peft"))
    assert back.config == adapter.config
    assert dataclasses.replace(back.manifest, provenance=None) == dataclasses.replace(adapter.manifest, provenance=None)
    assert back.tensors.keys() == adapter.tensors.keys()
    assert all(torch.equal(back.tensors[key], tensor) for key, tensor in adapter.tensors.items())


@pytest.mark.parametrize("text", WRITABLE)
def test_peft_reads_what_is_written(text: str, tmp_path: Path) -> None:
    folder = write(made(text), tmp_path / "out", format="peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        peft.PeftModel.from_pretrained(model("bert"), folder)


def test_every_type_that_is_written_occurs_in_these_tests() -> None:
    written = {types.parted(parse_method(text))[2].type for text in WRITABLE}
    every = {codec.type for codec in (*types.CODECS, *prompts.CODECS)}
    # These have configurations that depend on the model, or are written as another type.
    assert every - written == {"TRAINABLE_TOKENS", "PREFIX_TUNING", "CPT", "CARTRIDGE"}


def test_the_written_configuration_has_every_field_of_the_type(tmp_path: Path) -> None:
    folder = write(made("lora"), tmp_path / "out", format="peft")
    text = (folder / "adapter_config.json").read_text("utf-8")
    document = json.loads(text)
    assert document.keys() == documents.defaults()["LORA"].keys()
    assert list(document) == sorted(document)
    assert document["peft_version"] == documents.WRITES == peft.__version__
    assert document["target_modules"] == sorted(document["target_modules"])
    assert document["inference_mode"] is True


def test_what_peft_has_no_word_for_lies_where_it_does_not_look(tmp_path: Path) -> None:
    folder = write(made("lora"), tmp_path / "out", format="peft")
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        note = json.loads(file.metadata()["adapterhub"])
    assert note["summary"] == "A line"


def test_a_note_that_does_not_belong_to_the_rest_is_left_alone(tmp_path: Path) -> None:
    folder = write(made("lora[r=3]"), tmp_path / "out", format="peft")
    edit(folder, lambda document: document.update(lora_alpha=77))
    assert read(folder).config[0].to_json()["alpha"] == 77


@pytest.mark.parametrize(
    "name", ["bert-cls-lora-bias-all-cls", "llama-lora-tokens", "bert-cls-vera-cls", "gpt2-lora-dora"]
)
def test_an_adapter_of_peft_survives_the_native_format(name: str, tmp_path: Path) -> None:
    case = PEFTS.case(name)
    parts = peft_format.FORMAT.read(case.adapter)
    native = read(write(peft_format.decode(parts), tmp_path / "x.safetensors"))
    assert same(peft_format.encode(native), parts)


def test_parts_of_a_joint_map_are_blocks_of_a_larger_rank(tmp_path: Path) -> None:
    adapter = read(GOLDEN.case("e-gpt2-lora-qkv").adapter)
    folder = write(adapter, tmp_path / "out", format="peft")
    document = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    assert (document["r"], document["lora_alpha"]) == (12, 48)
    whole = load_file(folder / "adapter_model.safetensors")
    b = next(tensor for key, tensor in whole.items() if key.endswith("c_attn.lora_B.weight"))
    size = b.shape[0] // 3
    for row in range(3):
        for column in range(3):
            block = b[row * size : (row + 1) * size, column * 4 : (column + 1) * 4]
            assert bool(block.any()) == (row == column)
    assert read(folder).config == adapter.config


# What is not written


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lora[gating=true]", "gates, which depend on the input"),
        ("lora[magnitude=dora_adapters]", "divides by another norm"),
        ("ia3[gating=true]", "gates, which depend on the input"),
        ("vera[r=4,magnitude=dora]", "DoRA's magnitude"),
        ("seq_bn_inv", "no word for invertible beside another method"),
        ("lora+seq_bn", "no type for lora, bottleneck together"),
        ('lora[targets=["query"]]+ia3[targets=["key"]]', "no type for lora, ia3 together"),
        ('hira[r=3,ranks={"query":2}]', "one r for all modules"),
        ("prompt_tuning", "behind the embedding module"),
        ("prefix_tuning[flat=true]", "counts the text's positions"),
        ("miss[r=4]+classification_head[activation_function=relu,layers=2]", "no class of bert models"),
    ],
)
def test_what_peft_cannot_say_is_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(UnsupportedError, match=re.escape(says)):
        peft_format.encode(made(text))


# Files that are wrong


def copied(tmp_path: Path, source: Path = PLAIN) -> Path:
    return Path(shutil.copytree(source, tmp_path / "adapter"))


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "adapter_config.json"
    document = json.loads(path.read_text("utf-8"))
    change(document)
    path.write_text(json.dumps(document), "utf-8")


def rewrite(folder: Path, change: Callable[[Tensors], Any]) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)


QUERY = "base_model.model.encoder.layer.1.attention.self.query"


def renamed(tensors: Tensors, old: str, new: str) -> torch.Tensor:
    return tensors.setdefault(new, tensors.pop(old))


def changed(tensors: Tensors, key: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors[key] = change(tensors[key])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop(f"{QUERY}.lora_A.weight"), r"layer\.1\.attention\.self\.query\.lora_A"),
        (lambda t: t.update({"other": torch.zeros(1)}), "'other'"),
        (lambda t: t.update({f"{QUERY}.surplus": torch.zeros(1)}), "surplus"),
        (lambda t: renamed(t, f"{QUERY}.lora_A.weight", f"{QUERY}.lora_a.weight"), "lora_a"),
        (lambda t: changed(t, f"{QUERY}.lora_A.weight", lambda x: x.t()), "shape"),
        (lambda t: changed(t, f"{QUERY}.lora_A.weight", lambda x: x[:2]), "shape"),
        (lambda t: changed(t, f"{QUERY}.lora_B.weight", lambda x: x.flatten()), "lora_B"),
        (lambda t: changed(t, f"{QUERY}.lora_B.weight", lambda x: x * torch.nan), "NaN"),
        (lambda t: [t.pop(key) for key in list(t) if "layer.1" in key and "query" in key], "no tensor of it"),
        (lambda t: t.clear(), "no tensor of a LORA"),
        (lambda t: t.update({f"{QUERY.replace('query', 'key')}.lora_A.weight": torch.zeros(4, 32)}), "does not name"),
    ],
)
def test_tensors_that_are_not_those_of_the_configuration_are_told(
    change: Callable[[Tensors], Any], says: str, tmp_path: Path
) -> None:
    folder = copied(tmp_path)
    rewrite(folder, change)
    with pytest.raises(FormatError, match=says):
        read(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"r": 0}, "r"),
        ({"r": 0, "use_rslora": True}, "r"),
        ({"r": -4}, "r"),
        ({"r": 10**12}, "r"),
        ({"r": "4"}, "r is '4'"),
        ({"r": 4.5}, "r is 4.5"),
        ({"r": True}, "r is True"),
        ({"lora_alpha": "big"}, "alpha"),
        ({"lora_dropout": 1.5}, "dropout"),
        ({"use_dora": 1}, "magnitude|use_dora|lora_magnitude"),
        ({"use_dora": True}, "lora_magnitude"),
        ({"use_rslora": "yes"}, "rank_stabilised"),
        ({"rank_pattern": []}, "rank_pattern is no object of patterns"),
        ({"rank_pattern": [1]}, "rank_pattern is no object of patterns"),
        ({"rank_pattern": {"query": 2}}, "shape"),
        ({"rank_pattern": {"qu(ery": 2}}, "no regular expression"),
        ({"target_modules": 5}, "target_modules is 5"),
        ({"target_modules": [5]}, "target_modules"),
        ({"target_modules": ["value"]}, "does not name"),
        ({"target_modules": ["query", "value", "key"]}, None),
        ({"exclude_modules": ["query"]}, "does not name"),
        ({"layers_to_transform": [0]}, "does not name"),
        ({"bias": "some"}, "bias is"),
        ({"modules_to_save": "classifier"}, "modules_to_save is"),
        ({"peft_type": "LORALORA"}, "none of PEFT"),
        ({"peft_type": 5}, "no text as peft_type"),
    ],
)
def test_a_wrong_value_in_the_configuration_is_told(change: dict[str, Any], says: str | None, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    edit(folder, lambda document: document.update(change))
    if says is None:
        read(folder)
        return
    with pytest.raises(FormatError, match=says):
        read(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"alora_invocation_tokens": [1, 2]}, "aLoRA"),
        ({"arrow_config": {"top_k": 2}}, "Arrow"),
        ({"kasa_config": {"beta": 1.0}}, "KaSA"),
        ({"layer_replication": [[0, 2]]}, "repeats layers"),
        ({"megatron_config": {"x": 1}}, "Megatron"),
        ({"monteclora_config": {"x": 1}}, "MonteCLoRA"),
        ({"use_bdlora": {"x": 1}}, "BD-LoRA"),
        ({"use_qalora": True}, "QA-LoRA"),
        ({"velora_config": {"x": 1}}, "VeLoRA"),
        ({"init_lora_weights": "pissa"}, "pissa.*path_initial_model_for_weight_conversion"),
        ({"init_lora_weights": "pissa_niter_16"}, "pissa_niter_16"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"init_lora_weights": "corda"}, "corda"),
        ({"init_lora_weights": "loftq"}, "loftq"),
        ({"init_lora_weights": "a new one"}, "a new one"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "only weights of linear maps"),
        ({"use_new_thing": True}, "use_new_thing is true, an unknown field"),
    ],
)
def test_an_option_that_is_not_computed_is_refused_by_name(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    edit(folder, lambda document: document.update(change))
    with pytest.raises(UnsupportedError, match=says):
        read(folder)


def test_an_unknown_field_that_is_off_is_kept(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    edit(folder, lambda document: document.update(use_new_thing=False, other_thing=None, third={}))
    parts = peft_format.FORMAT.read(folder)
    assert same(peft_format.encode(peft_format.decode(parts)), parts)
    assert parts.documents["adapter_config.json"]["third"] == {}


def test_fields_that_a_file_leaves_out_have_their_defaults(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    edit(
        folder,
        lambda document: [
            document.pop(name)
            for name in list(document)
            if name not in ("peft_type", "r", "lora_alpha", "target_modules")
        ],
    )
    parts = peft_format.FORMAT.read(folder)
    adapter = peft_format.decode(parts)
    assert adapter.config == read(PLAIN).config
    assert same(peft_format.encode(adapter), parts)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(.*)*query", "((x|x)*)*y", "(query|value|.*)*!", "(.*)*" * 700 + "!"])
def test_a_pattern_that_keeps_other_machines_busy_takes_no_time(pattern: str, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    edit(folder, lambda document: document.update(target_modules=pattern, rank_pattern={pattern: 9}))
    with pytest.raises(FormatError):
        read(folder)
    path, fuel = "encoder.layer.1.attention.self.query", Fuel()
    given = fuel.steps
    matches(pattern, path, fuel)
    assert given - fuel.steps <= 4 * len(pattern) * (len(path) + 1)


@pytest.mark.parametrize("text", ["[]", "5", "null", '"x"', "{", "\x00", '{"peft_type": "LORA"'])
def test_a_configuration_that_is_none_is_told(text: str, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "adapter_config.json").write_text(text, "utf-8")
    with pytest.raises(AdapterHubError):
        peft_format.decode(peft_format.FORMAT.read(folder))


def test_a_folder_without_weights_is_told(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterHubError, match="is missing"):
        read(folder)


def test_weights_as_a_pickle_are_read_as_data(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    assert read(folder).config == read(PLAIN).config


def test_a_family_that_the_document_denies_is_told(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    mapping = {"base_model_class": "LlamaModel", "parent_library": "transformers.models.llama.modeling_llama"}
    edit(folder, lambda document: document.update(auto_mapping=mapping))
    with pytest.raises(UnsupportedError, match="says that the base model is a llama, its keys are those of"):
        read(folder)


def test_module_paths_of_no_family_are_told(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    rewrite(folder, lambda t: [renamed(t, key, key.replace("encoder.layer", "towers.bricks")) for key in list(t)])
    edit(folder, lambda document: document.pop("auto_mapping"))
    with pytest.raises(UnsupportedError, match="none of the module paths"):
        read(folder)


def test_a_prompt_of_a_family_that_nothing_tells_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = copied(tmp_path, GOLDEN.case("d-llama-ptuning").adapter)
    edit(folder, lambda document: document.update(base_model_name_or_path=None, auto_mapping=None))
    with pytest.raises(UnsupportedError, match="what family") as caught:
        read(folder)
    assert "load it onto its base model" in caught.value.hint
    assert read(folder, row=by_name("llama")).manifest.base.architecture == "llama"


def test_magnitudes_of_other_releases_are_read_and_written_again(tmp_path: Path) -> None:
    folder = copied(tmp_path, PEFTS.case("bert-lora-dora").adapter)
    rewrite(folder, lambda t: [renamed(t, k, f"{k}.weight") for k in list(t) if k.endswith("lora_magnitude_vector")])
    parts = peft_format.FORMAT.read(folder)
    adapter = peft_format.decode(parts)
    assert adapter.config == adapter_of("bert-lora-dora").config
    assert same(peft_format.encode(adapter), parts)


def test_the_copies_of_a_shared_matrix_have_to_be_equal(tmp_path: Path) -> None:
    folder = copied(tmp_path, PEFTS.case("bert-randlora").adapter)
    rewrite(folder, lambda t: changed(t, f"{QUERY}.randlora_A", lambda x: x + 1))
    with pytest.raises(FormatError, match="is not the same at every module"):
        read(folder)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("llama-tied-lora-tied-ensured", "base_model.model.lm_head.lora_A.weight"),
        ("llama-tied-lora-tied-ensured", "base_model.model.model.embed_tokens.lora_embedding_A"),
        ("llama-tied-lora-tied-ensured-saved", "base_model.model.lm_head.weight"),
    ],
)
def test_what_is_tied_has_to_be_equal(name: str, key: str, tmp_path: Path) -> None:
    folder = copied(tmp_path, PEFTS.case(name).adapter)
    rewrite(folder, lambda t: changed(t, key, lambda x: x + 1))
    with pytest.raises(FormatError, match=r"lm_head and model\.embed_tokens are tied, and their tensors differ"):
        read(folder)


# Every case damaged: each missing tensor is noticed


@pytest.mark.parametrize("name", sorted({case["method"]: str(case) for case in PEFTS.cases(archs="bert")}.values()))
def test_a_missing_tensor_is_noticed_in_every_type(name: str) -> None:
    parts = peft_format.FORMAT.read(PEFTS.case(name).adapter)
    if parts.documents["adapter_config.json"]["peft_type"] in types.REFUSED:
        return
    group = dict(parts.tensors["adapter"])
    for key in group:
        if "randlora_A" in key or "randlora_B" in key or ".1." in key or key.startswith("base_model.model.pooler"):
            continue  # a copy that may be missing; of the last layer, and of what has no layer, only the model tells
        rest = {other: tensor for other, tensor in group.items() if other != key}
        with pytest.raises((FormatError, UnsupportedError)):
            peft_format.decode(dataclasses.replace(parts, tensors={"adapter": rest}))


# Patterns

LETTERS = st.sampled_from(["a", "b", ".", "1"])
PIECES = st.sampled_from(
    [*"ab.|()[]^$*+?-{}", r"\.", r"\d", r"\w", r"\W", "{1,2}", "{2}", "{,1}", "(?:", "[ab]", "[^a.]", ".*", "layer"]
)


@settings(max_examples=600)
@given(st.lists(PIECES, max_size=7).map("".join), st.lists(LETTERS, max_size=6).map("".join))
def test_a_pattern_matches_what_re_says(pattern: str, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compiled = re.compile(pattern)
        except (re.error, OverflowError):
            with pytest.raises((FormatError, UnsupportedError)):
                matches(pattern, text)
            return
        try:
            found = matches(pattern, text), ends(pattern, text)
        except UnsupportedError:
            return
        assert found[0] == (compiled.fullmatch(text) is not None)
        assert found[1] == (re.match(rf"(.*\.)?({pattern})$", text) is not None)


@settings(max_examples=400)
@given(
    st.lists(st.lists(PIECES, min_size=1, max_size=5).map("".join), max_size=5),
    st.lists(LETTERS, max_size=6).map("".join),
)
def test_the_first_of_several_patterns_is_the_one_that_counts(patterns: list[str], path: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            wanted = next((pattern for pattern in patterns if ends(pattern, path)), None)
        except (FormatError, UnsupportedError):
            return
        assert Ends(patterns).first(path) == wanted


def test_more_patterns_than_can_be_tried_are_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    many = {f"layer.[{i}]": 3 for i in range(19_000)}
    edit(folder, lambda document: document.update(rank_pattern=many))
    rewrite(
        folder, lambda t: t.update({k.replace("layer.1", f"layer.{i}"): t[k].clone() for k in list(t) for i in (2, 3)})
    )
    with pytest.raises(UnsupportedError, match="take too long to match"):
        read(folder)


def test_a_pattern_that_looks_around_or_refers_back_is_refused_by_name() -> None:
    for pattern in ("(?=a)a", r"(a)\1", "(?<!b)a", "(?P<n>a)(?P=n)"):
        with pytest.raises(UnsupportedError):
            matches(pattern, "a")


def test_folders_of_peft_are_told_from_those_of_adapters() -> None:
    assert detect(PLAIN).name == "peft"
    assert detect(GOLDEN.case("a-bert-dora").adapter).name == "adapters"


def test_a_manifest_without_an_id_has_no_base_in_the_document() -> None:
    adapter = adapter_of("bert-lora-list")
    bare = Manifest(name="x", base=Base(architecture="bert"))
    document = peft_format.encode(Adapter(adapter.config, adapter.tensors, bare)).documents["adapter_config.json"]
    assert document["base_model_name_or_path"] is None


# Shapes


@pytest.mark.parametrize("leaf", ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"])
def test_factors_and_magnitudes_of_a_convolution_have_their_shapes(leaf: str) -> None:
    parts = peft_format.FORMAT.read(PEFTS.case("vit-lora-convolution-dora").adapter)
    group = dict(parts.tensors["adapter"])
    (key,) = (key for key in group if key.endswith(leaf))
    for other in (group[key].unsqueeze(0), group[key].unsqueeze(-1), group[key].transpose(0, 1)):
        with pytest.raises(FormatError, match="shape"):
            peft_format.decode(dataclasses.replace(parts, tensors={"adapter": {**group, key: other}}))


def test_a_vector_of_ia3_is_no_matrix() -> None:
    parts = peft_format.FORMAT.read(PEFTS.case("bert-ia3").adapter)
    group = dict(parts.tensors["adapter"])
    key = next(key for key in group if "attention" in key)
    with pytest.raises(FormatError, match="is a matrix"):
        peft_format.decode(dataclasses.replace(parts, tensors={"adapter": {**group, key: group[key].view(2, -1)}}))
