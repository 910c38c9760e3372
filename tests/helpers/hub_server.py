"""A hub on this machine: as much of Hugging Face's API as down- and uploads need."""

import base64
import contextlib
import hashlib
import importlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

import huggingface_hub.constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_of_the_tests"


class Hub(BaseHTTPRequestHandler):
    """Its attributes are the hub's state, which ``running`` makes new.

    Attributes:
        files: the content of 'OWNER/NAME/FILE'.
        branches: of each repository.
        private: the repositories that are.
        uploaded: large files by their SHA-256, before a commit names them.
        commits: what each commit added: repository, revision and names.
        asked: 'METHOD PATH' of each request.
        refuse: HTTP statuses, and texts, by the beginning of 'METHOD PATH'.
    """

    protocol_version = "HTTP/1.1"
    files: dict
    branches: dict
    private: set
    uploaded: dict
    commits: list
    asked: list
    refuse: dict

    def answer(self, status, content=b"", **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers["Content-Type"] = "application/json"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def handle_request(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = f"{self.command} {urlparse(self.path).path}"
        self.asked.append(request)
        for beginning, (status, said) in self.refuse.items():
            if request.startswith(beginning):
                return self.answer(status, dict(error=said))
        # Files are public; the address of the storage would have a signature.
        public = "/resolve/" in self.path or "/storage/" in self.path
        if not public and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, dict(error="Invalid username or password."))
        for pattern, method in ROUTES.items():
            match = re.fullmatch(pattern, request)
            if match:
                return method(self, body, **match.groupdict())
        return self.answer(404, dict(error=f"no {request}"))

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def whoami(self, body):
        self.answer(200, dict(name="me", type="user", orgs=[], auth={}))

    def resolve(self, body, repo, revision, file):
        content = self.files.get(f"{repo}/{file}")
        if repo not in self.branches:
            self.answer(404, X_Error_Code="RepoNotFound")
        elif revision not in (*self.branches[repo], COMMIT):
            self.answer(404, X_Error_Code="RevisionNotFound")
        elif content is None:
            self.answer(404, X_Error_Code="EntryNotFound")
        else:
            tag = hashlib.sha256(content).hexdigest()
            self.answer(200, content, X_Repo_Commit=COMMIT, ETag=f'"{tag}"')

    def repo_info(self, body, repo, revision=None):
        if repo not in self.branches:
            self.answer(404, dict(error="not found"), X_Error_Code="RepoNotFound")
        elif (revision or "main") not in self.branches[repo]:
            self.answer(404, dict(error="no branch"), X_Error_Code="RevisionNotFound")
        else:
            names = [n.removeprefix(f"{repo}/") for n in self.files]
            siblings = [
                dict(rfilename=name) for name in names if f"{repo}/{name}" in self.files
            ]
            private = repo in self.private
            self.answer(
                200, dict(id=repo, sha=COMMIT, private=private, siblings=siblings)
            )

    def tree(self, body, repo, revision):
        prefix = f"{repo}/"
        entries = [
            dict(type="file", path=n.removeprefix(prefix), size=len(c), oid="0" * 40)
            for n, c in self.files.items()
            if n.startswith(prefix)
        ]
        self.answer(200, entries)

    def create(self, body):
        wanted = json.loads(body)
        repo = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        url = f"{self.address}/{repo}"
        if repo in self.branches:
            return self.answer(409, dict(error="You already created it", url=url))
        self.branches[repo] = {"main"}
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.private.add(repo)
        return self.answer(200, dict(url=url, name=repo))

    def branch(self, body, repo, name):
        self.branches[repo].add(name)
        self.answer(200, {})

    def yaml(self, body):
        self.answer(200, dict(errors=[], warnings=[]))

    def preupload(self, body, repo, revision):
        answers = [
            dict(
                path=file["path"],
                uploadMode="lfs"
                if file["path"].endswith(".safetensors")
                else "regular",
                shouldIgnore=False,
            )
            for file in json.loads(body)["files"]
        ]
        self.answer(200, dict(files=answers))

    def lfs_batch(self, body, repo):
        objects = [
            dict(
                entry,
                actions=dict(
                    upload=dict(href=f"{self.address}/storage/{entry['oid']}"),
                    verify=dict(href=f"{self.address}/api/verify"),
                ),
            )
            for entry in json.loads(body)["objects"]
        ]
        self.answer(200, dict(transfer="basic", objects=objects))

    def store(self, body, oid):
        self.uploaded[oid] = body
        self.answer(200)

    def verify(self, body):
        entry = json.loads(body)
        self.answer(200 if len(self.uploaded[entry["oid"]]) == entry["size"] else 400)

    def commit(self, body, repo, revision):
        names = []
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                content = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.uploaded[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
            elif line["key"] == "deletedFile":
                del self.files[f"{repo}/{value['path']}"]
                continue
            else:
                continue
            self.files[f"{repo}/{value['path']}"] = content
            names.append(value["path"])
        self.commits.append((repo, revision, names))
        self.answer(
            200,
            dict(
                success=True,
                commitOid=COMMIT,
                commitUrl=f"{self.address}/{repo}/commit/{COMMIT}",
                hookOutput="",
            ),
        )

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def log_message(self, *args):
        pass


_REPO = r"(?P<repo>[^/]+/[^/]+)"
ROUTES = {
    r"GET /api/whoami-v2": Hub.whoami,
    rf"(GET|HEAD) /{_REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)": Hub.resolve,
    rf"GET /api/models/{_REPO}": Hub.repo_info,
    rf"GET /api/models/{_REPO}/revision/(?P<revision>[^/]+)": Hub.repo_info,
    rf"GET /api/models/{_REPO}/tree/(?P<revision>[^/]+)": Hub.tree,
    r"POST /api/repos/create": Hub.create,
    rf"POST /api/models/{_REPO}/branch/(?P<name>[^/]+)": Hub.branch,
    r"POST /api/validate-yaml": Hub.yaml,
    rf"POST /api/models/{_REPO}/preupload/(?P<revision>[^/]+)": Hub.preupload,
    rf"POST /{_REPO}\.git/info/lfs/objects/batch": Hub.lfs_batch,
    r"PUT /storage/(?P<oid>\w+)": Hub.store,
    r"POST /api/verify": Hub.verify,
    rf"POST /api/models/{_REPO}/commit/(?P<revision>[^/]+)": Hub.commit,
}


@contextlib.contextmanager
def running():
    """Run a hub without repositories; yield its address."""
    Hub.files, Hub.branches, Hub.private, Hub.uploaded = {}, {}, set(), {}
    Hub.commits, Hub.asked, Hub.refuse = [], [], {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(
        target=server.serve_forever, kwargs=dict(poll_interval=0.02), daemon=True
    ).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def add(repo, branch="main", **files):
    """Add files to a repository, which is made if there is none."""
    Hub.branches.setdefault(repo, {"main"}).add(branch)
    Hub.files |= {f"{repo}/{name}": content for name, content in files.items()}


@contextlib.contextmanager
def client(monkeypatch, home, **environment):
    """Let the hub's client read its environment again, in this process.

    Args:
        home: folder of its cache and token.
        environment: such as ``HF_ENDPOINT``.
    """
    constants = huggingface_hub.constants
    with monkeypatch.context() as patch:
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
            patch.delenv(name, raising=False)
        settings = dict(HF_HOME=str(home), HF_HUB_DISABLE_XET="1", **environment)
        for name, value in settings.items():
            patch.setenv(name, value)
        importlib.reload(constants)
        yield
    importlib.reload(constants)
