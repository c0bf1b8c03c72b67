"""What the tests of publishing share: publications of a few bytes, which need no torch."""

from __future__ import annotations

from pathlib import Path

from adapterhub.registry import ArtifactBase, Offer, Publication, Settings, open_registry, publisher_at, pull

BASE = ArtifactBase(id="acme/tiny-bert", architecture="bert")


def a_publication(folder: Path, name: str = "me/a", version: str = "1.0.0", data: bytes = b"bytes") -> Publication:
    """Return a publication of a native file and a folder of PEFT, which are written below folder."""
    home = folder / f"{name.replace('/', '-')}-{version}"
    home.mkdir(parents=True, exist_ok=True)
    files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"peft " + data, "native": b"native " + data}
    for path, content in files.items():
        (home / path).write_bytes(content)
    native = Offer(base=BASE, method="lora", format="native", files={"": home / "native"})
    listed = {path: home / path for path in files if path != "native"}
    peft = Offer(base=BASE, method="lora", format="peft", files=listed)
    return Publication(
        name=name,
        version=version,
        published="2026-11-25",
        offers=(native, peft),
        card=lambda old: b"# card\n" if old is None else old,
        license="MIT",
    )


def publish(
    place: str,
    folder: Path,
    name: str = "me/a",
    version: str = "1.0.0",
    data: bytes = b"bytes",
    *,
    create: bool = False,
) -> bool:
    """Publish such a publication, and return whether it was new."""
    publisher = publisher_at(place, settings=Settings.load(), create=create)
    return publisher.publish(a_publication(folder / "sources", name, version, data)).new


def is_right(place: str, name: str, version: str, data: bytes = b"bytes") -> bool:
    """Return whether both artifacts of such a version can be pulled and are right."""
    opened = open_registry(place)
    native = pull(f"{name}@{version}", registry=opened).path
    peft = pull(f"{name}@{version}", registry=opened, format="peft").path
    read = (native.read_bytes(), (peft / "adapter_model.safetensors").read_bytes())
    return read == (b"native " + data, b"peft " + data)
