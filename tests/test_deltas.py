"""What adapters change, as numbers: the same as their merged weights; and the best low-rank factors of it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_updating import METHODS as UPDATING
from tiny_models import model, with_adapters
from torch import Tensor

from adapterhub.architectures import by_name
from adapterhub.converters import accounting
from adapterhub.errors import UnsupportedError, UsageError
from adapterhub.loader import AdapterSet
from adapterhub.methods import deltas, factoring, method_of
from adapterhub.methods.linear_maps import is_transposed

METHODS = {
    **UPDATING,
    "lora": "lora[r=3,alpha=5]",
    "everywhere": 'lora[r=2,targets=["all-linear","embeddings.word_embeddings"]]',
    "rslora": "rslora[r=4]",
    "dora": "dora[alpha=3]",
    "dora_adapters": "dora[magnitude=dora_adapters,alpha=3]",
    "bias": "lora[update_bias=true,alpha=3]",
    "vera": "vera[r=6]",
    "dvora": "dvora[r=6]",
    "matrices": "vera[r=6,form=matrices]",
    "mtl": "mtl_lora[ups=2]",
    "ia3": "ia3",
}


@pytest.fixture(scope="module")
def adapters() -> AdapterSet:
    return with_adapters(model("bert"), **METHODS)


def found(adapters: AdapterSet, name: str, *, base: bool) -> Mapping[str, deltas.Delta]:
    """Return path → what the adapter changes there."""
    adapter, ground = adapters.adapter(name), adapters._ground
    config = adapter.config[0]
    layout = ground.layout
    if not base:
        have = {key: tuple(tensor.shape) for key, tensor in adapter.tensors.items()}
        layout = accounting.layout(adapter.config, have, by_name("bert"))
    reader = adapters._loaded.parameter if base else None
    return {d.linear.path: d for d in deltas.Changes(method_of(config), config, layout, adapter.tensors, reader)}


def weights(adapters: AdapterSet, path: str) -> tuple[Tensor, Tensor | None]:
    """Return weight (outputs, columns) and bias of a map as they are now, float64."""
    module = adapters._ground.modules[path]
    linear = adapters._ground.layout.linear[path]
    weight = module.get_parameter("weight").detach().double()
    bias = module._parameters.get("bias")
    return (weight.t() if is_transposed(linear) else weight), None if bias is None else bias.detach().double()


@pytest.mark.parametrize("name", METHODS)
def test_an_adapter_changes_what_merging_it_into_the_base_changes(adapters: AdapterSet, name: str) -> None:
    changes = found(adapters, name, base=True)
    before = {path: weights(adapters, path) for path in changes}
    adapters.activate(None)
    adapters.merge(name)
    after = {path: weights(adapters, path) for path in changes}
    adapters.unmerge()
    for path, delta in changes.items():
        (w, b), (w2, b2) = before[path], after[path]
        assert torch.allclose(delta.matrix(w), w2 - w, atol=2e-6), path
        if b is not None and b2 is not None:
            gained = b * delta.gain if delta.gain is not None and delta.gains_bias else b
            assert torch.allclose(gained + (0 if delta.bias is None else delta.bias), b2, atol=2e-6), path


@pytest.mark.parametrize("name", METHODS)
def test_it_is_told_without_the_base_or_the_base_is_asked_for(adapters: AdapterSet, name: str) -> None:
    config = adapters.adapter(name).config[0]
    if not method_of(config).alone(config):
        with pytest.raises(UnsupportedError, match=f"what {config.method} changes cannot be told from its tensors"):
            found(adapters, name, base=False)
        return
    alone, wanted = found(adapters, name, base=False), found(adapters, name, base=True)
    assert alone.keys() == wanted.keys()
    assert all(torch.equal(alone[path].matrix(), wanted[path].matrix()) for path in wanted)


def test_parts_of_a_merged_map_stand_in_their_rows() -> None:
    from tiny_models import family

    base = family("gpt2")
    adapters = with_adapters(base, parts="lora[r=3]")
    for path, delta in found(adapters, "parts", base=True).items():
        assert delta.parts == (0, 2)
        before, _ = weights(adapters, path)
        adapters.merge("parts")
        after, _ = weights(adapters, path)
        adapters.unmerge()
        assert torch.allclose(delta.matrix(), after - before, atol=1e-6)
        assert not delta.matrix()[len(before) // 3 : -(len(before) // 3)].any()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(outputs=st.integers(1, 12), inputs=st.integers(1, 12), k=st.integers(1, 15), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_factors_of_a_product_are_those_of_its_matrix(outputs: int, inputs: int, k: int, seed: int) -> None:
    a, b = random(k, inputs, seed=seed), random(outputs, k, seed=seed + 1)
    whole = b @ a
    s = torch.linalg.svdvals(whole)
    assert torch.allclose(factoring.singular_values(a, b)[: len(s)], s[:k], atol=1e-12)
    for rank in (1, 2, None):
        by_matrix, by_product = factoring.of_matrix(whole, rank=rank), factoring.of_product(a, b, rank=rank)
        assert by_matrix.rank == by_product.rank
        assert torch.allclose(by_product.b @ by_product.a, by_matrix.b @ by_matrix.a, atol=1e-9)
        assert by_product.kept == pytest.approx(by_matrix.kept, abs=1e-12)
    assert torch.allclose(by_product.b @ by_product.a, whole, atol=1e-12)
    assert by_product.rank <= min(outputs, inputs, k)


@given(energy=st.floats(0.01, 1.0), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_an_energy_keeps_the_fewest_singular_values_that_hold_it(energy: float, seed: int) -> None:
    matrix = random(9, 7, seed=seed)
    made = factoring.of_matrix(matrix, energy=energy)
    assert made.kept >= energy - 1e-12
    error = float((matrix - made.b @ made.a).square().sum() / matrix.square().sum())
    assert made.kept == pytest.approx(1 - error, abs=1e-12)
    if made.rank > 1:
        assert factoring.of_matrix(matrix, rank=made.rank - 1).kept < energy


@pytest.mark.parametrize("decay", [0, -2, -6, -13])
@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (50, 50)])
def test_a_few_factors_are_as_good_as_those_of_all_singular_values(shape: tuple[int, int], decay: int) -> None:
    m, n = shape
    matrix = random(m, m) * torch.logspace(0, decay, m, dtype=torch.float64) @ random(m, n, seed=1)
    for rank in (1, 4, 8):
        made, all_s = factoring.of_matrix(matrix, rank=rank), torch.linalg.svdvals(matrix)
        left = float((matrix - made.b @ made.a).norm())
        assert left == pytest.approx(float(all_s[rank:].norm()), rel=1e-9, abs=1e-9 * float(all_s[0]))
        assert made.kept == pytest.approx(1 - (left / float(all_s.norm())) ** 2, abs=1e-12)
        assert torch.allclose(made.a @ made.a.t(), torch.eye(rank, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("nearness", [1.0, 1e-2, 1e-5, 1e-9, 0.0])
@pytest.mark.parametrize("size", [1e-8, 1.0])
def test_factors_that_are_nearly_dependent_lose_nothing(nearness: float, size: float) -> None:
    a, b = random(6, 30), random(40, 6, seed=1)
    a[3:] = a[:3] + nearness * a[3:]
    b[:, 2] = size * b[:, 2] + nearness * b[:, 1]
    whole = b @ a
    for rank in (2, 3, 6):
        by_matrix, by_product = factoring.of_matrix(whole, rank=rank), factoring.of_product(a, b, rank=rank)
        assert torch.allclose(by_product.b @ by_product.a, by_matrix.b @ by_matrix.a, atol=1e-9)
        eye = torch.eye(by_product.rank, dtype=torch.float64)
        assert torch.allclose(by_product.a @ by_product.a.t(), eye, atol=1e-9)


def test_no_change_has_rank_one_and_loses_nothing() -> None:
    made = factoring.of_matrix(torch.zeros(4, 3))
    assert (made.rank, made.kept) == (1, 1.0)
    assert not (made.b @ made.a).any()


@pytest.mark.parametrize(("rank", "energy"), [(3, 0.5), (0, None), (None, 0.0), (None, 1.5), (None, float("nan"))])
def test_a_size_that_means_nothing_is_refused(rank: int | None, energy: float | None) -> None:
    with pytest.raises(UsageError, match=r"rank|energy"):
        factoring.check_size(rank, energy)
