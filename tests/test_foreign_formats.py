"""Formats of low-rank updates: their laws, and the outputs of the libraries that they belong to.

The files and outputs were made with MLX-LM, llama.cpp, loralib and PEFT; see tests/recipes/make_foreign_cases.py.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import gguf as gguf_package
import pytest
import torch
from families import FAMILIES
from golden import Archive
from make_foreign_cases import DECODERS, IDS, base_of
from safetensors.torch import load_file, save_file
from tiny_models import family as tiny
from tiny_models import with_adapters

from adapterhub.adapter import Adapter
from adapterhub.architectures import ARCHITECTURES, by_name
from adapterhub.converters import FORMATS, detect, gguf, mlx, read, write
from adapterhub.converters import by_name as format_of
from adapterhub.converters.format import Format, Parts
from adapterhub.converters.gguf import file, names
from adapterhub.converters.low_rank import notes
from adapterhub.errors import AdapterHubError, FormatError, UnsupportedError, UsageError
from adapterhub.loader import attach
from adapterhub.loader.known_base import KnownBase

FOLDER = Archive("foreign-cases.tar.gz").folder()
KINDS = ("mlx", "gguf", "raw")
EXPECTED = {key: value for kind in KINDS for key, value in load_file(FOLDER / f"{kind}.safetensors").items()}
THEIRS = sorted(key for key in EXPECTED if key.startswith(tuple(f"{kind}-" for kind in KINDS)))
WRITTEN = sorted(key for key in EXPECTED if key.startswith("written-"))
BASES = {kind: load_file(FOLDER / f"{kind}.safetensors") for kind in ("mlx", "gguf")}

RAW: dict[str, dict[str, Any]] = {
    "gpt2-qv": {"alpha": 5, "targets": ["query", "value"]},
    "gpt2-qkv": {"alpha": 5.0, "r": 3},
    "gpt2-k-and-mlp": {"alpha": 5, "targets": ["key"]},
    "llama-linear": {"alpha": 5},
    "llama-peft": {"alpha": 5, "rank_stabilised": False},
}
"""What the reader of a state dict has to say."""

GELU = {"gemma2", "gemma3_text", "gpt2", "phi"}
"""Families for which llama.cpp looks their activation up in a table of 16 bits."""


def source_of(case: str) -> Path:
    kind, _, rest = case.partition("-")
    ends = {"mlx": "", "gguf": ".gguf"}
    if kind == "raw":
        return next((FOLDER / "raw").glob(f"{rest}.*"))
    return FOLDER / kind / f"{rest}{ends[kind]}"


def family_of(case: str) -> str:
    return next(family for family in DECODERS if f"-{family}-" in case)


@functools.cache
def known(family: str) -> KnownBase:
    return KnownBase(base_of(family))


def parts_of(case: str) -> Parts:
    kind, _, rest = case.partition("-")
    parts = format_of(kind).read(source_of(case))
    return dataclasses.replace(parts, options=RAW.get(rest, {}), base=known(family_of(case)))


def adapter_of(case: str) -> Adapter:
    return format_of(case.partition("-")[0]).decode(parts_of(case))


def tolerance(case: str) -> float:
    """Return how far the base models of the two libraries lie apart, and a little more."""
    if "gguf" in case:
        return 1e-2 if family_of(case) in GELU or case.endswith("-half") else 2e-4
    return 3e-3 if "gemma3_text" in case else 1e-4


@torch.no_grad()
def logits(family: str, adapter: Adapter | Path | None) -> torch.Tensor:
    base = base_of(family)
    if adapter is not None:
        attach(base).load(adapter, set_active=True, allow_base_mismatch=isinstance(adapter, Adapter))
    found: torch.Tensor = base(input_ids=torch.tensor(IDS)).logits
    return found


def same(a: Parts, b: Parts) -> bool:
    ours, theirs = a.tensors["adapter"], b.tensors["adapter"]
    return (
        dict(a.documents) == dict(b.documents)
        and ours.keys() == theirs.keys()
        and all(t.dtype == theirs[key].dtype and torch.equal(t, theirs[key]) for key, t in ours.items())
    )


def same_adapters(a: Adapter, b: Adapter) -> bool:
    manifests = [dataclasses.replace(one.manifest, provenance=None) for one in (a, b)]
    return (
        a.config == b.config
        and manifests[0] == manifests[1]
        and a.tensors.keys() == b.tensors.keys()
        and all(torch.equal(t, b.tensors[key]) for key, t in a.tensors.items())
    )


# What other libraries wrote


@pytest.mark.parametrize("case", THEIRS)
def test_what_another_library_wrote_gives_what_that_library_computes(case: str) -> None:
    family = family_of(case)
    found = logits(family, adapter_of(case))
    assert (found - EXPECTED[case]).abs().max() < tolerance(case)
    assert (found - logits(family, None)).abs().max() > 0.05


@pytest.mark.parametrize("case", THEIRS)
def test_what_another_library_wrote_comes_back_as_it_was(case: str) -> None:
    parts = parts_of(case)
    adapter = format_of(case.partition("-")[0]).decode(parts)
    assert same(format_of(case.partition("-")[0]).encode(adapter), parts)


@pytest.mark.parametrize("case", THEIRS)
def test_what_another_library_wrote_survives_the_native_format(case: str, tmp_path: Path) -> None:
    kind = case.partition("-")[0]
    adapter = adapter_of(case)
    again = read(write(adapter, tmp_path / "a.safetensors"))
    assert again.config == adapter.config
    assert again.manifest == adapter.manifest
    assert same(format_of(kind).encode(again), parts_of(case))


@pytest.mark.parametrize("case", ["mlx-llama-every", "gguf-llama-attention", "raw-gpt2-qkv"])
def test_what_another_library_wrote_is_detected(case: str) -> None:
    assert detect(source_of(case)).name == case.partition("-")[0]


def test_a_file_of_llama_cpp_is_loaded_onto_its_base_model_without_a_word_about_heads() -> None:
    found = logits("llama", source_of("gguf-llama-attention"))
    assert (found - EXPECTED["gguf-llama-attention"]).abs().max() < 2e-4


# What is written for other libraries


def ours_of(case: str) -> Adapter:
    return read(FOLDER / "ours" / f"{case.split('-', 2)[2]}.safetensors")


@pytest.mark.parametrize("case", WRITTEN)
def test_another_library_computes_what_the_adapter_does_that_was_written_for_it(case: str) -> None:
    found = logits(family_of(case), ours_of(case))
    assert (found - EXPECTED[case]).abs().max() < tolerance(case)


@pytest.mark.parametrize("case", WRITTEN)
def test_what_was_run_is_what_is_written_today(case: str, tmp_path: Path) -> None:
    kind, name = case.split("-", 2)[1:]
    end = ".gguf" if kind == "gguf" else ""
    path = write(ours_of(case), tmp_path / f"{name}{end}", kind, base=known(family_of(case)))
    assert same(format_of(kind).read(path), format_of(kind).read(FOLDER / "written" / kind / f"{name}{end}"))


def test_every_family_was_run_in_each_library() -> None:
    for kind in ("mlx", "gguf"):
        assert {family_of(case) for case in THEIRS if case.startswith(kind)} == set(DECODERS)
        assert {family_of(case) for case in WRITTEN if kind in case} == set(DECODERS)
    assert mlx.PREFIXES.keys() == {FAMILIES[family].row for family in DECODERS}


# Adapters of our own

OWN = [
    ("llama", "lora"),
    ("llama", "lora[r=3,alpha=5,dropout=0.1]"),
    ("llama", 'lora[targets=["layers.1.mlp.up_proj","query"],r=2,alpha=3]'),
    ("llama", "lora[leave_out=[0]]"),
    ("llama", "lora[rank_stabilised=true,r=5,alpha=7]"),
    ("mistral", 'lora[ranks={"query":2},alphas={"query":2}]'),
    ("qwen3", 'lora[ranks={"query":2},alphas={"query":4},alpha=16]'),
    ("gpt2", "lora"),
    ("gpt2", 'lora[targets=["key","intermediate"]]'),
    ("gpt2", 'lora[targets=["joint"]]'),
    ("phi", 'lora[targets=["all-linear"],r=2]'),
]


def made(family: str, text: str) -> Adapter:
    """Return an adapter of our own, with something in its manifest."""
    found = with_adapters(tiny(family), x=text).adapter("x")
    extra = {"adapters": {"prefix": ""}, "else": [1, {"a": None}]}
    manifest = dataclasses.replace(found.manifest, summary="A line", license="MIT", extra=extra)
    return dataclasses.replace(found, manifest=manifest)


@pytest.mark.parametrize(
    ("kind", "family", "text"),
    [(kind, *row) for kind in KINDS for row in OWN if kind != "raw" or "alphas" not in row[1]],
)
def test_an_adapter_of_our_own_comes_back_as_it_was(kind: str, family: str, text: str, tmp_path: Path) -> None:
    adapter = made(family, text)
    chosen = format_of(kind)
    if kind == "gguf":
        adapter = chosen.rewritten(adapter, KnownBase(tiny(family)))
    path = write(adapter, tmp_path / f"a{ {'gguf': '.gguf', 'raw': '.safetensors'}.get(kind, '') }", kind)
    assert detect(path) is chosen
    assert same_adapters(read(path), adapter)


@pytest.mark.parametrize("kind", KINDS)
def test_without_our_note_an_adapter_means_the_same(kind: str) -> None:
    adapter = made("llama", "lora[rank_stabilised=true,r=5,alpha=7]")
    chosen = format_of(kind)
    base = KnownBase(tiny("llama"))
    parts = chosen.encode(chosen.rewritten(adapter, base))
    bare = {name: document for name, document in parts.documents.items() if name != notes.KEY}
    assert bare.keys() < parts.documents.keys()
    again = chosen.decode(Parts(bare, parts.tensors, base=base))
    assert again.manifest.summary == ""
    ours, theirs = (dataclasses.replace(one, manifest=adapter.manifest) for one in (adapter, again))
    with torch.no_grad():
        found = []
        for one in (ours, theirs):
            model = tiny("llama")
            attach(model).load(one, set_active=True)
            found.append(model(input_ids=torch.tensor(IDS)).last_hidden_state)
    assert torch.allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_note_that_does_not_belong_to_the_rest_is_left_alone(kind: str) -> None:
    chosen = format_of(kind)
    parts = chosen.encode(chosen.rewritten(made("llama", "lora"), KnownBase(tiny("llama"))))
    changed = {key: t * 2 if key.endswith(("_A", "_a")) else t for key, t in parts.tensors["adapter"].items()}
    assert chosen.decode(dataclasses.replace(parts, tensors={"adapter": changed})).manifest.summary == "A line"
    lost = {key: t for key, t in parts.tensors["adapter"].items() if ".0." not in key}
    assert chosen.decode(dataclasses.replace(parts, tensors={"adapter": lost})).manifest.summary == ""
    wrong = {**parts.documents, notes.KEY: "no note"}
    with pytest.raises(FormatError, match="note"):
        chosen.decode(dataclasses.replace(parts, documents=wrong))


@pytest.mark.parametrize(
    ("kind", "family", "text", "says"),
    [
        ("mlx", "llama", "lora+layer_norm", "layer_norm is no update of low rank"),
        ("gguf", "llama", "seq_bn", "seq_bn|bottleneck"),
        ("raw", "llama", "ia3", "ia3"),
        ("mlx", "bert", "lora", "no models of the family bert"),
        ("gguf", "albert", "lora", "no models of the family albert"),
        ("gguf", "llama", "dora", "DoRA"),
        ("raw", "llama", "dora", "DoRA"),
        ("mlx", "llama", "lora[gating=true]", "gates"),
        ("mlx", "llama", "lora[magnitude=dora_adapters]", "another norm"),
        ("mlx", "llama", "lora[update_bias=true]", "biases"),
        ("mlx", "llama", 'lora[targets=["embed_tokens"]]', "embeddings"),
        ("gguf", "llama", 'lora[targets=["embed_tokens"]]', "embeddings"),
        ("mlx", "llama", 'lora[ranks={"query":2}]', "2 scales"),
        ("gguf", "llama", 'lora[alphas={"query":2}]', "2 scales"),
        ("raw", "llama", 'lora[alphas={"query":2}]', "one alpha"),
        ("gguf", "llama", "lora", "number of heads"),
    ],
)
def test_what_a_format_cannot_say_is_refused_by_name(kind: str, family: str, text: str, says: str) -> None:
    with pytest.raises(UnsupportedError, match=says):
        format_of(kind).encode(made(family, text))


def test_options_are_those_of_the_format(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no option beta; its options are heads"):
        read(source_of("gguf-llama-half"), options={"beta": 1})
    with pytest.raises(UsageError, match="the format mlx has no option alpha; its options are none"):
        write(made("llama", "lora"), tmp_path / "x", "mlx", options={"alpha": 1})
    path = write(made("llama", "lora"), tmp_path / "x.gguf", "gguf", options={"heads": 4, "kv_heads": 2})
    assert read(path).tensors.keys() == made("llama", "lora").tensors.keys()


# MLX-LM


def folder(tmp_path: Path, case: str, **changes: Any) -> Path:
    """Return a copy of a folder of MLX-LM with changes to its document; None takes a field away."""
    shutil.copytree(source_of(case), tmp_path / "copy")
    document = json.loads((tmp_path / "copy" / mlx.CONFIG).read_text("utf-8"))
    for name, value in changes.items():
        place = document["lora_parameters"] if name in ("rank", "scale", "dropout", "keys", "alpha") else document
        place.pop(name, None)
        if value is not None:
            place[name] = value
    (tmp_path / "copy" / mlx.CONFIG).write_text(json.dumps(document), "utf-8")
    return tmp_path / "copy"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scale": None}, "scale is None"),
        ({"scale": None, "alpha": 16}, "alpha is not used"),
        ({"rank": 5}, "has rank 2, lora_parameters says 5"),
        ({"rank": "8"}, "rank is '8'"),
        ({"dropout": "no"}, "dropout is 'no'"),
        ({"num_layers": None}, "num_layers is None"),
        ({"keys": ["self_attn.q_proj"]}, "which keys does not name"),
        ({"keys": 3}, "no list of module paths"),
        ({"keys": ["self_attn.q_proj", "mlp.up_proj", "mlp.down_proj"]}, None),
        ({"fine_tune_type": "full"}, "fine_tune_type is 'full'"),
        ({"lora_parameters": 3}, "no configuration of MLX-LM"),
        ({"dropout": 2.0}, "dropout must lie"),
    ],
    ids=str,
)
def test_a_wrong_document_of_mlx_lm_is_told(changes: dict[str, Any], says: str | None, tmp_path: Path) -> None:
    path = folder(tmp_path, "mlx-llama-keys", **changes)
    if says is None:
        assert len(read(path).tensors) == 4
        return
    with pytest.raises(AdapterHubError, match=says):
        read(path)


def test_a_missing_layer_of_mlx_lm_is_told(tmp_path: Path) -> None:
    path = folder(tmp_path, "mlx-llama-every")
    tensors = load_file(path / mlx.WEIGHTS)
    left = {key: t for key, t in tensors.items() if not key.startswith("model.layers.1.self_attn.q_proj.lora_a")}
    save_file(left, path / mlx.WEIGHTS)
    with pytest.raises(FormatError, match=r"model\.layers\.1\.self_attn\.q_proj has no matrix A"):
        read(path)
    save_file({**tensors, "model.layers.1.mlp.up_proj.weight": torch.zeros(2, 2)}, path / mlx.WEIGHTS)
    with pytest.raises(FormatError, match="is of no lora_a"):
        read(path)
    (path / mlx.CONFIG).unlink()
    with pytest.raises(FormatError, match=r"adapter_config\.json is missing"):
        read(path)


def test_an_update_of_embeddings_is_refused_where_it_would_act_twice(tmp_path: Path) -> None:
    path = folder(tmp_path, "mlx-llama-every", keys=["model.embed_tokens"])
    pair = {"lora_a": torch.zeros(100, 4), "lora_b": torch.zeros(4, 32)}
    save_file({f"model.embed_tokens.{leaf}": t for leaf, t in pair.items()}, path / mlx.WEIGHTS)
    with pytest.raises(UnsupportedError, match="output embeddings of the same weight"):
        read(path)


# llama.cpp


def test_the_names_of_llama_cpp_are_those_of_its_package() -> None:
    rows = {row.name for row in ARCHITECTURES}
    assert names.FAMILIES.keys() <= rows
    for name, family in names.FAMILIES.items():
        row = by_name(name)
        arch = next(arch for arch, word in gguf_package.MODEL_ARCH_NAMES.items() if word == family.arch)
        table = gguf_package.get_tensor_name_map(arch, 4)
        prefixes = ("", "model.", "transformer.", "bert.", "distilbert.")
        for stack in row.layers:
            for path in stack.projections():
                ours = f"{stack.layer((1,))}.{path}"
                theirs = names.theirs(row, ours)
                spellings = [f"{prefix}{past}" for prefix in prefixes for past in (ours, row.past(ours))]
                known = {table.get_name(spelling) for spelling in spellings}
                if theirs is None:
                    assert "crossattention" in ours
                    continue
                assert known - {None} == {theirs}, (name, ours)
                assert names.ours(row, theirs) == ours


@pytest.mark.parametrize(
    "name", ["blk.-1.attn_q", "blk.01.attn_q", "blk.x.attn_q", "blk.0.attn_norm", "blk.0", "x", ""]
)
def test_a_name_that_llama_cpp_has_not_is_none(name: str) -> None:
    assert names.ours(by_name("llama"), name) is None


def test_the_reference_reads_what_is_written(tmp_path: Path) -> None:
    adapter = made("llama", "lora")
    path = write(adapter, tmp_path / "a.gguf", "gguf", base=KnownBase(tiny("llama")))
    reader = gguf_package.GGUFReader(path)
    found = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
    assert found.keys() == gguf.FORMAT.read(path).tensors["adapter"].keys()
    for key, tensor in gguf.FORMAT.read(path).tensors["adapter"].items():
        assert torch.equal(found[key].view(tensor.shape), tensor)
    assert reader.fields["general.type"].contents() == "adapter"
    assert reader.fields["adapter.lora.alpha"].contents() == 8.0
    assert reader.fields["llama.attention.head_count_kv"].contents() == 2


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_rows_in_pairs_and_in_halves_are_each_other_s_reverse(heads: int) -> None:
    rows = torch.randn(16, 3)
    assert torch.equal(names.in_halves(names.in_pairs(rows, heads), heads), rows)
    assert not torch.equal(names.in_pairs(rows, heads), rows)


QUERY = {
    "blk.0.attn_q.weight.lora_a": torch.ones(2, 32),
    "blk.0.attn_q.weight.lora_b": torch.ones(32, 2),
}
METADATA = {
    "general.architecture": ["string", "llama"],
    "general.type": ["string", "adapter"],
    "adapter.type": ["string", "lora"],
    "adapter.lora.alpha": ["float32", 4.0],
}
TENSORS = {
    "blk.0.ffn_up.weight.lora_a": torch.ones(2, 32),
    "blk.0.ffn_up.weight.lora_b": torch.ones(48, 2),
}


def gguf_file(tmp_path: Path, metadata: dict[str, Any] | None = None, tensors: Any = None) -> Path:
    """Return a file of llama.cpp with changes to its metadata; None takes an entry away."""
    said = {key: value for key, value in {**METADATA, **(metadata or {})}.items() if value is not None}
    path = tmp_path / "x.gguf"
    path.write_bytes(b"".join(file.chunks(said, TENSORS if tensors is None else tensors, "x")))
    return path


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"general.type": None}, "holds a model, not an adapter"),
        ({"general.type": ["uint32", 3]}, "is no text"),
        ({"adapter.type": ["string", "other"]}, "only lora is read"),
        ({"general.architecture": ["string", "mamba"]}, "adapters for 'mamba'"),
        ({"adapter.lora.alpha": ["float64", 4.0]}, "float64, expected a float32"),
        ({"adapter.alora.invocation_tokens": ["array", "uint32", [1, 2]]}, "certain tokens"),
    ],
    ids=str,
)
def test_wrong_metadata_of_llama_cpp_are_told(metadata: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(AdapterHubError, match=says):
        read(gguf_file(tmp_path, metadata))


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({}, "no whole updates"),
        ({"blk.0.ffn_up.weight.lora_a": torch.ones(2, 32)}, "missing"),
        ({"blk.0.ffn_up.weight.lora_b": torch.ones(48, 2)}, "no matrix A"),
        ({**TENSORS, "blk.0.attn_norm.weight": torch.ones(32)}, "does not use norms of adapters"),
        ({**TENSORS, "token_embd.weight.lora_a": torch.ones(100, 2)}, "no map of llama"),
        ({**TENSORS, "blk.0.ffn_up.weight.lora_b": torch.ones(48, 3)}, "has shape"),
        (
            {f"blk.0.attn_q.weight.lora_{x}": torch.ones(*s) for x, s in (("a", (2, 32)), ("b", (32, 2)))},
            "the number of heads",
        ),
    ],
)
def test_wrong_tensors_of_llama_cpp_are_told(tensors: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(AdapterHubError, match=says):
        read(gguf_file(tmp_path, tensors=tensors))


def test_heads_that_the_rows_cannot_be_are_told(tmp_path: Path) -> None:
    path = gguf_file(tmp_path, tensors=QUERY)
    assert read(path, options={"heads": 4}).config
    for heads, says in ((3, "are no 3 heads"), (0, "whole numbers"), ("4", "whole numbers")):
        with pytest.raises(AdapterHubError, match=says):
            read(path, options={"heads": heads})


def test_what_llama_cpp_says_and_we_do_not_understand_returns(tmp_path: Path) -> None:
    more = {
        "general.tags": ["array", "string", ["a", "ä"]],
        "acme.flag": ["bool", True],
        "acme.big": ["uint64", 2**63],
        "acme.small": ["int8", -3],
        "acme.none": ["array", "float64", []],
    }
    path = gguf_file(tmp_path, more)
    written = write(read(write(read(path), tmp_path / "a.safetensors")), tmp_path / "b.gguf", "gguf")
    assert gguf.FORMAT.read(written).documents == gguf.FORMAT.read(path).documents


# State dicts


def test_a_state_dict_without_alpha_is_refused(tmp_path: Path) -> None:
    for path in (source_of("raw-llama-peft"), source_of("raw-llama-linear")):
        with pytest.raises(UsageError, match=r"options=\{'alpha': 16\}"):
            read(path)


@pytest.mark.parametrize(
    ("case", "options", "says"),
    [
        ("gpt2-qv", {"alpha": 5}, "2 of 3 projections, and do not say which"),
        ("gpt2-k-and-mlp", {"alpha": 5}, "1 of 3 projections"),
        ("gpt2-qv", {"alpha": 5, "targets": ["gate"]}, "name some of query, key, value"),
        ("gpt2-qv", {"alpha": 5, "targets": ["query"]}, "has shape"),
        ("llama-linear", {"alpha": 5, "targets": ["query"]}, "in one map"),
        ("llama-linear", {"alpha": "5"}, "option alpha is '5'"),
        ("llama-linear", {"alpha": float("nan")}, "option alpha is nan"),
        ("llama-linear", {"alpha": True}, "option alpha is True"),
        ("llama-linear", {"alpha": 5, "r": 4}, "the rank is not 4"),
        ("llama-linear", {"alpha": 5, "rank_stabilised": "yes"}, "give true or false"),
        ("llama-linear", {"alpha": 5, "family": "gpt9"}, "no architecture is called 'gpt9'"),
        ("llama-linear", {"alpha": 5, "family": 3}, "name of a family"),
    ],
    ids=str,
)
def test_a_wrong_option_of_a_state_dict_is_told(case: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(AdapterHubError, match=says):
        read(source_of(f"raw-{case}"), options=options)


def test_a_family_that_the_caller_names_is_believed() -> None:
    adapter = read(source_of("raw-llama-linear"), options={"alpha": 5, "family": "qwen2"})
    assert adapter.manifest.base.architecture == "qwen2"
    assert adapter.manifest.base.others == ()


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("model.layers.0.self_attn.q_proj.bias", "biases that were trained along are not read"),
        ("model.layers.0.self_attn.q_proj.lora_A.other.weight", "several ways"),
        ("module.model.layers.0.self_attn.k_proj.lora_A.default.weight", "several ways"),
        ("classifier.weight", "is of no lora_A"),
    ],
)
def test_a_key_that_is_none_of_a_state_dict_is_told(key: str, says: str, tmp_path: Path) -> None:
    tensors = load_file(source_of("raw-llama-peft"))
    save_file({**tensors, key: torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(FormatError, match=says):
        read(tmp_path / "x.safetensors", options={"alpha": 5})


def test_the_alpha_in_the_header_is_not_denied(tmp_path: Path) -> None:
    path = write(made("llama", "lora[alpha=7]"), tmp_path / "x.safetensors", "raw")
    assert read(path).config == read(path, options={"alpha": 7}).config
    with pytest.raises(UsageError, match=r"the file says 7\.0"):
        read(path, options={"alpha": 8})
    tensors = load_file(path)
    save_file(tensors, path, {"lora_alpha": "many"})
    with pytest.raises(FormatError, match="which is no number"):
        read(path)


# Hostile input


@pytest.mark.parametrize("case", ["gguf-llama-half", "mlx-llama-keys", "raw-llama-peft", "raw-gpt2-qv"])
def test_a_file_that_is_cut_anywhere_ends_in_an_error_of_ours(case: str, tmp_path: Path) -> None:
    source = source_of(case)
    target = tmp_path / source.name
    if source.is_dir():
        shutil.copytree(source, target)
    weights = target / mlx.WEIGHTS if source.is_dir() else target
    data = (source / mlx.WEIGHTS if source.is_dir() else source).read_bytes()
    kind = case.partition("-")[0]
    options = RAW.get(case.partition("-")[2])
    for size in sorted({*range(0, min(300, len(data)), 7), *range(300, len(data), 211), len(data) - 1}):
        weights.write_bytes(data[:size])
        with pytest.raises(AdapterHubError):
            read(target, format=kind, options=options)


def test_no_changed_byte_of_a_gguf_file_ends_in_a_foreign_error(tmp_path: Path) -> None:
    data = bytearray(source_of("gguf-llama-half").read_bytes())
    head = data.index(b"lora_b", data.index(b"lora_b") + 1) + 60
    for place in range(head):
        for value in (0, 0x7F, 0xFF):
            changed = bytearray(data)
            changed[place] = value
            try:
                gguf.FORMAT.decode(
                    Parts({"metadata": (got := file.loads(changed, "x")).metadata}, {"adapter": got.tensors})
                )
            except AdapterHubError:
                continue


@pytest.mark.parametrize(
    ("place", "value"),
    [(8, 2**63), (8, 10**6), (16, 2**64 - 1), (16, 10**5), (24, 2**62), (24, 2**24)],
)
def test_a_huge_count_in_a_gguf_file_costs_nothing(place: int, value: int, tmp_path: Path) -> None:
    path = gguf_file(tmp_path)
    data = bytearray(path.read_bytes())
    data[place : place + 8] = value.to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(FormatError):
        read(path)


def test_gguf_files_of_other_versions_and_orders_are_told(tmp_path: Path) -> None:
    path = gguf_file(tmp_path)
    data = path.read_bytes()
    for version, says in ((1, "of version 1"), (9, "of version 9"), (3 << 24, "big-endian")):
        path.write_bytes(data[:4] + version.to_bytes(4, "little") + data[8:])
        with pytest.raises(UnsupportedError, match=says):
            read(path)


def test_every_format_has_a_name_of_its_own() -> None:
    assert len({row.name for row in FORMATS}) == len(FORMATS)
    assert all(isinstance(row, Format) for row in FORMATS)
