"""Write docs/peft-types.md, the table of PEFT's types, from the tables of the package; with --check, only compare."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from adapterhub.converters.peft import bottleneck, documents, lora, prompts, types

PAGE = Path(__file__).parent / "peft-types.md"

INTRODUCTION = """\
# Types of PEFT

What becomes of an adapter of PEFT {version}, by the `peft_type` in its adapter_config.json. This page is made by
docs/make_peft_types.py from the tables that the package itself uses.

- **native**: read, run, merged where PEFT merges, trained further, and written again. Its output is that of PEFT.
- **converted**: not read as it is. PEFT makes a LoRA of it (`peft.save_as_lora`), which is read; how near that comes to
  it is a matter of the rank.
- **refused**: not read, with the reason.

Of {count} types, {native} are native, {converted} are converted and {refused} are refused.
"""

LORA = """
## Options of native types

A field of adapter_config.json that changes what is computed is understood, or the adapter is refused and the field is
named. A field that is unknown may only be off; it is kept, and written again. Refused are:

- WAVEFT with another wavelet than `db1`, which PEFT converts into a LoRA;
- SUPERTUNING without `save_precomputed_indices`, whose file does not say which entries were trained;
- OFT at convolutions;
- MISS with an `init_weights` that names no variant;
- LORA with any of these set:

| field | because |
|---|---|
"""

PLUG_IN = f"""
## A type that PEFT learns

`{bottleneck.TYPE}`, with the methods `bottleneck` and `compacter`, is none of PEFT's own. It is written
for these methods, and PEFT and transformers load, train and save it in a process that has imported
`{bottleneck.PLUGIN}` (the extra `peft`):

    import adapterhub.peft_plugin

    model = PeftModel.from_pretrained(model, folder)       # or model.load_adapter(folder)
    model = get_peft_model(model, adapterhub.peft_plugin.BottleneckConfig.of("double_seq_bn[reduction_factor=8]"))

In a process that has not, PEFT stops with `KeyError: '{bottleneck.TYPE}'`, which names the module to import. One
such adapter is active at a time, and none can be merged.
"""

STARTS = """
`init_lora_weights` may be {starts}.
After any other start PEFT changes the base model's weights when it loads the adapter (PiSSA, OLoRA, CorDA, LoftQ), so
that its files do not say what it computes. PEFT turns such an adapter into one of the unchanged base model as it saves
it, with `path_initial_model_for_weight_conversion`.
"""


def rows() -> Iterator[tuple[str, str, str]]:
    """Yield (type, state, what it is here, or why it is not)."""
    every: tuple[types.AnyCodec, ...] = (*types.CODECS, *prompts.CODECS)
    codecs = {codec.type: codec for codec in every}
    for kind in sorted(documents.defaults()):
        if kind == bottleneck.TYPE:
            continue
        if kind in codecs:
            yield kind, "native", f"method `{codecs[kind].config.method}`"
        else:
            refused = types.REFUSED[kind]
            yield kind, refused.state, f"{refused.reason}: {refused.instead}"


def page() -> str:
    """Return the page."""
    found = list(rows())
    count = {state: sum(row[1] == state for row in found) for state in ("native", "converted", "refused")}
    lines = [INTRODUCTION.format(version=documents.WRITES, count=len(found), **count)]
    lines += ["| type | state | |", "|---|---|---|", *(f"| {kind} | {state} | {what} |" for kind, state, what in found)]
    lines.append(LORA.rstrip("\n"))
    lines += [f"| `{name}` | {why} |" for name, why in lora.CHANGED.items()]
    starts = ", ".join(f"`{str(start).lower()}`" for start in lora.PLAIN_STARTS)
    lines.append(STARTS.format(starts=starts).rstrip("\n"))
    lines.append(PLUG_IN.rstrip("\n"))
    return "\n".join(lines) + "\n"


def main() -> int:
    """Return 0 if the page is (now) up to date."""
    if "--check" in sys.argv[1:]:
        return int(PAGE.read_text("utf-8") != page())
    PAGE.write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
