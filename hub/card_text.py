"""The text of a new model card: facts from the manifest, and how to load the adapter with each library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..adapter import Manifest
from ..arrangement import Pin
from ..composition_file import NAME as COMPOSITION


def body(
    manifest: Manifest, method: str, formats: Sequence[str], repo: str, pins: Mapping[str, Pin] | None = None
) -> str:
    """Return the text below the header; pins: the adapters of a composition, None where it is an adapter."""
    lines = [
        f"# {manifest.name}",
        "",
        *([manifest.summary, ""] if manifest.summary else []),
        f"{'An adapter' if pins is None else 'A composition of adapters'} (`{method}`) for "
        f"[`{manifest.base.id}`](https://huggingface.co/{manifest.base.id}).",
        "",
        *_parts(pins or {}),
        *_facts(manifest),
        "## How to use",
        "",
        *_uses(manifest, formats, repo),
        *_data(manifest),
        *(["## Citation", "", "```bibtex", manifest.citation.strip(), "```", ""] if manifest.citation else []),
    ]
    return "\n" + "\n".join(lines).rstrip() + "\n"


def _facts(manifest: Manifest) -> Iterator[str]:
    labels = ", ".join(f"`{_escaped(label)}`" for label in manifest.labels[:50])
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in manifest.metrics.items())
    pairs = (("Task", manifest.task), ("Labels", labels), ("Results on held-out data", metrics))
    shown = [f"- {name}: {value}" for name, value in (*pairs, ("Licence", manifest.license)) if value]
    yield from (*shown, "")


def _parts(pins: Mapping[str, Pin]) -> Iterator[str]:
    """Yield the adapters of a composition, and where each comes from."""
    if pins:
        shown = (f"- `{name}`: `{pin.reference or pin.digest}`" for name, pin in pins.items())
        yield from ("It is made of", "", *shown, "")


def _uses(manifest: Manifest, formats: Sequence[str], repo: str) -> Iterator[str]:
    if {"native", COMPOSITION} & set(formats) or not formats:
        whole = "all its adapters are loaded with it" if COMPOSITION in formats else "every tensor is accounted for"
        yield from (f"With adapterhub, {whole}, and the base model is recognised by its weights:", "")
        yield from _python(
            "import adapterhub",
            "from transformers import AutoModel",
            "",
            f'model = AutoModel.from_pretrained("{manifest.base.id}")',
            "adapters = adapterhub.attach(model)",
            f'adapters.activate(adapters.load("hf://{repo}"))',
        )
    if "peft" in formats:
        yield from ("With PEFT, on a model of the class that fits the task:", "")
        yield from _python("from peft import PeftModel", "", f'model = PeftModel.from_pretrained(model, "{repo}")')
    if "adapters" in formats:
        yield from ("With the library `adapters`:", "")
        if "peft" in formats:
            yield from _python(
                "from huggingface_hub import snapshot_download",
                "",
                f'model.load_adapter(snapshot_download("{repo}") + "/adapters", use_safetensors=True, set_active=True)',
            )
        else:
            yield from _python(f'model.load_adapter("{repo}", source="hf", use_safetensors=True, set_active=True)')


def _python(*lines: str) -> Iterator[str]:
    yield from ("```python", *lines, "```", "")


def _data(manifest: Manifest) -> Iterator[str]:
    if not manifest.datasets:
        return
    yield from ("## Data", "")
    for data in manifest.datasets:
        more = ", ".join(filter(None, [data.source, data.license]))
        yield f"- {data.name}" + (f" ({more})" if more else "") + (f": {data.split}" if data.split else "")
    yield ""


def _escaped(text: str) -> str:
    return text.replace("`", "'")
