"""push: from what somebody has trained to what others can load, with everything that they need to trust it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cli_session import BASE_ID, sentences, type_command
from hub_double import Hub
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel

import adapterhub
from adapterhub.errors import BaseMismatchError, FormatError, StateError, UnsupportedError, UsageError
from adapterhub.hub import card, classify, open_adapter, verify
from adapterhub.registry import pull, schemes

pytestmark = [
    pytest.mark.usefixtures("online"),
    # huggingface_hub 2.4.0 itself, where it uploads a large file.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
    # PEFT 0.21.2, which asks transformers for it.
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]
IDS = torch.tensor([[2, 5, 7, 9, 15, 3], [2, 6, 8, 20, 10, 3]])


def classifier(base: Path, seed: int = 0) -> PreTrainedModel:
    """Return the tiny base model with a new head of two classes."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    assert isinstance(model, PreTrainedModel)
    return model.eval()


@pytest.fixture(scope="session")
def bottleneck(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bottleneck adapter with a head, which the library `adapters` has words for, and PEFT has none."""
    model = AutoModel.from_pretrained(base)
    adapters = adapterhub.attach(model, base_id=BASE_ID)
    adapters.add("tiny", "seq_bn[reduction_factor=4]", labels=["no", "yes"])
    path = tmp_path_factory.mktemp("bottleneck") / "tiny.safetensors"
    return adapters.save("tiny", path, manifest=dataclasses.replace(adapters.manifest("tiny"), license="MIT"))


@pytest.fixture(scope="session")
def lora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """A LoRA that PEFT has saved, with a head, and what it answers; PEFT wrote the path of the base model into it."""
    folder = tmp_path_factory.mktemp("peft")
    model = get_peft_model(classifier(base, 1), LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"]))
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    with torch.no_grad():
        return folder, model.eval()(IDS).logits


def answers(reference: str, base: Path, registry: str | None = None) -> torch.Tensor:
    """Return the logits of an adapter on the tiny base model."""
    opened = open_adapter(reference, base=str(base), registry=registry)
    with torch.no_grad():
        logits: torch.Tensor = opened.base.model(IDS).logits
        return logits


def header(data: bytes) -> dict[str, Any]:
    """Return the header of a model card."""
    return card.split(data.decode())[0]


# From one machine to another.


@pytest.fixture(params=["registry", "hf://me/registry", "hf://me/tiny", *schemes.BUCKETS, "oci"])
def place(request: pytest.FixtureRequest) -> str:
    """Somewhere to push to, where nothing is yet."""
    if request.param in schemes.BUCKETS:
        return str(request.getfixturevalue(request.param).url)
    return str(request.getfixturevalue("oci_repository") if request.param == "oci" else request.param)


def test_what_was_pushed_answers_the_same_on_another_machine(
    trained: Path, base: Path, hub: Hub, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened = open_adapter(str(trained), base=str(base))
    texts = [text for text, _ in sentences(20)]
    before = [verdict.scores for verdict in classify(texts, base=opened.base)]
    pushed = adapterhub.push(trained, place, name="me/tiny@1.0.0", create="tiny" not in place)
    assert (pushed.name, pushed.version, pushed.outcome.new) == ("me/tiny", "1.0.0", True)
    monkeypatch.setenv("ADAPTERHUB_CACHE", str(tmp_path / "another"))
    again = open_adapter("me/tiny@^1", base=str(base), registry=place)
    assert [verdict.scores for verdict in classify(texts, base=again.base)] == before
    assert again.manifest.name == "tiny"
    assert again.manifest.probe is not None


PEFT_ALONE = f"""
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], num_labels=2)
model = PeftModel.from_pretrained(model, "me/lora", revision="v1.0.0").eval()
assert not any(name.startswith("adapterhub") for name in sys.modules)
print(json.dumps(model(torch.tensor({IDS.tolist()})).logits.tolist()))
"""


def test_a_repository_is_loaded_by_peft_and_by_us(
    lora: tuple[Path, torch.Tensor], base: Path, hub: Hub, tmp_path: Path
) -> None:
    folder, logits = lora
    pushed = adapterhub.push(folder, "hf://me/lora", name="lora@1.0.0", base=str(base), base_id=BASE_ID, license="mit")
    assert pushed.formats == ("native", "peft", "adapters")
    files = set(hub.storage.get("me/lora").files("v1.0.0"))
    assert {"adapter_config.json", "adapterhub.safetensors", "adapters/adapter_config.json", "README.md"} <= files
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run([sys.executable, "-c", PEFT_ALONE, base], capture_output=True, env=environment, check=True)
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(answers("hf://me/lora@1.0.0", base), logits, rtol=0, atol=1e-5)
    for row in ("native", "peft", "adapters"):
        path = pull("lora", registry="hf://me/lora", format=row).path
        torch.testing.assert_close(answers(str(path), base), logits, rtol=0, atol=1e-5)


def test_what_a_format_has_no_word_for_is_left_out_and_said_or_refused(trained: Path, hub: Hub) -> None:
    pushed = adapterhub.push(trained, "hf://me/tiny", name="tiny@1.0.0")
    assert "peft" not in pushed.formats
    assert "classification_head" in pushed.left_out["peft"]
    with pytest.raises(UnsupportedError) as caught:
        adapterhub.push(trained, "hf://me/other", name="tiny@1.0.0", formats=["native", "peft"])
    assert caught.value.exit_code == 6
    assert "me/other" not in hub.storage.repositories


def test_without_peft_the_files_of_adapters_lie_at_the_root(bottleneck: Path, hub: Hub) -> None:
    adapterhub.push(bottleneck, "hf://me/tiny", name="tiny@1.0.0", formats=["native", "adapters"])
    files = hub.storage.get("me/tiny").files("main")
    assert "adapter.safetensors" in files
    assert header(files["README.md"].data)["library_name"] == "adapter-transformers"


# What is filled in, and what is missing.


def test_fingerprint_and_probe_are_filled_in_where_the_base_is_known(
    lora: tuple[Path, torch.Tensor], base: Path, tmp_path: Path
) -> None:
    folder, _ = lora
    without = adapterhub.push(folder, "one", name="a@1.0.0", base_id=BASE_ID, license="mit", create=True)
    assert any("--base fills them in" in remark for remark in without.remarks)
    adapterhub.push(folder, "two", name="a@1.0.0", base=str(base), base_id=BASE_ID, license="mit", create=True)
    found = [adapterhub.read(next((tmp_path / place).rglob("*.safetensors"))) for place in ("one", "two")]
    assert [adapter.manifest.base.fingerprint is not None for adapter in found] == [False, True]
    assert [adapter.manifest.probe is not None for adapter in found] == [False, True]
    assert all(torch.equal(found[0].tensors[key], found[1].tensors[key]) for key in found[0].tensors)
    assert all(check.passed for check in verify("a", registry="two", run=True, base=str(base)))


def test_an_adapter_of_another_base_model_is_not_pushed(trained: Path, other_base: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseMismatchError) as caught:
        adapterhub.push(trained, "registry", name="a@1.0.0", base=str(other_base), create=True)
    assert caught.value.exit_code == 5
    assert not (tmp_path / "registry").exists()


def test_what_is_missing_or_cannot_be_is_refused(
    lora: tuple[Path, torch.Tensor], trained: Path, tmp_path: Path
) -> None:
    folder, _ = lora
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "a cannot be published: it has no licence; it does not name its base model by its id"),
        ({"license": "mit", "base_id": str(folder)}, "is a folder on this machine, which nobody else has"),
        ({"base_id": BASE_ID}, "a cannot be published: it has no licence; give --license apache-2.0"),
        ({"base_id": BASE_ID, "license": "mit", "name": "a"}, "it has no version; give --as a@1.0.0"),
        ({"base_id": BASE_ID, "license": "mit", "name": "a@x"}, "is not a version"),
        ({"base_id": BASE_ID, "license": "mit", "name": "A b@1.0.0"}, "is not a name"),
        ({"base_id": "no id!", "license": "mit"}, "'no id!' is not the id of a base model"),
    ]
    for given, words in cases:
        with pytest.raises(UsageError, match=re.escape(words)):
            adapterhub.push(folder, "registry", **{"name": "a@1.0.0", "create": True, **given})
    with pytest.raises(UsageError, match="gguf is not a format"):
        adapterhub.push(trained, "registry", formats=["gguf"], create=True)
    assert not (tmp_path / "registry").exists()


def test_a_damaged_adapter_is_not_pushed(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(trained.read_bytes()[:-10])
    with pytest.raises(FormatError):
        adapterhub.push(tmp_path / "bad.safetensors", "registry", name="a@1.0.0", create=True)
    assert not (tmp_path / "registry").exists()


def test_a_published_version_is_not_changed(trained: Path, lora: tuple[Path, torch.Tensor], hub: Hub) -> None:
    for place in ("registry", "hf://me/tiny"):
        assert adapterhub.push(trained, place, name="a@1.0.0", create="hf" not in place).outcome.new
        assert not adapterhub.push(trained, place, name="a@1.0.0").outcome.new
        with pytest.raises(StateError):
            adapterhub.push(trained, place, name="a@1.0.0", license="mit")


# The model card.


def test_the_card_follows_the_conventions_of_the_hub(trained: Path, hub: Hub) -> None:
    adapterhub.push(trained, "hf://me/tiny", name="tiny@1.0.0", formats=["native"])
    data = hub.storage.get("me/tiny").files("main")["README.md"].data
    found = header(data)
    metrics = adapterhub.read(trained).manifest.metrics
    assert found == {
        "library_name": "adapterhub",
        "base_model": BASE_ID,
        "base_model_relation": "adapter",
        "pipeline_tag": "text-classification",
        "license": "apache-2.0",
        "tags": [
            "adapterhub",
            "double_seq_bn",
            "layer_norm",
            "transformers",
            f"base_model:adapter:{BASE_ID}",
            "adapterhub:sentiment/reviews",
        ],
        "language": ["en"],
        "metrics": list(metrics),
        "model-index": [
            {
                "name": "tiny",
                "results": [
                    {
                        "task": {"type": "text-classification", "name": "sentiment/reviews"},
                        "dataset": {"type": "tiny-reviews", "name": "tiny reviews"},
                        "metrics": [{"type": name, "value": value} for name, value in metrics.items()],
                    }
                ],
            }
        ],
    }
    assert b'adapters.load("hf://me/tiny")' in data
    for code in re.findall(r"```python\n(.*?)```", data.decode(), re.DOTALL):
        compile(code, "README.md", "exec")


CARD = """---
license: mit
tags:
- mine
- adapterhub
datasets: acme/reviews
base_model: '../local'
custom: {keep: [1, "ü"]}
model-index:
- name: other
  results: []
---
# My own words

---
They stay as they are.\r
   """


def test_a_card_that_is_there_is_merged_with_and_its_text_never_lost(trained: Path, hub: Hub) -> None:
    hub.storage.put("me/tiny", {"README.md": CARD.encode()})
    adapterhub.push(trained, "hf://me/tiny", name="tiny@1.0.0", license="Apache-2.0")
    data = hub.storage.get("me/tiny").files("main")["README.md"].data
    assert data.decode().split("---\n", 2)[2] == CARD.split("---\n", 2)[2]
    found = header(data)
    assert found["custom"] == {"keep": [1, "ü"]}
    assert found["tags"][:2] == ["mine", "adapterhub"]
    assert found["datasets"] == "acme/reviews"
    assert found["base_model"] == BASE_ID
    assert found["license"] == "apache-2.0"
    assert [model["name"] for model in found["model-index"]] == ["other", "tiny"]


def test_a_licence_may_stand_in_the_card_alone(lora: tuple[Path, torch.Tensor], hub: Hub) -> None:
    folder, _ = lora
    hub.storage.put("me/lora", {"README.md": b"---\nlicense: cc-by-4.0\n---\ntext"})
    adapterhub.push(folder, "hf://me/lora", name="lora@1.0.0", base_id=BASE_ID)
    assert adapterhub.read(adapterhub.pull("hf://me/lora")).manifest.license == "cc-by-4.0"


@pytest.mark.parametrize(
    "text", ["---\na: [\n---\nx", "---\n- a\n---\nx", "---\na: !!python/object:os.system {}\n---\n"]
)
def test_a_card_that_cannot_be_read_is_not_overwritten(trained: Path, hub: Hub, text: str) -> None:
    hub.storage.put("me/tiny", {"README.md": text.encode()})
    with pytest.raises(FormatError, match="the header of the model card"):
        adapterhub.push(trained, "hf://me/tiny", name="tiny@1.0.0")
    assert len(hub.storage.get("me/tiny").commits) == 2


@pytest.mark.parametrize(
    "old", [None, b"", b"# only text\n", CARD.encode(), b"---\n---\nx", b"--- \r\nlicense: mit\r\n---\r\ntext\r\n"]
)
def test_merging_a_card_twice_changes_nothing_more(trained: Path, old: bytes | None) -> None:
    manifest = adapterhub.read(trained).manifest
    subject = card.Subject(manifest=manifest, method="lora", formats=["native", "peft"], repo="me/x")
    once = card.merged(old, subject)
    assert card.merged(once, subject) == once
    assert yaml.safe_load(once.decode().split("---\n")[1])["base_model"] == BASE_ID
    body = card.split((old or b"").decode())[1]
    assert not body.strip() or once.decode().endswith(body)


# The command.


def test_a_dry_run_prints_files_sizes_and_card_and_writes_nothing(bottleneck: Path, hub: Hub) -> None:
    typed = type_command(
        *("push", str(bottleneck), "--to", "hf://me/tiny", "--as", "me/tiny@2.0.0", "--formats", "native,adapters"),
        "--dry-run",
    )
    assert (typed.status, typed.err) == (0, "")
    lines = typed.out.splitlines()
    assert lines[0] == "would publish me/tiny@2.0.0 to hf://me/tiny (native, adapters)"
    assert re.search(r"^  adapterhub\.safetensors +[\d.]+ KiB$", typed.out, re.MULTILINE)
    assert "base_model_relation: adapter" in typed.out
    assert hub.storage.repositories == {}


def test_where_nobody_watches_there_are_no_progress_bars(
    trained: Path, hub: Hub, capfd: pytest.CaptureFixture[str]
) -> None:
    adapterhub.push(trained, "hf://me/tiny", name="tiny@1.0.0", formats=["native"])
    adapterhub.pull("hf://me/tiny")
    assert capfd.readouterr() == ("", "")


def test_push_tells_what_it_did(trained: Path, hub: Hub) -> None:
    words = ("push", str(trained), "--to", "hf://me/tiny", "--as", "tiny@1.0.0", "--formats", "native")
    first = type_command(*words, "--json").json
    assert (first["name"], first["version"], first["new"], first["place"]) == ("tiny", "1.0.0", True, "hf://me/tiny")
    assert first["commit"] == hub.storage.get("me/tiny").head
    second = type_command(*words)
    assert second.out == "hf://me/tiny has tiny@1.0.0 already, with the same bytes\n"
    assert type_command(*words, "-q").out == "tiny@1.0.0\n"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("--to", "nowhere", "--as", "a@1.0.0"), 3),
        (("--to", "https://host/x", "--as", "a@1.0.0"), 6),
        (("--to", "hf://me/tiny", "--as", "a@1.0.0", "--offline"), 7),
        (("--to", "hf://me/tiny", "--as", "a"), 0),
        (("--as", "a@1.0.0"), 2),
    ],
)
def test_push_ends_with_the_exit_code_of_its_error(
    trained: Path, hub: Hub, words: tuple[str, ...], status: int
) -> None:
    assert type_command("push", str(trained), *words, "--json").status == status


def test_a_wrong_token_ends_with_four_and_is_not_printed(
    trained: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    typed = type_command("push", str(trained), "--to", "hf://me/tiny", "--as", "a@1.0.0")
    assert typed.status == 4
    assert "hf_wrong" not in typed.out + typed.err


def test_a_published_adapter_may_be_pushed_on(registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type_command("push", "tiny-reviews", "--to", "copy", "--create").status == 0
    assert (tmp_path / "copy" / "index.json").is_file()


def test_nothing_of_torch_is_loaded_to_publish_bytes() -> None:
    code = (
        "import sys, adapterhub.registry.publishers, adapterhub.registry.hf_publisher, adapterhub.cli.push;"
        "assert not {'torch', 'transformers', 'huggingface_hub', 'httpx2', 'yaml'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
