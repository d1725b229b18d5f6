"""A hub on 127.0.0.1 for tests: what huggingface_hub asks of one, and the ways in which one fails."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REPO = "someone/a-model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 20_000
"""Files of so many bytes are stored apart, with a SHA-256, and answered by a redirection."""


@dataclass
class HubServer:
    """One model, ``REPO``, with ``files``; counts the bytes that it sends of each.

    token: without it 401, as for a private model. accepted: whether the licence has been accepted, else 403. status: an
    answer to everything. gone: files that are listed but not there. break_after: by file, after how many bytes its
    connections break, one after the other. damaged: files whose last byte is sent wrong. hold: large files stop half-way
    until it is set. ignore_ranges: as some proxies do. token_told: whether the token was sent to the host of the large
    files.
    """

    files: dict[str, bytes]
    commit: str = COMMIT
    licence: str | None = "apache-2.0"
    token: str = ""
    accepted: bool = True
    status: int = 0
    gone: set[str] = field(default_factory=set)
    unsized: bool = False
    break_after: dict[str, list[int]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    hold: threading.Event | None = None
    half_way: threading.Event = field(default_factory=threading.Event)
    ignore_ranges: bool = False
    token_told: bool = False
    sent: Counter[str] = field(default_factory=Counter)
    requests: list[str] = field(default_factory=list)

    def __enter__(self) -> HubServer:
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.hold is not None:
            self.hold.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values()))

    def forget(self) -> None:
        """Count anew."""
        self.sent.clear()
        self.requests.clear()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: HubServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        hub = self.server_hub
        path = unquote(urlsplit(self.path).path)
        hub.requests.append(path)
        if hub.status:
            return self.refuse(hub.status)
        if path.startswith("/cdn/"):
            hub.token_told |= "Authorization" in self.headers
            return self.content(path.removeprefix("/cdn/"))
        if path in (
            f"/api/models/{REPO}",
            f"/api/models/{REPO}/revision/{hub.commit}",
            f"/api/models/{REPO}/revision/v1",
        ):
            return self.refuse_strangers() or self.info()
        if path.startswith(f"/api/models/{REPO}/revision/"):
            return self.refuse(404, "RevisionNotFound")
        if path.startswith("/api/models/"):
            return self.refuse(404 if self.headers.get("Authorization") else 401, "RepoNotFound")
        begin = f"/{REPO}/resolve/{hub.commit}/"
        if path.startswith(begin):
            name = path.removeprefix(begin)
            if not hub.accepted:
                return self.refuse(403, "GatedRepo")
            if name not in hub.files or name in hub.gone:
                return self.refuse(404, "EntryNotFound")
            if len(hub.files[name]) >= LARGE:
                return self.redirect(f"/cdn/{name}")
            return self.content(name)
        return self.refuse(404)

    def refuse_strangers(self) -> bool:
        hub, given = self.server_hub, self.headers.get("Authorization", "")
        if not hub.token or given == f"Bearer {hub.token}":
            return False
        if given:
            self.refuse(401, "", "Invalid credentials in Authorization header")
        else:
            self.refuse(401, "RepoNotFound")
        return True

    def refuse(self, status: int, code: str = "", message: str = "") -> None:
        self.send_response(status)
        for name, value in (("X-Error-Code", code), ("X-Error-Message", message)):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def redirect(self, to: str) -> None:
        self.send_response(302)
        self.send_header("Location", self.server_hub.url.replace("127.0.0.1", "localhost") + to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def info(self) -> None:
        hub = self.server_hub
        siblings = []
        for name, content in hub.files.items():
            entry: dict[str, object] = {"rfilename": name}
            if not hub.unsized:
                entry |= {
                    "size": len(content),
                    "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
                }
                if len(content) >= LARGE:
                    sha256 = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"size": len(content), "sha256": sha256, "pointerSize": 130}
            siblings.append(entry)
        card = {"license": hub.licence} if hub.licence else None
        body = json.dumps({"id": REPO, "sha": hub.commit, "siblings": siblings, "cardData": card, "tags": []}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def content(self, name: str) -> None:
        hub = self.server_hub
        whole = hub.files[name]
        if name in hub.damaged:
            whole = whole[:-1] + bytes([whole[-1] ^ 1])
        asked = self.headers.get("Range", "")
        first = int(asked.removeprefix("bytes=").split("-")[0]) if asked and not hub.ignore_ranges else 0
        rest = whole[first:]
        self.send_response(206 if asked and not hub.ignore_ranges else 200)
        if asked and not hub.ignore_ranges:
            self.send_header("Content-Range", f"bytes {first}-{len(whole) - 1}/{len(whole)}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if hub.break_after.get(name):
            rest = rest[: hub.break_after[name].pop(0)]
            self.close_connection = True
        half = len(rest) // 2 if len(whole) >= LARGE and hub.hold is not None else len(rest)
        self.write(name, rest[:half])
        if half < len(rest) and hub.hold is not None:
            hub.half_way.set()
            hub.hold.wait(30)
            self.write(name, rest[half:])

    def write(self, name: str, content: bytes) -> None:
        try:
            self.wfile.write(content)
            self.wfile.flush()
            self.server_hub.sent[name] += len(content)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
