"""Two adapters on one loaded base model, and what it takes to go from one to the other.

Usage: python examples/swap.py [ADAPTER ADAPTER]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

import adapterhub
from adapterhub.hub import load_base

BASE = "sentence-transformers/all-MiniLM-L6-v2"
SENTENCES = (
    "A gorgeous, witty, seductive movie.",
    "The battery died after two days.",
    "The council will vote on the budget on Tuesday.",
)


def main() -> None:
    """Load both, ask both, measure the swap, and show that the base model comes back bit for bit."""
    torch.set_num_threads(1)
    names = sys.argv[1:] or ["sst2-bert", "tweets-bert"]
    model, tokenizer = load_base(BASE)
    inputs = tokenizer(list(SENTENCES), padding=True, return_tensors="pt")
    before = {key: value.clone() for key, value in model.state_dict().items()}

    adapters = adapterhub.attach(model, base_id=BASE)
    names = [adapters.load(name) for name in names]
    print(adapters.summary(), end="\n\n")
    for name in names:
        labels = adapters.manifest(name).labels
        adapters.activate(name)
        with torch.inference_mode():
            probabilities = model(**inputs).logits.softmax(-1)
        print(f"{name}:")
        for sentence, row in zip(SENTENCES, probabilities, strict=True):
            best = int(row.argmax())
            print(f"  {labels[best]:9} {row[best]:.3f}  {sentence}")

    with torch.inference_mode():
        forward = seconds(lambda: model(**inputs), 20)

    def round_trip() -> None:
        for name in names:
            adapters.activate(name)

    swap = seconds(round_trip, 5_000) / len(names)
    print(f"\none swap: {swap * 1e6:.1f} µs, 1 / {forward / swap:,.0f} of a forward pass of these sentences")

    adapters.detach()
    after = model.state_dict()
    same = before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    print(f"after detach the base model is {'bit for bit as before' if same else 'CHANGED'}")
    if not same:
        sys.exit(1)


def seconds(action: Callable[[], object], times: int) -> float:
    """Return the CPU time of one call."""
    start = time.process_time()
    for _ in range(times):
        action()
    return (time.process_time() - start) / times


if __name__ == "__main__":
    main()
