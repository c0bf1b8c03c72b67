"""merge, diff and extract on the command line, and what the last two compute."""

from __future__ import annotations

import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_session import type_command
from tiny_models import family, hidden, inputs, model, randomise
from transformers import AutoModel, BertConfig, BertForSequenceClassification, BertModel

from adapterhub import Adapter, BaseMismatchError, UnsupportedError, UsageError, merge, read, write
from adapterhub.hub.extracting import extract
from adapterhub.hub.merging import compared, source
from adapterhub.loader import attach
from adapterhub.merging.comparison import principal_angles

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 100,
    "max_position_embeddings": 40,
}


def saved(folder: Path, base: Any = None, **methods: str) -> list[str]:
    """Return the paths of native files with random adapters."""
    adapters = attach(base or model("bert"))
    paths = []
    for number, (name, method) in enumerate(methods.items()):
        adapters.add(name, method)
        randomise(adapters, name, seed=number + 3)
        paths.append(str(adapters.save(name, folder / f"{name}.safetensors")))
    adapters.detach()
    return paths


# --------------------------------------------------------------------------------------------------------------- merge


def test_merge_writes_a_file_with_its_parents(tmp_path: Path) -> None:
    a, b = saved(tmp_path, a="lora[r=2]", b="rslora[r=3]")
    out = tmp_path / "both"
    typed = type_command("merge", a, b, "--weights", "0.5,-0.25", "--out", str(out), "--json", "--report")
    assert typed.status == 0, typed.err
    assert typed.json["path"] == f"{out}.safetensors"
    assert typed.json["weights"] == [0.5, -0.25]
    assert {site["rank"] for site in typed.json["sites"]} == {5}
    assert all(site["error"] < 1e-9 for site in typed.json["sites"])
    made = read(typed.json["path"])
    origin = made.manifest.provenance
    assert origin is not None
    assert [(parent.name, parent.weight) for parent in origin.parents] == [(a, 0.5), (b, -0.25)]
    assert (
        origin.parents[0].digest
        == json.loads(type_command("verify", a, "--json").out)["checks"][0]["detail"].split(";")[0]
    )
    assert made.manifest.base.fingerprint == read(a).manifest.base.fingerprint
    assert made.manifest.name == "both"
    again = merge([a, b], weights=[0.5, -0.25])
    assert all(torch.equal(made.tensors[key], again.tensors[key]) for key in again.tensors)


def test_merge_prints_for_people(tmp_path: Path) -> None:
    a, b = saved(tmp_path, a="lora[r=2]", b="lora[r=2]")
    out = str(tmp_path / "c.safetensors")
    typed = type_command("merge", a, b, "--method", "svd", "--rank", "1", "--out", out, "--report")
    assert typed.status == 0
    assert "method      svd, rank 1" in typed.out
    assert f"parents     0.5 × {a}, 0.5 × {b}" in typed.out
    assert "LINEAR MAP" in typed.out
    assert "the least exact keeps" in typed.out
    assert type_command("merge", a, b, "--out", out).status == 1
    assert type_command("merge", a, b, "--out", out, "--force", "-q").out == f"{out}\n"


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    a, b = saved(tmp_path, a="lora[r=2]", b="lora[r=2]")
    typed = type_command("merge", a, b, "--out", str(tmp_path / "c"), "--dry-run")
    assert typed.status == 0
    assert "not written: dry run" in typed.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--method", "no_such"), 2, "no merge method is called 'no_such'"),
        (("--method", "ties"), 2, "it needs a density"),
        (("--weights", "1,x"), 2, "--weights '1,x' are no numbers"),
        (("--weights", "1"), 2, "1 weights for 2 adapters"),
        (("--rank", "2", "--energy", "0.5"), 2, "two ways to say the same"),
    ],
)
def test_options_that_mean_nothing_end_with_2(
    arguments: tuple[str, ...], status: int, words: str, tmp_path: Path
) -> None:
    a, b = saved(tmp_path, a="lora[r=2]", b="lora[r=2]")
    typed = type_command("merge", a, b, "--out", str(tmp_path / "c"), *arguments)
    assert typed.status == status
    assert words in typed.err


def test_what_cannot_be_merged_ends_with_6_and_needs_the_base_by_name(tmp_path: Path) -> None:
    base = model("bert")
    base.save_pretrained(tmp_path / "base")
    a, b = saved(tmp_path, base, a="dora[r=2]", b="oft[block_size=8]")
    typed = type_command("merge", a, b, "--out", str(tmp_path / "c"), "--json")
    assert typed.status == 6
    assert typed.error["message"].count("cannot be told from its tensors alone") == 2
    assert "--base" in typed.error["hint"]
    made = type_command(
        "merge", a, b, "--out", str(tmp_path / "c"), "--base", str(tmp_path / "base"), "--json", "--report"
    )
    assert made.status == 0, made.err
    assert max(site["error"] for site in made.json["sites"]) < 1e-6
    model("bert", seed=5).save_pretrained(tmp_path / "other")
    assert type_command("merge", a, b, "--out", str(tmp_path / "d"), "--base", str(tmp_path / "other")).status == 5


# ---------------------------------------------------------------------------------------------------------------- diff


def test_diff_of_an_adapter_with_itself_is_nothing(tmp_path: Path) -> None:
    (a,) = saved(tmp_path, a="lora[r=3]+layer_norm")
    typed = type_command("diff", a, a, "--json")
    assert typed.status == 0, typed.err
    assert typed.json["same"] is True
    for one in typed.json["maps"]:
        assert one["difference"] < 1e-9 * one["norms"][0]
        assert one["cosine"] == pytest.approx(1)
        assert max(one["angles"]["writes"]) < 1e-5
    assert all(one["difference"] == 0 for one in typed.json["tensors"])


def test_diff_measures_what_matrices_would(tmp_path: Path) -> None:
    a, b = saved(tmp_path, a="lora[r=3,alpha=5]", b='lora[r=2,targets=["query","key"]]')
    found = {one.path: one for one in compared(source(a), source(b)).maps}
    one, two = read(a), read(b)
    path = "encoder.layer.1.attention.self.query"
    first = one.tensors[f"{path}.lora_B"].double() @ one.tensors[f"{path}.lora_A"].double() * 5 / 3
    second = two.tensors[f"{path}.lora_B"].double() @ two.tensors[f"{path}.lora_A"].double() * 4
    made = found[path]
    assert made.norms == pytest.approx((float(first.norm()), float(second.norm())))
    assert made.difference == pytest.approx(float((first - second).norm()))
    assert made.cosine == pytest.approx(float((first * second).sum() / first.norm() / second.norm()))
    u_1, u_2 = torch.linalg.svd(first)[0][:, :3], torch.linalg.svd(second)[0][:, :2]
    wanted = torch.linalg.svdvals(u_1.t() @ u_2).clamp(max=1).acos().rad2deg().tolist()
    assert list(made.writes) == pytest.approx(wanted, abs=1e-6)
    lone = found["encoder.layer.1.attention.self.value"]
    assert (lone.ranks, lone.cosine, lone.writes) == ((3, 0), None, ())
    assert lone.difference == pytest.approx(lone.norms[0])


def test_principal_angles_are_exact_for_small_and_right_angles() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(9, 9, generator=generator, dtype=torch.float64)).Q
    wanted = [1e-7, 0.3, 30.0, 90.0]
    turned = [
        basis[:, i] * math.cos(math.radians(angle)) + basis[:, i + 4] * math.sin(math.radians(angle))
        for i, angle in enumerate(wanted)
    ]
    found = principal_angles(
        basis[:, :4], torch.stack(turned, dim=1) @ torch.diag(torch.tensor([3.0, -1, 2, 5]).double())
    )
    assert list(found) == pytest.approx(wanted, abs=1e-9)


def test_diff_tells_of_tensors_that_are_no_updates(tmp_path: Path) -> None:
    a, b = saved(tmp_path, a="seq_bn[reduction_factor=8]", b="seq_bn[reduction_factor=8]+layer_norm")
    typed = type_command("diff", a, b, "--json")
    keys = {one["key"]: one for one in typed.json["tensors"]}
    down = keys["encoder.layer.0.output.bottleneck_down.weight"]
    assert down["difference"] > 0
    assert keys["encoder.layer.0.output.LayerNorm.weight"]["norms"][0] is None
    text = type_command("diff", a, b).out
    assert "TENSOR" in text
    assert "none, " in text


def test_diff_draws_a_picture(tmp_path: Path) -> None:
    a, b = saved(tmp_path, a="lora[r=3]", b="lora[r=3]")
    picture = tmp_path / "diff.png"
    assert type_command("diff", a, b, "--plot", str(picture)).status == 0
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    length = struct.unpack(">I", data[33:37])[0]
    pixels = zlib.decompress(data[41 : 41 + length])
    assert len(pixels) == height * (1 + 3 * width)
    assert len(set(zip(*[iter(pixels[1 : 3 * width])] * 3, strict=False))) >= 1
    assert type_command("diff", a, b, "--plot", str(picture)).status == 1
    assert type_command("diff", a, b, "--plot", str(picture), "--force").status == 0


# ------------------------------------------------------------------------------------------------------------- extract


def tuned_from(base: Any, *, rank: int | None = 2, seed: int = 4, norms: bool = False, biases: bool = False) -> Any:
    """Change a model: its linear maps by a low rank, or by anything, and if asked for its norms and biases."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.2

    with torch.no_grad():
        for path, parameter in base.named_parameters():
            if path.endswith(("query.weight", "dense.weight", "q.weight", "c_attn.weight")):
                rows, columns = parameter.shape
                parameter += noise(rows, columns) if rank is None else noise(rows, rank) @ noise(rank, columns)
            if norms and "LayerNorm" in path:
                parameter += noise(*parameter.shape)
            if biases and path.endswith("value.bias"):
                parameter += noise(*parameter.shape)
    return base


def folders(tmp_path: Path, name: str = "bert", **changes: Any) -> tuple[str, str]:
    """Return the folders of a base model and of what was made of it."""
    base = BertModel(BertConfig(**SIZES)) if name == "bert" else family(name)
    base.save_pretrained(tmp_path / "base")
    tuned_from(base, **changes).save_pretrained(tmp_path / "tuned")
    return str(tmp_path / "base"), str(tmp_path / "tuned")


def outputs(folder: str, adapter: Adapter | None = None) -> torch.Tensor:
    base = AutoModel.from_pretrained(folder).eval()
    if adapter is not None:
        attach(base).load(adapter, set_active=True)
    return hidden(base, {"input_ids": inputs()["input_ids"]})


@pytest.mark.parametrize("name", ["bert", "gpt2", "roberta"])
def test_a_low_rank_difference_is_extracted_exactly(name: str, tmp_path: Path) -> None:
    base, tuned = folders(tmp_path, name, norms=name != "gpt2", biases=name != "gpt2")
    found = extract(base, tuned, name="learnt", rank=2)
    assert all(site.kept == pytest.approx(1, abs=1e-6) for site in found.sites)
    assert torch.allclose(outputs(base, found.adapter), outputs(tuned), atol=2e-5)
    assert not torch.allclose(outputs(base), outputs(tuned), atol=1e-2)
    if name != "gpt2":
        assert any(one.path.endswith("value.bias") for one in found.kept)
        assert [config.method for config in found.adapter.config] == ["lora", "layer_norm", "parameters"]


def test_an_energy_decides_the_rank_of_each_map(tmp_path: Path) -> None:
    base, tuned = folders(tmp_path, rank=None)
    found = extract(base, tuned, name="learnt", energy=0.8)
    assert all(0.8 <= site.kept < 0.95 for site in found.sites)
    assert len({site.rank for site in found.sites}) > 1
    origin = found.adapter.manifest.provenance
    assert origin is not None
    assert not origin.exact
    whole = extract(base, tuned, name="learnt", energy=1.0)
    assert torch.allclose(outputs(base, whole.adapter), outputs(tuned), atol=5e-5)


def test_extract_on_the_command_line(tmp_path: Path) -> None:
    base, tuned = folders(tmp_path, norms=True)
    out = tmp_path / "learnt"
    typed = type_command("extract", "--base", base, "--tuned", tuned, "--rank", "2", "--out", str(out))
    assert typed.status == 0, typed.err
    assert "ENERGY KEPT" in typed.out
    assert "encoder.layer.0.output.LayerNorm.weight" in typed.out
    adapter = read(f"{out}.safetensors")
    assert adapter.manifest.base.fingerprint is not None
    assert torch.allclose(outputs(base, adapter), outputs(tuned), atol=2e-5)
    with pytest.raises(BaseMismatchError, match="holds other values"):
        attach(BertModel(BertConfig(**SIZES))).load(adapter)


def test_what_only_the_tuned_model_has_is_refused_by_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = BertForSequenceClassification(BertConfig(**SIZES))
    classifier.bert.save_pretrained(tmp_path / "base")
    tuned_from(classifier).save_pretrained(tmp_path / "tuned")
    base, tuned = str(tmp_path / "base"), str(tmp_path / "tuned")
    with pytest.raises(UnsupportedError, match=r"lacks: classifier\.bias, classifier\.weight"):
        extract(base, tuned, name="learnt", rank=2)
    found = extract(base, tuned, name="learnt", rank=2, without_head=True)
    assert all(site.kept == pytest.approx(1, abs=1e-6) for site in found.sites)


def test_models_that_do_not_fit_or_do_not_differ_are_refused(tmp_path: Path) -> None:
    base, tuned = folders(tmp_path)
    BertModel(BertConfig(**{**SIZES, "hidden_size": 16})).save_pretrained(tmp_path / "small")
    family("roberta").save_pretrained(tmp_path / "roberta")
    with pytest.raises(BaseMismatchError, match=r"was not made of this base model: \S+ has shape"):
        extract(base, str(tmp_path / "small"), name="x", rank=2)
    with pytest.raises(BaseMismatchError, match=r"is a bert, \S+ a roberta"):
        extract(base, str(tmp_path / "roberta"), name="x", rank=2)
    with pytest.raises(UsageError, match="give --rank or --energy"):
        extract(base, tuned, name="x")
    with pytest.raises(UsageError, match="are one model"):
        extract(base, base, name="x", rank=1)
    again = AutoModel.from_pretrained(base)
    again.save_pretrained(tmp_path / "again")
    with pytest.raises(UsageError, match="do not differ"):
        extract(base, str(tmp_path / "again"), name="x", rank=1)


def test_a_copy_in_half_precision_does_not_differ(tmp_path: Path) -> None:
    base, _ = folders(tmp_path)
    AutoModel.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    with pytest.raises(UsageError, match="do not differ"):
        extract(base, str(tmp_path / "half"), name="x", rank=1)


def test_files_in_shards_are_read(tmp_path: Path) -> None:
    base, tuned = folders(tmp_path)
    AutoModel.from_pretrained(tuned).save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    one, two = (extract(base, folder, name="x", rank=2) for folder in (tuned, str(tmp_path / "shards")))
    assert all(torch.equal(one.adapter.tensors[key], tensor) for key, tensor in two.adapter.tensors.items())


def test_an_extracted_adapter_is_written_for_peft(tmp_path: Path) -> None:
    base, tuned = folders(tmp_path)
    found = extract(base, tuned, name="learnt", rank=2)
    again = read(write(found.adapter, tmp_path / "peft", format="peft"))
    assert torch.allclose(outputs(base, again), outputs(tuned), atol=2e-5)


# ----------------------------------------------------------------------------------------------- where the result lands


@pytest.mark.parametrize(
    ("out", "file", "name", "version"),
    [
        ("both", "both.safetensors", "both", ""),
        ("both@1.2.0", "both-1.2.0.safetensors", "both", "1.2.0"),
        ("./both", "both.safetensors", "both", ""),
        ("My Both.safetensors", "My Both.safetensors", "my-both", ""),
        ("My Both", "My Both.safetensors", "my-both", ""),
    ],
)
def test_a_name_lands_here_and_a_path_is_the_file(
    out: str, file: str, name: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = saved(tmp_path, a="lora[r=2]", b="lora[r=2]")
    base, tuned = folders(tmp_path)
    for number, command in enumerate((("merge", a, b), ("extract", "--base", base, "--tuned", tuned, "--rank", "2"))):
        here = tmp_path / f"here-{number}"
        here.mkdir()
        monkeypatch.chdir(here)
        typed = type_command(*command, "--out", out, "-q")
        assert typed.status == 0, typed.err
        assert [path.name for path in here.iterdir()] == [file]
        manifest = read(file).manifest
        assert (manifest.name, manifest.version) == (name, version)
    assert type_command("show", f"./{file}", "-q").status == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "both@"], "is not a version"),
        (["--out", "...safetensors"], "gives no name for the adapter"),
        (["--out", "both@one"], "'one' is not a version"),
    ],
)
def test_an_out_that_means_nothing_is_refused(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = saved(tmp_path, a="lora[r=2]", b="lora[r=2]")
    monkeypatch.chdir(tmp_path)
    typed = type_command("merge", a, b, *arguments)
    assert typed.status == 2, typed.err
    assert words in typed.err
