"""A double of the Hugging Face Hub: its protocol over HTTP on this machine, as far as its clients need it here.

| request | answer |
|---|---|
| GET /api/whoami-v2 | who the token belongs to |
| POST /api/repos/create | the repository's address; 409 where it exists |
| POST /api/validate-yaml | no faults |
| POST /api/models/REPO/preupload/REV | which files are large |
| POST /REPO.git/info/lfs/objects/batch, PUT href, POST verify | where large files go |
| POST /api/models/REPO/commit/REV | the new commit; 412 where the parent is not the newest |
| POST /api/models/REPO/tag/REV | 409 where the tag exists |
| GET /api/models/REPO[/revision/REV], /refs, /tree/REV; POST /paths-info/REV | what there is |
| GET, HEAD /REPO/resolve/REV/PATH | the file, with Range |
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

from hub_storage import LARGE, Refusal, Repository, Storage, StoredFile, pointer
from local_server import Answer, Application, Request, ranged

TOKEN = "hf_double"  # a name, no secret
REPO = r"(?P<repo>[^/]+/[^/]+)"


class Hub(Application):
    """The double, and its storage."""

    def __init__(self) -> None:
        super().__init__()
        self.storage = Storage()

    def proper(self, request: Request) -> Answer:
        """Return the answer of the first route that fits."""
        try:
            for methods, pattern, function in ROUTES:
                match = re.fullmatch(pattern, request.path)
                if match and request.method in methods:
                    return function(self.storage, request, **{k: unquote(v) for k, v in match.groupdict().items()})
            raise Refusal(404, f"no route {request.method} {request.path}")
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            return as_json({"error": refusal.message}, refusal.status, headers)


def as_json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer that holds JSON."""
    return Answer(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})


def need_token(request: Request) -> None:
    """Refuse who has not the token."""
    if request.headers.get("authorization") != f"Bearer {TOKEN}":
        raise Refusal(401, "Invalid username or password.")


def readable(storage: Storage, request: Request, repo: str) -> Repository:
    """Return a repository, which has to be public or the token right; a private one looks as if it did not exist."""
    repository = storage.get(repo)
    if repository.private and request.headers.get("authorization") != f"Bearer {TOKEN}":
        raise Refusal(401, "Repository not found", "RepoNotFound")
    return repository


def whoami(storage: Storage, request: Request) -> Answer:
    need_token(request)
    return as_json({"type": "user", "name": "me", "orgs": [], "auth": {"type": "access_token"}})


def create(storage: Storage, request: Request) -> Answer:
    need_token(request)
    asked = request.json
    name = f"{asked.get('organization') or 'me'}/{asked['name']}"
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    new = storage.create(name, private=private)
    return as_json({"url": f"{request.home}/{name}", "id": name, "name": name}, 200 if new else 409)


def validate(storage: Storage, request: Request) -> Answer:
    return as_json({"errors": [], "warnings": []})


def preupload(storage: Storage, request: Request, repo: str, rev: str) -> Answer:
    need_token(request)
    files = storage.get(repo).files(rev)
    return as_json(
        {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                    "oid": oid(files.get(file["path"])),
                }
                for file in request.json["files"]
            ]
        }
    )


def oid(file: StoredFile | None) -> str | None:
    """Return what the Hub calls the bytes of a file."""
    return None if file is None else file.large or file.blob


def batch(storage: Storage, request: Request, repo: str) -> Answer:
    need_token(request)
    objects = []
    for item in request.json["objects"]:
        href = f"{request.home}/large/{item['oid']}"
        actions = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
        objects.append({**item, **({} if item["oid"] in storage.large else {"actions": actions})})
    return as_json({"transfer": "basic", "objects": objects})


def put_large(storage: Storage, request: Request, sha: str) -> Answer:
    if StoredFile.of(request.body, large=True).large != sha:
        raise Refusal(400, "the bytes have another SHA-256")
    storage.large[sha] = request.body
    return Answer()


def verify_large(storage: Storage, request: Request, sha: str) -> Answer:
    return as_json({}, 200 if sha in storage.large else 404)


def commit(storage: Storage, request: Request, repo: str, rev: str) -> Answer:
    need_token(request)
    lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    head = lines[0]["value"]
    sha = storage.commit(repo, head["summary"], head.get("parentCommit"), lines[1:])
    return as_json({"success": True, "commitOid": sha, "commitUrl": f"{request.home}/{repo}/commit/{sha}"})


def tag(storage: Storage, request: Request, repo: str, rev: str) -> Answer:
    need_token(request)
    storage.tag(repo, request.json["tag"], rev)
    return as_json({})


def info(storage: Storage, request: Request, repo: str, rev: str = "main") -> Answer:
    repository = readable(storage, request, repo)
    sha = repository.commit_of(rev)
    if "expand" in request.query:
        return as_json({"id": repo, **({"sha": sha} if "sha" in request.query["expand"] else {})})
    siblings = [
        {"rfilename": path, **({"size": len(f.data), "blobId": f.blob, **large(f, "sha256")} if request.query else {})}
        for path, f in sorted(repository.files(sha).items())
    ]
    return as_json({"id": repo, "sha": sha, "private": repository.private, "tags": [], "siblings": siblings})


def large(file: StoredFile, key: str) -> dict[str, Any]:
    """Return what is said of a large file."""
    size = len(file.data)
    known = {key: file.large, "size": size, "pointerSize": len(pointer(file.large, size))}
    return {"lfs": known} if file.large else {}


def refs(storage: Storage, request: Request, repo: str) -> Answer:
    found = readable(storage, request, repo)
    tags = [{"name": k, "ref": f"refs/tags/{k}", "targetCommit": v} for k, v in found.tags.items()]
    branches = [{"name": "main", "ref": "refs/heads/main", "targetCommit": found.head}]
    return as_json({"branches": branches, "tags": tags, "converts": []})


def tree(storage: Storage, request: Request, repo: str, rev: str, folder: str = "") -> Answer:
    files = readable(storage, request, repo).files(rev)
    start = folder.strip("/") + "/" if folder.strip("/") else ""
    return as_json([entry(path, file) for path, file in sorted(files.items()) if path.startswith(start)])


def entry(path: str, file: StoredFile) -> dict[str, Any]:
    """Return a line of a listing."""
    return {"type": "file", "path": path, "size": len(file.data), "oid": file.blob, **large(file, "oid")}


def paths_info(storage: Storage, request: Request, repo: str, rev: str) -> Answer:
    files = readable(storage, request, repo).files(rev)
    is_json = "json" in request.headers.get("content-type", "")
    wanted = request.json["paths"] if is_json else parse_qs(request.body.decode())["paths"]
    return as_json([entry(path, files[path]) for path in wanted if path in files])


def resolve(storage: Storage, request: Request, repo: str, rev: str, path: str) -> Answer:
    repository = readable(storage, request, repo)
    sha = repository.commit_of(rev)
    file = repository.files(sha).get(path)
    if file is None:
        raise Refusal(404, "Entry not found", "EntryNotFound")
    headers = {"ETag": f'"{oid(file)}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
    if file.large:
        headers |= {"X-Linked-Etag": f'"{file.large}"', "X-Linked-Size": str(len(file.data))}
    return ranged(file.data, headers, request.headers.get("range", ""))


ROUTES: tuple[tuple[tuple[str, ...], str, Callable[..., Answer]], ...] = (
    (("GET",), "/api/whoami-v2", whoami),
    (("POST",), "/api/repos/create", create),
    (("POST",), "/api/validate-yaml", validate),
    (("POST",), rf"/api/models/{REPO}/preupload/(?P<rev>[^/]+)", preupload),
    (("POST",), rf"/{REPO}\.git/info/lfs/objects/batch", batch),
    (("PUT",), r"/large/(?P<sha>[0-9a-f]{64})", put_large),
    (("POST",), r"/large/(?P<sha>[0-9a-f]{64})/verify", verify_large),
    (("POST",), rf"/api/models/{REPO}/commit/(?P<rev>[^/]+)", commit),
    (("POST",), rf"/api/models/{REPO}/tag/(?P<rev>[^/]+)", tag),
    (("GET",), rf"/api/models/{REPO}", info),
    (("GET",), rf"/api/models/{REPO}/revision/(?P<rev>[^/]+)", info),
    (("GET",), rf"/api/models/{REPO}/refs", refs),
    (("GET",), rf"/api/models/{REPO}/tree/(?P<rev>[^/]+)", tree),
    (("GET",), rf"/api/models/{REPO}/tree/(?P<rev>[^/]+)/(?P<folder>.+)", tree),
    (("POST",), rf"/api/models/{REPO}/paths-info/(?P<rev>[^/]+)", paths_info),
    (("GET", "HEAD"), rf"/{REPO}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", resolve),
)
