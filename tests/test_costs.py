"""What adapters cost, in counts: operations that are not views (kernel launches) and Python calls. No times."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import inputs
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, BertModel

from adapterhub.loader import attach

LAYERS = 12


class Operations(TorchDispatchMode):
    """Counts operations whose result is new memory."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def operations(base: BertModel) -> int:
    with torch.no_grad(), Operations() as counter:
        base(**inputs())
    return counter.count


def calls(action: Callable[[], object]) -> int:
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    action()
    # A collection in between would count the finalisers of objects that have nothing to do with the action.
    gc.collect()
    gc.disable()
    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def forward_calls(base: BertModel) -> int:
    with torch.no_grad():
        return calls(lambda: base(**inputs()))


@pytest.fixture
def base() -> BertModel:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 100}
    return BertModel(BertConfig(num_hidden_layers=LAYERS, **sizes)).eval()


def test_attached_and_inactive_nothing_is_added_to_the_forward_pass(base: BertModel) -> None:
    before = operations(base), forward_calls(base)
    adapters = attach(base)
    for name in ("a", "b", "c"):
        adapters.add(name, "double_seq_bn+layer_norm")
        adapters.activate(name)
    adapters.activate(None)
    assert (operations(base), forward_calls(base)) == before


@pytest.mark.parametrize(
    ("method", "most_operations", "most_calls"),
    [
        ("seq_bn", 75, 250),
        ("double_seq_bn", 100, 400),
        ("par_bn", 63, 250),
        ("layer_norm", 0, 0),
        ("lora", 48, 200),
        ("dora", 240, 450),
        ("ia3", 36, 150),
        ("vera", 96, 200),
    ],
)
def test_an_active_adapter_adds_few_operations_and_calls(
    base: BertModel, method: str, most_operations: int, most_calls: int
) -> None:
    before = operations(base), forward_calls(base)
    adapters = attach(base)
    adapters.add("a", method, set_active=True)
    assert operations(base) - before[0] <= most_operations
    assert forward_calls(base) - before[1] <= most_calls


def test_a_swap_makes_the_same_few_calls_with_two_or_fifty_adapters_loaded(base: BertModel) -> None:
    adapters = attach(base)
    counts = []

    def there_and_back() -> None:
        adapters.activate("a1")
        adapters.activate("a0")

    for total in (2, 50):
        while len(adapters.names) < total:
            adapters.add(f"a{len(adapters.names)}", "double_seq_bn")
        adapters.activate("a0")
        counts.append(calls(there_and_back))
    assert counts[0] == counts[1]
    assert counts[0] <= 2 * 6


def test_the_fiftieth_load_makes_as_many_calls_as_the_second(base: BertModel) -> None:
    adapters = attach(base)
    adapters.add("a", "seq_bn")
    value = adapters.adapter("a")
    numbers = iter(range(1000))
    counts = [calls(lambda: adapters.load(value, name=f"b{next(numbers)}")) for _ in range(25)]
    assert counts[-1] <= counts[0] * 1.05
