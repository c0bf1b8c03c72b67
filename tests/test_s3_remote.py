"""What only S3 has: its credentials, stores that speak like it and heed no conditions, public buckets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from bucket_places import Shop
from local_server import Answer, Application, Proxy, Request, running
from publications import publish
from remote_cases import FOLDER, a_registry

from adapterhub.errors import AuthenticationError, UnsupportedError
from adapterhub.registry import open_registry, pull, s3_client

pytestmark = pytest.mark.usefixtures("online")


@pytest.fixture
def proxy(s3: Shop) -> Iterator[Proxy]:
    """A registry in a real store, behind a proxy that may be told to fail."""
    s3.fill()
    with running(Proxy(s3.address)) as found:
        s3.at(found.url)
        yield found
        s3.at(s3.address)


def test_credentials_that_have_expired_are_told(proxy: Proxy, s3: Shop, tmp_path: Path) -> None:
    body = b"<Error><Code>ExpiredToken</Code></Error>"
    proxy.faults.append(lambda request: Answer(body, 400) if request.method == "PUT" else None)
    with pytest.raises(AuthenticationError, match="they have expired"):
        publish(s3.url, tmp_path)


def test_profiles_that_are_not_there_are_told(s3: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.at(s3.address)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_PROFILE", "nowhere")
        with pytest.raises(AuthenticationError, match="nowhere"):
            open_registry(s3.url)


class Careless(Application):
    """A store in memory that writes whatever is sent, to whoever comes.

    Attributes:
        objects: what was written.
        refusal: what is answered to conditions, or None where they are not looked at.
    """

    def __init__(self, refusal: Answer | None = None) -> None:
        super().__init__()
        self.objects: dict[str, bytes] = {}
        self.refusal = refusal

    def proper(self, request: Request) -> Answer:
        """Read, write, list or remove."""
        if request.method == "PUT":
            if self.refusal and {"if-match", "if-none-match"} & set(request.headers):
                return self.refusal
            self.objects[request.path] = request.body
            return Answer(headers={"ETag": '"1"'})
        if request.method == "DELETE":
            self.objects.pop(request.path, None)
            return Answer(status=204)
        if "list-type" in request.query:
            return Answer(b"<ListBucketResult></ListBucketResult>")
        found = self.objects.get(unquote(request.path))
        return Answer(status=404) if found is None else Answer(found, headers={"ETag": '"1"'})


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (None, "does not heed the conditions"),
        (Answer(b"<Error><Code>NotImplemented</Code></Error>", 501), "does not know the request"),
    ],
)
def test_where_conditions_are_not_heeded_nothing_is_published(
    s3: Shop, tmp_path: Path, refusal: Answer | None, message: str
) -> None:
    with running(Careless(refusal)) as careless:
        s3.at(careless.url)
        with pytest.raises(UnsupportedError, match=message) as caught:
            publish("s3://careless", tmp_path, create=True)
        assert caught.value.exit_code == 6
        assert careless.objects == {}
        s3_client.client().close()


def test_a_public_bucket_is_read_without_credentials(s3: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Careless()) as public:
        public.objects = {f"/open/{path}": data for path, data in a_registry().items()}
        s3.at(public.url)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        folder = pull("lora", registry="s3://open").path
        assert (folder / "adapter_config.json").read_bytes() == FOLDER["adapter_config.json"]
        assert not any("authorization" in request.headers or request.query for request in public.requests)
        s3_client.client().close()


def test_without_botocore_it_is_said_how_to_install_it(s3: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.at(s3.address)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "botocore.session", None)
        with pytest.raises(UnsupportedError, match=r"s3:// needs botocore; pip install 'adapterhub\[s3\]'"):
            open_registry(s3.url)
