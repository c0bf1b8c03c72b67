"""What vLLM makes of a folder of PEFT, by the rules in its source."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden import PEFTS
from tiny_models import family, with_adapters

from adapterhub.adapter import Adapter
from adapterhub.converters import read, vllm, write


def made(text: str, name: str = "llama") -> Adapter:
    return with_adapters(family(name), x=text).adapter("x")


@pytest.mark.parametrize(
    ("text", "rank", "most"),
    [
        ("lora[r=1]", 1, "8"),
        ("lora[r=8]", 8, "8"),
        ("lora[r=9]", 9, "16"),
        ("lora[r=300]", 300, "320"),
        ("lora[rank_stabilised=true,r=4]", 4, "8"),
        ('lora[ranks={"query":16},alphas={"query":16}]', 16, "16"),
        ('lora[targets=["all-linear"]]', 8, "8"),
        ("vera[r=4,alpha=8]", 4, "8"),
    ],
)
def test_an_adapter_that_vllm_serves_gets_the_flags_for_it(text: str, rank: int, most: str, tmp_path: Path) -> None:
    adapter = made(text)
    flags = ("--enable-lora", "--max-lora-rank", most, "--lora-modules", f"x={tmp_path / 'out'}")
    found = vllm.serving(adapter, tmp_path / "out")
    assert found == vllm.Serving(rank=rank, flags=flags)
    write(adapter, tmp_path / "out", "peft")
    assert vllm.serving_folder(tmp_path / "out", "x") == found


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("dora", "llama", ["it is a DoRA"]),
        ("lora+layer_norm", "llama", ["modules_to_save names"]),
        ("lora[update_bias=true]", "llama", ["it has biases"]),
        ("lora[r=513]", "llama", ["its rank is 513, and vLLM takes up to 512"]),
        ('lora[alphas={"query":2}]', "llama", ["maps have another scale"]),
        ('lora[ranks={"query":2}]', "llama", ["maps have another scale"]),
        ('lora[targets=["embed_tokens","query"]]', "llama", ["it adapts embed_tokens"]),
        ("lora", "gpt2", ["no adapters of gpt2 models"]),
        ("ia3", "llama", ["it serves LoRA, and no IA3"]),
        ("seq_bn", "llama", ["it serves LoRA, and no BOTTLENECK"]),
        ('dora[alphas={"query":2},r=600]', "llama", ["DoRA", "another scale", "rank is 600"]),
    ],
)
def test_everything_that_vllm_would_reject_or_get_wrong_is_told(
    text: str, name: str, says: list[str], tmp_path: Path
) -> None:
    found = vllm.serving(made(text, name), tmp_path)
    assert found.flags == ()
    assert len(found.rejected) == len(says)
    assert all(any(part in reason for reason in found.rejected) for part in says)


def test_a_folder_of_another_family_is_told() -> None:
    found = vllm.serving_folder(PEFTS.case("bert-lora-list").adapter)
    assert found.rejected == ("it serves no adapters of bert models",)


def test_a_folder_may_be_called_as_one_likes(tmp_path: Path) -> None:
    path = write(made("lora"), tmp_path / "folder", "peft")
    assert vllm.serving_folder(path, "mine").flags[-1] == f"mine={path}"
    assert read(path).manifest.name == "x"
