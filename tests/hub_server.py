"""Run a local server that answers the client of the Hugging Face hub as the hub does, and processes that use it."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONVERTED = "c" * 40
USER = "someone"
TOKEN = "hf_that_may_write"
REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A commit that was pushed; `files`: name -> content."""

    repo: str
    branch: str
    summary: str
    files: dict[str, bytes]


@dataclass
class Hub:
    """The state of the server, the refusals it gives, and the requests it received.

    Attributes:
        files: `REPO/FILE` -> content; the REPO of a data set begins with `datasets/`.
        converted: the same for the branch into which the hub converts data sets, whose commit is `CONVERTED`.
        refusals: REPO -> status and X-Error-Code for everything in it; None closes the connection without an answer.
        commit: the newest commit, which is that of files of `main`.
        revisions: the revision of each requested file, in the order of `requests`.
        models: repository that can be pushed to -> whether it is private.
        branches: `REPO BRANCH`, without `main`.
        commits: the pushed commits.
        steps: `STEP REPO` -> status and JSON (or text) to answer instead in that step of a push.
        stored: sha256 -> content of a large file.
        received: the bodies of all requests.
    """

    endpoint: str
    files: dict[str, bytes] = field(default_factory=dict)
    converted: dict[str, bytes] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str] | None] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    commit: str = COMMIT
    revisions: list[str] = field(default_factory=list)
    models: dict[str, bool] = field(default_factory=dict)
    branches: set[str] = field(default_factory=set)
    commits: list[Commit] = field(default_factory=list)
    steps: dict[str, tuple[int, object]] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    received: list[bytes] = field(default_factory=list)

    def add_model(self, name: str, directory: Path) -> None:
        self.files |= {f"{name}/{path.name}": path.read_bytes() for path in directory.iterdir()}


class Answers(BaseHTTPRequestHandler):
    """Handles `/REPO/resolve/REVISION/FILE`, with the headers of huggingface.co, and the steps of a push."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        hub: Hub = self.server.hub
        repo, _, place = self.path.removeprefix("/").partition("/resolve/")
        revision, _, file = place.partition("/")
        hub.requests.append(f"{self.command} {repo}/{file}")
        hub.revisions.append(revision)
        files = hub.converted if revision == CONVERTED else hub.files
        status, code, content = 200, "", files.get(f"{repo}/{file}", b"")
        if repo in hub.refusals:
            refusal = hub.refusals[repo]
            if refusal is None:
                self.close_connection = True
                return
            status, code = refusal
        elif not any(name.startswith(f"{repo}/") for name in files):
            status, code = 401, "RepoNotFound"  # the hub does not tell which private repositories exist
        elif f"{repo}/{file}" not in files:
            status, code = 404, "EntryNotFound"
        self.send_response(status)
        if code:
            content = b'{"error": "first line\\nsecond line"}'
            self.send_header("X-Error-Code", code)
        else:
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        if code in ("", "EntryNotFound"):
            self.send_header("X-Repo-Commit", hub.commit if revision == "main" else revision)
        self.send_header("X-HF-Warning", "unauthenticated; You are sending unauthenticated requests to the HF Hub.")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_GET(self) -> None:
        if self.path.startswith("/api/datasets/"):
            self.list_files()
        elif self.path.startswith("/api/"):
            self.do_POST()
        else:
            self.do_HEAD()

    def list_files(self) -> None:
        """Answer `/api/datasets/REPO/revision/REVISION`. What is gated shows the names of its files all the same."""
        hub: Hub = self.server.hub
        path = unquote(self.path)
        hub.requests.append(f"{self.command} {path}")
        repo, revision = re.fullmatch(f"/api/(datasets/{REPO})/revision/(.+)", path).group(1, 3)
        found = {"main": (hub.commit, hub.files), "refs/convert/parquet": (CONVERTED, hub.converted)}
        found |= {CONVERTED: (CONVERTED, hub.converted)}
        commit, files = found.get(revision, (revision, hub.files))
        names = [{"rfilename": name.removeprefix(f"{repo}/")} for name in files if name.startswith(f"{repo}/")]
        if repo in hub.refusals and hub.refusals[repo] is None:
            self.close_connection = True
        elif revision == "gone" or (files is hub.converted and not names):
            self.refuse(404, "RevisionNotFound")
        elif not names:
            self.refuse(401, "RepoNotFound")
        elif hub.refusals.get(repo, (0, ""))[0] >= 500:
            self.refuse(*hub.refusals[repo])
        else:
            self.answer(200, {"id": repo.removeprefix("datasets/"), "sha": commit, "siblings": names})

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        hub: Hub = self.server.hub
        path, body = unquote(self.path.partition("?")[0]), self.body()
        hub.requests.append(f"{self.command} {path}")
        hub.received.append(body)
        step, found = next((step, found) for step, form in STEPS.items() if (found := re.fullmatch(form, path)))
        names = found.groupdict()
        if step == "create":
            asked = json.loads(body)
            names["repo"] = f"{asked['organization']}/{asked['name']}"
        if step != "store" and self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer(401, {"error": "Invalid username or password."})
        elif instead := hub.steps.get(f"{step} {names.get('repo')}"):
            self.answer(*instead)
        else:
            self.answer(*getattr(self, step)(hub, body, **names))

    do_PUT = do_POST  # noqa: N815

    def body(self) -> bytes:
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def answer(self, status: int, values: object) -> None:
        content = values.encode() if isinstance(values, str) else json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(values, str) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def create(self, hub: Hub, body: bytes, repo: str) -> tuple[int, object]:
        url = {"url": f"{hub.endpoint}/{repo}"}
        if not repo.startswith(f"{USER}/"):
            return 403, {"error": "You don't have the rights to create a model under this namespace."}
        if repo in hub.models:
            return 409, url | {"error": "You already created this model repo."}
        hub.models[repo] = json.loads(body).get("visibility") == "private"
        return 200, url

    def about(self, hub: Hub, body: bytes, repo: str, branch: str | None) -> tuple[int, object]:
        if repo not in hub.models:
            return 404, {"error": "Repository not found"}
        return 200, {"id": repo, "private": hub.models[repo], "sha": hub.commit}

    def branch(self, hub: Hub, body: bytes, repo: str, branch: str) -> tuple[int, object]:
        if f"{repo} {branch}" in hub.branches:
            return 409, {"error": "Reference already exists"}
        hub.branches.add(f"{repo} {branch}")
        return 200, {}

    def validate(self, hub: Hub, body: bytes) -> tuple[int, object]:
        if "license: nonsense" in json.loads(body)["content"]:
            return 400, {"errors": [{"message": '"license" must be one of\n[apache-2.0, mit]'}], "warnings": []}
        return 200, {"errors": [], "warnings": []}

    def preupload(self, hub: Hub, body: bytes, repo: str, branch: str) -> tuple[int, object]:
        if not repo.startswith(f"{USER}/"):
            return 403, {"error": "This repository is somebody else's."}
        assert branch == "main" or f"{repo} {branch}" in hub.branches
        files = []
        for file in json.loads(body)["files"]:
            large = file["path"].endswith(".safetensors")
            there = hub.files.get(f"{repo}/{file['path']}") if branch == "main" else None
            git = None if there is None else b"blob %d\0%b" % (len(there), there)
            oid = None if there is None else hashlib.sha256(there).hexdigest() if large else hashlib.sha1(git).hexdigest()
            files.append(
                {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}
            )
        return 200, {"files": files}

    def batch(self, hub: Hub, body: bytes, repo: str) -> tuple[int, object]:
        wanted = [
            {**one, "actions": {"upload": {"href": f"{hub.endpoint}/store/{repo}/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        return 200, {"transfer": "basic", "objects": wanted}

    def store(self, hub: Hub, body: bytes, repo: str, oid: str) -> tuple[int, object]:
        assert hashlib.sha256(body).hexdigest() == oid
        hub.stored[oid] = body
        return 200, {}

    def commit(self, hub: Hub, body: bytes, repo: str, branch: str) -> tuple[int, object]:
        header, *changes = map(json.loads, body.splitlines())
        files = {}
        for change in changes:
            value = change["value"]
            large = change["key"] == "lfsFile"
            files[value["path"]] = hub.stored[value["oid"]] if large else base64.b64decode(value["content"])
        hub.commits.append(Commit(repo=repo, branch=branch, summary=header["value"]["summary"], files=files))
        hub.commit = f"{len(hub.commits):040x}"
        if branch == "main":
            hub.files |= {f"{repo}/{name}": content for name, content in files.items()}
        return 200, {"commitUrl": f"{hub.endpoint}/{repo}/commit/{hub.commit}", "commitOid": hub.commit}

    def log_message(self, *_: object) -> None:
        pass


STEPS = {
    "create": "/api/repos/create",
    "validate": "/api/validate-yaml",
    "branch": f"/api/models/{REPO}/branch/(?P<branch>.+)",
    "preupload": f"/api/models/{REPO}/preupload/(?P<branch>.+)",
    "commit": f"/api/models/{REPO}/commit/(?P<branch>.+)",
    "about": f"/api/models/{REPO}(/revision/(?P<branch>.+))?",
    "batch": rf"/{REPO}\.git/info/lfs/objects/batch",
    "store": f"/store/{REPO}/(?P<oid>[0-9a-f]+)",
}


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve an empty hub."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.hub = Hub(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.hub
        server.shutdown()
        thread.join()


def call(home: Path, endpoint: str, *arguments: object, **variables: str) -> dict[str, object]:
    """Return arguments of `subprocess.run` for Python with caches in `home`, the hub at `endpoint`, and no user settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and not name.lower().endswith("_proxy")
    }
    ours = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "ISINGLASS_CACHE": str(home / "tokens"),
    }
    return dict(
        args=[sys.executable, *map(str, arguments)],
        cwd=home,
        env={**kept, **ours, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def python(home: Path, endpoint: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(**call(home, endpoint, *arguments, **variables), timeout=120)


def printed(done: subprocess.CompletedProcess[str]) -> list:
    """Return the JSON on standard output of a process that succeeded and wrote nothing else."""
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)
