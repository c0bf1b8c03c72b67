"""Two adapters on one loaded base model, and what it takes to go from one to the other.

python examples/swap.py [ADAPTER ADAPTER]
"""

from __future__ import annotations

import sys
import time

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
    names = sys.argv[1:] or ["sst2-bert", "tweets-bert"]
    model, tokenizer = load_base(BASE)
    inputs = tokenizer(list(SENTENCES), padding=True, return_tensors="pt")
    before = {key: value.clone() for key, value in model.state_dict().items()}

    adapters = adapterhub.attach(model, base_id=BASE)
    names = [adapters.load(name) for name in names]
    print(adapters.summary(), end="\n\n")
    for name in names:
        adapters.activate(name)
        with torch.inference_mode():
            probabilities = model(**inputs).logits.softmax(-1)
        print(f"{name}:")
        for sentence, row in zip(SENTENCES, probabilities, strict=True):
            best = int(row.argmax())
            print(f"  {model.config.id2label[best]:9} {row[best]:.3f}  {sentence}")

    swaps = 10_000
    start = time.process_time()
    for i in range(swaps):
        adapters.activate(names[i % 2])
    print(f"\none swap: {(time.process_time() - start) / swaps * 1e6:.1f} µs")

    adapters.detach()
    after = model.state_dict()
    same = before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    print(f"after detach the base model is {'bit for bit as before' if same else 'CHANGED'}")
    if not same:
        sys.exit(1)


if __name__ == "__main__":
    main()
