"""Compositions under torch.compile, gradient checkpointing, half precision and threads; a thousand loaded adapters."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tiny_models import inputs, model
from torch import Tensor, nn

from adapterhub import Average, BatchSplit, Fuse, Parallel, Split, Stack
from adapterhub.composition import Composition
from adapterhub.loader import AdapterSet, attach

METHODS = {
    "houlsby": "double_seq_bn[reduction_factor=4]+layer_norm",
    "pfeiffer": "seq_bn[reduction_factor=2]",
    "wide": "seq_bn[reduction_factor=1]",
    "lora": "lora[r=3]",
    "ia3": "ia3",
    "prefix": "prefix_tuning_flat[prefix_length=3]",
    "reft": "loreft",
}
ROWS = ["houlsby", "lora", None, "prefix"]
SETUPS: list[Composition | list[str | None]] = [
    Stack("pfeiffer", "lora", "ia3", "prefix"),
    Average("pfeiffer", "houlsby"),
    BatchSplit("lora", Stack("pfeiffer", "houlsby"), batch_sizes=[1, 3]),
    Parallel("pfeiffer", "lora"),
    Split("pfeiffer", "houlsby", splits=[4, 5]),
    Fuse("pfeiffer", "wide"),
    ROWS,
    ["pfeiffer", "houlsby", "pfeiffer", "houlsby"],
]


def filled(dtype: torch.dtype = torch.float32) -> AdapterSet:
    base = model()
    nn.Module.to(base, dtype)
    adapters = attach(base)
    torch.manual_seed(0)
    for name, method in {**METHODS, "pfeiffer,wide": "fusion"}.items():
        adapters.add(name, method)
        for key, parameter in adapters.model.adapterhub._modules[name].named_parameters():
            if "fusion" not in key and "reft" not in key:
                nn.init.normal_(parameter, std=0.2)
    return adapters


@contextmanager
def active(adapters: AdapterSet, setup: Composition | list[str | None]) -> Iterator[None]:
    with adapters.per_row(setup) if isinstance(setup, list) else adapters.using(setup):
        yield


def run(base: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = base(**inputs(4)).last_hidden_state
    return found


@pytest.mark.slow
@pytest.mark.parametrize("setup", SETUPS, ids=str)
def test_torch_compile_makes_one_graph_of_a_composition(setup: Composition | list[str | None]) -> None:
    adapters = filled()
    torch._dynamo.reset()
    with active(adapters, setup):
        wanted = run(adapters.model)
        compiled = torch.compile(adapters.model, backend="eager", fullgraph=True)
        with torch.no_grad():
            assert torch.allclose(compiled(**inputs(4)).last_hidden_state, wanted, atol=1e-5)


@pytest.mark.parametrize("setup", SETUPS, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_what_single_precision_gives(
    setup: Composition | list[str | None], dtype: torch.dtype
) -> None:
    single, half = filled(), filled(dtype)
    with active(single, setup), active(half, setup):
        wanted, found = run(single.model), run(half.model)
    assert found.dtype == dtype
    assert (found.float() - wanted).abs().max() < 100 * torch.finfo(dtype).eps


@pytest.mark.parametrize("setup", SETUPS, ids=str)
def test_checkpointed_layers_get_the_same_gradients(setup: Composition | list[str | None]) -> None:
    grads = []
    for reentrant in (None, False, True):
        adapters = filled()
        for parameter in adapters.model.adapterhub.parameters():
            parameter.requires_grad_(True)
        adapters.model.train()
        if reentrant is not None:
            adapters.model.activation_checkpointing_enable({"use_reentrant": reentrant})
        for module in adapters.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        with active(adapters, setup):
            adapters.model(**inputs(4)).last_hidden_state.square().mean().backward()
        grads.append([p.grad for p in adapters.model.adapterhub.parameters()])
    for other in grads[1:]:
        for a, b in zip(grads[0], other, strict=True):
            assert (a is None) == (b is None)
            assert a is None or b is None or torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("setup", SETUPS, ids=str)
def test_a_model_is_copied_and_pickled_with_its_active_composition(setup: Composition | list[str | None]) -> None:
    adapters = filled()
    with active(adapters, setup):
        wanted = run(adapters.model)
        twins = copy.deepcopy(adapters.model), pickle.loads(pickle.dumps(adapters.model))
    assert all(torch.equal(run(twin), wanted) for twin in twins)


def test_threads_share_a_composition_without_mixing_up_their_batches() -> None:
    adapters = filled()
    adapters.activate(Stack("houlsby", "lora", "prefix"))
    batches = [inputs(2, seed=seed) for seed in range(8)]
    with torch.no_grad():
        wanted = [adapters.model(**batch).last_hidden_state for batch in batches]
    found: dict[int, Tensor] = {}

    def work(number: int) -> None:
        with torch.no_grad():
            for _ in range(5):
                found[number] = adapters.model(**batches[number]).last_hidden_state

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.allclose(found[number], want, atol=1e-6) for number, want in enumerate(wanted))


def test_a_thousand_loaded_adapters_cost_their_own_memory_and_nothing_on_the_forward_path() -> None:
    adapters = attach(model())
    plain = run(adapters.model)
    adapters.add("a0", "lora[r=4]")
    value = adapters.adapter("a0")
    one = sum(tensor.nbytes for tensor in value.tensors.values())
    for number in range(1, 1000):
        adapters.load(value, name=f"a{number}")
    parameters: list[Any] = list(adapters.model.adapterhub.parameters())
    assert sum(parameter.nbytes for parameter in parameters) == 1000 * one
    assert torch.equal(run(adapters.model), plain)
    adapters.activate("a999")
    assert adapters.active == "a999"
    with adapters.per_row(["a1", "a500", None, "a999"]):
        run(adapters.model)
    adapters.detach()
    assert torch.equal(run(adapters.model), plain)
