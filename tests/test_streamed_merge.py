"""Merging map by map: sources that stay on the disk, results that go there, and nothing of both in between."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import model, with_adapters
from torch import Tensor

import adapterhub
from adapterhub import Adapter, FormatError, StateError, read, write
from adapterhub.converters import native
from adapterhub.converters.opening import opened
from adapterhub.converters.spool import Spool
from adapterhub.hub.merging import merged, source
from adapterhub.merging import Request

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sum": ("lora[r=2]", "rslora[r=3]", {}),
    "svd": ("lora[r=2]", "lora[r=3]", {"method": "svd"}),
    "energy": ("lora[r=2]", "lora[r=3]", {"energy": 0.7}),
    "ranks that differ": ('lora[r=2,ranks={"query":5}]', "lora[r=3]", {"rank": 8}),
    "biases at some maps": ("lora[r=2,update_bias=true]", 'lora[targets=["query","key"]]', {}),
    "matrices": ("loha[r=2]", "lora[r=2]", {"method": "ties", "density": 0.5, "rank": 3}),
    "factors": ("lora[r=2]", "lora[r=2]", {"method": "lora_linear_only_negate_b"}),
    "tensors": ("double_seq_bn[reduction_factor=8]+layer_norm", "double_seq_bn[reduction_factor=8]+layer_norm", {}),
    "both": ("mam[reduction_factor=8]", "mam[reduction_factor=8]", {}),
}


def two(folder: Path, one: str, other: str, format: str = "native", *, large: bool = False) -> list[Path]:  # noqa: A002
    """Return the paths of two adapters; large ones are mapped, not read."""
    adapters = with_adapters(model("bert"), a=one, b=other)
    if large:
        adapters = with_adapters(model("bert"), a=one.replace("r=2", "r=500"), b=other.replace("r=2", "r=500"))
    return [write(adapters.adapter(name), folder / name, format=format) for name in ("a", "b")]


@pytest.mark.parametrize("case", CASES)
def test_a_result_that_goes_to_the_disk_is_the_file_of_one_in_memory(case: str, tmp_path: Path) -> None:
    one, other, options = CASES[case]
    paths = two(tmp_path, one, other)
    request = Request(**options)
    whole = merged([source(read(path)) for path in paths], request, name="it").adapter
    with Spool(tmp_path) as spool:
        made = merged([source(path) for path in paths], request, name="it", keeper=spool)
        native.write(native.encode(made.adapter), tmp_path / "out.safetensors")
    same(read(tmp_path / "out.safetensors"), whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "out.safetensors"]


@pytest.mark.parametrize("case", ["sum", "svd", "matrices", "tensors"])
def test_merge_writes_its_result_where_it_is_told_and_gives_it_from_there(case: str, tmp_path: Path) -> None:
    one, other, options = CASES[case]
    paths, out = two(tmp_path, one, other), tmp_path / "out.safetensors"
    wanted = adapterhub.merge(paths, name="it", **options)
    made = adapterhub.merge(paths, name="it", out=out, **options)
    same(made, wanted)
    assert out.read_bytes() == write(wanted, tmp_path / "whole.safetensors").read_bytes()
    with pytest.raises(StateError, match="exists already"):
        adapterhub.merge(paths, name="it", out=out, **options)
    same(adapterhub.merge(paths, name="it", out=str(out), force=True, **options), wanted)
    # It may be written over one of the adapters that it is made of.
    same(adapterhub.merge([out, out], name="it", out=out, force=True), adapterhub.merge([wanted, wanted], name="it"))


class Watching:
    """A keeper that keeps nothing, and counts what is still there of what it was given before."""

    def __init__(self) -> None:
        self.given: list[weakref.ref[Tensor]] = []
        self.most = 0

    def put(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.most = max(self.most, sum(one() is not None for one in self.given))
        self.given += [weakref.ref(tensor) for tensor in tensors.values()]
        return {key: tensor.new_zeros(()).expand(tensor.shape) for key, tensor in tensors.items()}

    def get(self, tensor: Tensor) -> Tensor:
        return tensor


@pytest.mark.parametrize("case", ["sum", "svd", "matrices", "factors", "tensors"])
def test_no_more_than_one_map_of_the_result_is_held(case: str, tmp_path: Path) -> None:
    one, other, options = CASES[case]
    keeper = Watching()
    merged([source(path) for path in two(tmp_path, one, other)], Request(**options), name="it", keeper=keeper)
    assert len(keeper.given) >= 12
    assert keeper.most <= 2


@pytest.mark.parametrize("format", ["native", "peft", "adapters"])
def test_sources_are_asked_to_give_their_memory_back_after_each_map(format: str, tmp_path: Path) -> None:  # noqa: A002
    asked: list[int] = []
    paths = two(tmp_path, "lora[r=2]", "lora[r=2]", format)
    sources = [replace(source(path), release=lambda: asked.append(1)) for path in paths]
    made = merged(sources, Request(), name="it")
    assert len(asked) == len(sources) * len(made.sites)


@pytest.mark.parametrize("format", ["native", "peft", "adapters"])
def test_a_large_adapter_lies_in_its_file_and_is_the_same_after_its_memory_was_given_back(
    format: str,  # noqa: A002
    tmp_path: Path,
) -> None:
    paths = two(tmp_path, "lora[r=2]", "lora[r=2]", format, large=True)
    held = read(paths[0])
    found = opened(paths[0])
    assert found.digest == source(paths[0]).digest
    assert found.digest.startswith("sha256:")
    same(found.adapter, held)
    found.release()
    same(found.adapter, held)
    kept = {key: tensor.data_ptr() for key, tensor in found.adapter.tensors.items()}
    found.release()
    assert kept == {key: tensor.data_ptr() for key, tensor in found.adapter.tensors.items()}


def same(one: Adapter, two: Adapter) -> None:
    assert one.config == two.config
    assert one.tensors.keys() == two.tensors.keys()
    assert all(torch.equal(one.tensors[key], two.tensors[key]) for key in two.tensors)


def test_values_that_are_not_finite_are_found_in_files_that_are_not_read_whole(tmp_path: Path) -> None:
    (path, _) = two(tmp_path, "lora[r=2]", "lora[r=2]", large=True)
    adapter = read(path)
    key = next(iter(adapter.tensors))
    broken = {**adapter.tensors, key: adapter.tensors[key].clone().fill_(float("nan"))}
    path.unlink()
    native.write(native.encode(Adapter(adapter.config, broken, adapter.manifest)), path)
    with pytest.raises(FormatError, match="NaN or infinite") as error:
        opened(path)
    assert key in str(error.value)


def test_the_result_is_no_view_of_a_source(tmp_path: Path) -> None:
    (path, _) = two(tmp_path, "lora[r=2]", "lora[r=2]", large=True)
    before = read(path)
    made = merged([source(path)], Request(weights=(1.0,)), name="it").adapter
    with path.open("r+b") as file:
        file.seek(-4096, 2)
        file.write(bytes(4096))
    same(made, Adapter(before.config, before.tensors, made.manifest))


def test_a_spool_gives_back_what_was_put_into_it_and_leaves_nothing(tmp_path: Path) -> None:
    tensors = {
        "a": torch.arange(12.0).view(3, 4).t(),
        "b": torch.arange(5, dtype=torch.int64),
        "c": torch.ones(2, 2, dtype=torch.bfloat16),
        "d": torch.zeros(0, 3),
    }
    with Spool(tmp_path) as spool:
        kept = spool.put(tensors)
        again = spool.put(kept)
        assert again == kept
        for key, tensor in tensors.items():
            assert torch.equal(spool.get(kept[key]), tensor)
            assert spool.get(kept[key]).dtype == tensor.dtype
        assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_spool_without_a_place_says_so(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"missing cannot be written: No such file"):
        Spool(tmp_path / "missing")
