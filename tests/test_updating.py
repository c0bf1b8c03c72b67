"""Methods that change one linear map at a time: what holds for all of them, and their mathematics written out again."""

from __future__ import annotations

import pytest
import torch
from tiny_models import hidden, inputs, model, with_adapters
from torch import Tensor

from adapterhub import Average, Parallel, Stack
from adapterhub.errors import UnsupportedError, UsageError
from adapterhub.loader import AdapterSet, attach
from adapterhub.methods import parse_method

METHODS = {
    "loha": "loha[r=3]",
    "lokr": "lokr[r=3]",
    "hira": "hira[r=3]",
    "miss": "miss[r=4]",
    "miss-bat": "miss[r=4,variant=bat]",
    "delora": "delora[r=3]",
    "shira": "shira[r=2]",
    "c3a": "c3a[block_size=8]",
    "fourierft": "fourierft[frequencies=10]",
    "oft": "oft[block_size=8]",
    "boft": "boft[block_size=4,factors=2]",
    "hra": "hra[r=4]",
    "road": "road[group_size=8]",
    "adalora": "adalora[r=4]",
    "gralora": "gralora[r=4,hybrid_r=2]",
    "randlora": "randlora[r=4,alpha=4]",
    "vblora": "vblora[r=2,vectors=8,length=16]",
    "waveft": "waveft[frequencies=10]",
    "beft": "beft",
    "deft": "deft[r=4]",
    "glora": "glora[r=4]",
    "peanut": "peanut[r=4,depth=1]",
    "supertuning": "supertuning[sparsity=0.9,r=2]",
}
STARTS_ELSEWHERE = ("deft", "vblora")
"""Methods whose start values change the base a little: as in PEFT they have none that do not."""


@pytest.fixture(scope="module")
def adapters() -> AdapterSet:
    return with_adapters(model("bert"), **METHODS, lora="lora")


def alone(adapters: AdapterSet, setup: object) -> Tensor:
    adapters.activate(setup)  # type: ignore[arg-type]
    return hidden(adapters.model)


@pytest.mark.parametrize("name", METHODS)
def test_it_changes_the_output_and_leaves_no_trace(adapters: AdapterSet, name: str) -> None:
    before = alone(adapters, None)
    assert not torch.allclose(alone(adapters, name), before, atol=1e-3)
    assert torch.equal(alone(adapters, None), before)


@pytest.mark.parametrize("name", METHODS)
def test_merged_it_computes_the_same(adapters: AdapterSet, name: str) -> None:
    wanted = alone(adapters, name)
    adapters.activate(None)
    adapters.merge(name)
    found = hidden(adapters.model)
    adapters.unmerge()
    assert torch.allclose(found, wanted, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("name", METHODS)
def test_rows_of_a_batch_and_copies_of_it_have_it_alone(adapters: AdapterSet, name: str) -> None:
    rows = [name, None, "lora", name][: len(inputs()["input_ids"])]
    wanted = torch.stack([alone(adapters, row)[i] for i, row in enumerate(rows)])
    adapters.activate(None)
    with adapters.per_row(rows):
        assert torch.allclose(hidden(adapters.model), wanted, atol=1e-5)
    count = len(inputs()["input_ids"])
    assert torch.allclose(alone(adapters, Parallel(name, "lora"))[:count], alone(adapters, name), atol=1e-5)
    assert torch.allclose(alone(adapters, Average(name, name)), alone(adapters, name), atol=1e-5)
    assert not torch.allclose(alone(adapters, Stack(name, "lora")), alone(adapters, name), atol=1e-3)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in STARTS_ELSEWHERE])
def test_a_new_adapter_changes_nothing(name: str) -> None:
    base = model("bert")
    before = hidden(base)
    adapters = attach(base)
    adapters.add("new", METHODS[name], set_active=True)
    assert torch.allclose(hidden(base), before, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_it_runs_in_bfloat16(name: str) -> None:
    base = model("bert")
    adapters = with_adapters(base, x=METHODS[name])
    adapters.activate("x")
    exact = hidden(base)
    torch.nn.Module.to(base, torch.bfloat16)
    adapters.activate("x")
    found = hidden(base)
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("c3a[block_size=7]", "does not divide"),
        ("gralora[r=4,blocks=3]", "does not divide r"),
        ("vblora[r=2,vectors=8,length=7]", "does not divide"),
        ("vblora[r=2,vectors=8,length=16,topk=9]", "larger than the bank"),
        ("vblora[r=2,vectors=8,length=16,only_top=true]", "cannot be trained"),
        ("fourierft[frequencies=100000]", "do not fit"),
        ("waveft[frequencies=100000]", "do not fit"),
        ("supertuning[sparsity=0.99999]", "leaves no entry"),
        ("supertuning[sparsity=1]", "must lie in"),
        ("peanut[activation=rleu]", "unknown"),
        ("peanut[depth=99]", "depth is 99"),
        ("loha[r=0]", "expected 1 to"),
        ("randlora[r=0]", "expected 1 to"),
    ],
)
def test_what_makes_no_sense_is_told(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        attach(model("bert")).add("x", text)


def test_a_kind_of_map_that_a_method_is_not_defined_for_is_told() -> None:
    with pytest.raises(UnsupportedError, match=r"not defined for embeddings\.word_embeddings \(embedding\)"):
        attach(model("bert")).add("x", 'c3a[block_size=4,targets=["embeddings.word_embeddings"]]')


# The mathematics, written out again

W = torch.linspace(-1, 1, 48).view(6, 8).sin()


def weight_of(text: str, tensors: dict[str, Tensor], **shared: Tensor) -> Tensor:
    """Return what a method makes of W, its operation asked directly."""
    from adapterhub.methods import Live, method_of
    from adapterhub.sites import Layout, Linear

    linear = Linear(path="m", inputs=8, outputs=6, bias=True)
    layout = Layout(architecture="bert", layers=1, width=8, sites=(), norms=(), pooler=False, linears=(linear,))
    base = {"m.weight": W, "m.bias": torch.zeros(6)}
    live = Live(layout=layout, mode=torch.nn.Module(), base=base.__getitem__)
    (config,) = parse_method(text.replace("]", ',targets=["m"]]'))
    own = {f"m.{name}": tensor for name, tensor in tensors.items()}
    own |= {f"shared.{name}": tensor for name, tensor in shared.items()}
    found: Tensor = method_of(config).bind(config, own, live).linears["m"].merged(W, torch.zeros(6))[0]
    return found


def drawn(*shape: int) -> Tensor:
    return torch.linspace(0, 7, torch.Size(shape).numel()).view(shape).cos()


def test_gralora_has_a_low_rank_update_in_each_block() -> None:
    a, b = drawn(2, 4, 4), drawn(2, 4, 3)
    update = torch.zeros(6, 8)
    for out in range(2):
        for into in range(2):
            mine = slice(2 * out, 2 * out + 2)
            theirs = slice(2 * into, 2 * into + 2)
            block = torch.zeros(3, 4)
            for s in range(2):
                block += torch.outer(b[out, theirs][s], a[into, :, mine][:, s])
            update[3 * out : 3 * out + 3, 4 * into : 4 * into + 4] = block
    found = weight_of("gralora[r=4,alpha=8]", {"gralora_A": a, "gralora_B": b})
    assert torch.allclose(found, W + 2 * update, atol=1e-5)


def test_waveft_inverts_a_step_of_haar() -> None:
    values = torch.tensor([1.0, -2.0, 0.5])
    found = (weight_of("waveft[frequencies=3,scale=1]", {"waveft_spectrum": values}) - W).double()
    plain = (weight_of("waveft[frequencies=3,scale=1,haar=false]", {"waveft_spectrum": values}) - W).double()
    # An orthogonal transform keeps the norm, and its differences of neighbours are the coefficients.
    assert torch.allclose(found.norm(), plain.norm(), atol=1e-6)
    rows = (found[0::2] + found[1::2]) * 0.5**0.5
    means = (rows[:, 0::2] + rows[:, 1::2]) * 0.5**0.5
    assert torch.allclose(means, plain[:3, :4], atol=1e-6)


def test_randlora_sums_scaled_products_of_shared_matrices() -> None:
    a, b, lam, gamma = drawn(2, 1, 6), drawn(8, 3, 2), drawn(2, 3), drawn(3, 6)
    update = torch.zeros(8, 6)
    flat_b, flat_a = b.reshape(8, 6), (lam[:, :, None] * a * gamma[None]).reshape(6, 6)
    for rank in range(6):
        update += torch.outer(flat_b[:, rank], flat_a[rank])
    tensors = {"randlora_lambda": lam, "randlora_gamma": gamma}
    found = weight_of("randlora[r=2,alpha=4]", tensors, randlora_A=a, randlora_B=b)
    assert torch.allclose(found, W + 2 * update.t(), atol=1e-5)


def test_vblora_puts_its_rows_together_from_a_bank() -> None:
    bank, logits_a, logits_b = drawn(5, 2), drawn(3, 4, 5), drawn(3, 3, 5)

    def vector(logits: Tensor) -> Tensor:
        top = logits.argsort(descending=True)[:2]
        weights = logits[top].exp() / logits[top].exp().sum()
        return weights[0] * bank[top[0]] + weights[1] * bank[top[1]]

    a = torch.stack([torch.cat([vector(logits_a[r, j]) for j in range(4)]) for r in range(3)])
    b = torch.stack([torch.cat([vector(logits_b[i, r]) for i in range(3)]) for r in range(3)], dim=1)
    tensors = {"vblora_logits_A": logits_a, "vblora_logits_B": logits_b}
    found = weight_of("vblora[r=3,vectors=5,length=2]", tensors, vblora_vector_bank=bank)
    assert torch.allclose(found, W + b @ a, atol=1e-5)


def test_deft_takes_a_subspace_away_and_puts_other_rows_there() -> None:
    p, c = drawn(6, 2), drawn(2, 8)
    basis = torch.linalg.qr(p)[0]
    rest = W - basis @ basis.t() @ W
    removed = weight_of("deft[r=2,projection=qr,removes_only=true]", {"deft_P": p})
    assert torch.allclose(removed, rest, atol=1e-5)
    replaced = weight_of("deft[r=2,projection=qr,alpha=6]", {"deft_P": p, "deft_R": c})
    assert torch.allclose(replaced, rest + 3 * basis @ c, atol=1e-5)
    assert torch.allclose(
        weight_of("deft[r=2]", {"deft_P": p, "deft_R": c}), W - p @ (p.relu().t() @ W) + p @ c, atol=1e-5
    )


def test_peanut_computes_an_update_of_the_weight() -> None:
    a, b, inner, outer = drawn(2, 6), drawn(6, 2), drawn(2, 2), drawn(2, 2) * 0.5
    rows = []
    for column in W.t():
        first = (a @ column).relu()
        second = (outer @ (inner @ first).relu()).relu() + first
        rows.append(0.5 * b @ second)
    tensors = {"peanut_A": a, "peanut_B": b, "peanut_encoders_0": inner, "peanut_decoders_0": outer}
    found = weight_of("peanut[r=2,depth=1,scale=0.5]", tensors)
    assert torch.allclose(found, W + torch.stack(rows, dim=1), atol=1e-5)
