"""Checkpoints from the hub to a folder: resumed where they were interrupted, checked byte by byte.

huggingface_hub talks to the hub. It drops what it has of a file when a download breaks off, and files have gigabytes:
the parts are kept here instead.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from spatial_mllm_ros.serving.checkpoints.hub import NEEDED, PRIVATE, HubFile, HubId, Record

NOT_INSTALLED = "downloading needs huggingface_hub: pip install 'spatial_mllm_ros[model]'"
CONNECTIONS = 4
ANSWER_S = 20.0
PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Between connections that bring nothing; then a download gives up."""
SPARE_BYTES = 64 << 20
"""Left free on the disk."""
_CHUNK = 4 << 20


class DownloadError(Exception):
    """What could not be downloaded. ``str()`` says why, and what to do."""


class _Stopped(Exception):
    """Another file failed, or the user interrupted."""


def endpoint() -> str:
    """The hub's address: $HF_ENDPOINT, else that of Hugging Face."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def look_up(hub_id: HubId, token: str | None = None) -> Record:
    """Ask the hub what a model consists of. token: None is the one of $HF_TOKEN or of the login. Raises DownloadError."""
    with _failures(hub_id, token):
        from huggingface_hub import HfApi

        api = HfApi(endpoint=endpoint(), token=token)
        info = api.model_info(hub_id.repo, revision=hub_id.revision or None, files_metadata=True, timeout=ANSWER_S)
    files = {s.rfilename: _hub_file(s) for s in info.siblings or () if _needed(s.rfilename)}
    if "config.json" not in files or not any(name.endswith(".safetensors") for name in files):
        raise DownloadError(
            f"{hub_id} has no config.json or no *.safetensors: it is not a checkpoint that can be loaded here"
        )
    licence = getattr(info.card_data, "license", None) or ""
    return Record(hub_id.repo, hub_id.revision, info.sha or "", str(licence), files)


def remaining(record: Record, folder: Path) -> int:
    """Bytes of a model that the folder lacks."""
    return sum(file.size - _has(folder, name, file) for name, file in record.files.items())


def fetch(
    record: Record, folder: Path, token: str | None = None, advance: Callable[[int], None] = lambda count: None
) -> Record:
    """Bring all files of ``record`` into ``folder``; what is there and right stays.

    advance: told how many more bytes are there (fewer, when some turn out wrong). Returns the record, complete. Raises
    DownloadError; interrupted (KeyboardInterrupt) it keeps what it has, and goes on from there the next time.
    """
    with _failures(record.hub_id, token):
        from huggingface_hub.utils import WeakFileLock, build_hf_headers

        free, need = free_bytes(folder), remaining(record, folder)
        if need + SPARE_BYTES > free:
            raise DownloadError(
                f"{folder} has {free / 1e9:.1f} GB free, but {need / 1e9:.1f} GB are still to come: "
                "make room, or choose another disk with --output"
            )
        former = Record.read(folder)
        (folder / PRIVATE).mkdir(parents=True, exist_ok=True)
        try:
            with WeakFileLock(folder / PRIVATE / "lock", timeout=0.1):
                headers = {**build_hf_headers(token=token), "Accept-Encoding": "identity"}
                transfer = _Transfer(record, folder, headers, advance)
                if former is None:
                    transfer.check_folder()
                replace(record, complete=False).write(folder)
                transfer.run()
                for name in set(former.files) - set(record.files) if former is not None else ():
                    (folder / name).unlink(missing_ok=True)
                for part in (folder / PRIVATE).glob("*.part"):
                    part.unlink()
                done = replace(record, complete=True)
                done.write(folder)
        except TimeoutError as error:
            raise DownloadError(f"another download into {folder} is running: wait for it, or end it") from error
    return done


def free_bytes(folder: Path) -> int:
    """Free on the disk where ``folder`` is, or will be."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


@dataclass
class _Transfer:
    """One run of a download."""

    record: Record
    folder: Path
    headers: dict[str, str]
    advance: Callable[[int], None]
    stop: threading.Event = field(default_factory=threading.Event)

    def check_folder(self) -> None:
        """DownloadError when the folder, which no download made, has other files of the same names."""
        for name, file in self.record.files.items():
            final = self.folder / name
            if final.exists() and (final.stat().st_size != file.size or self._digest(final, file) != file.digest):
                raise DownloadError(f"{final} is another file already: choose another folder with --output")

    def run(self) -> None:
        """Raises what the first file that fails raises, when all have stopped."""
        small_first = sorted(self.record.files, key=lambda name: (self.record.files[name].size, name))
        with ThreadPoolExecutor(CONNECTIONS, "download") as pool:
            files = [pool.submit(self._file, name, self.record.files[name]) for name in small_first]
            try:
                for file in as_completed(files):
                    file.result()
            except BaseException:
                self.stop.set()
                for file in files:
                    file.cancel()
                raise

    def _file(self, name: str, file: HubFile) -> None:
        final, part = self.folder / name, _part(self.folder, name, file)
        has_size = final.is_file() and final.stat().st_size == file.size
        if has_size and self._digest(final, file, self.advance) == file.digest:
            return
        for _ in range(2):  # a part of an earlier run may be damaged
            self._fetch(name, file, part)
            if self._digest(part, file) == file.digest:
                os.replace(part, final)
                return
            part.unlink()
            self.advance(-file.size)
        raise DownloadError(
            f"{name} arrived damaged, twice: check the network (a proxy?) and the disk, and run it again"
        )

    def _fetch(self, name: str, file: HubFile, part: Path) -> None:
        """The rest of a file; a connection that breaks is made anew, at once if it has brought something."""
        from huggingface_hub.errors import HTTPError

        part.touch()
        had = part.stat().st_size
        self.advance(had)
        tries = 0
        while had != file.size:
            try:
                self._connect(name, file.size, part)
            except HTTPError as error:
                status = getattr(getattr(error, "response", None), "status_code", 500)
                if status < 500 or (part.stat().st_size <= had and tries == len(PAUSES_S)):
                    raise
            has = part.stat().st_size
            if has <= had and has != file.size:
                if tries == len(PAUSES_S):
                    raise DownloadError(f"{name} breaks off at byte {has} of {file.size}: run it again later")
                self.stop.wait(PAUSES_S[tries])
            tries = tries + 1 if has <= had else 0
            had = has

    def _connect(self, name: str, size: int, part: Path) -> None:
        """One request for what a part lacks; what comes is added to it."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import get_session, hf_raise_for_status

        url = hf_hub_url(self.record.model, name, revision=self.record.commit, endpoint=endpoint())
        with part.open("ab") as to:
            had = to.tell()
            if had > size:
                had = self._start_over(to)
            headers = self.headers | ({"Range": f"bytes={had}-"} if had else {})
            with get_session().stream("GET", url, headers=headers, timeout=ANSWER_S) as response:
                if response.status_code >= 400:
                    response.read()
                hf_raise_for_status(response)
                if had and not response.headers.get("Content-Range", "").startswith(f"bytes {had}-"):
                    self._start_over(to)
                for chunk in response.iter_bytes():
                    self.check()
                    to.write(chunk)
                    self.advance(len(chunk))

    def _start_over(self, part: BinaryIO) -> int:
        self.advance(-part.tell())
        part.truncate(0)
        return 0

    def _digest(self, path: Path, file: HubFile, advance: Callable[[int], None] = lambda count: None) -> str:
        """In the way of the file's own digest."""
        kind = file.digest.partition(":")[0]
        digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
        counted = 0
        with path.open("rb") as content:
            while chunk := content.read(_CHUNK):
                self.check()
                digest.update(chunk)
                counted += len(chunk)
                advance(len(chunk))
        found = f"{kind}:{digest.hexdigest()}"
        if found != file.digest:
            advance(-counted)
        return found

    def check(self) -> None:
        if self.stop.is_set():
            raise _Stopped


def _needed(name: str) -> bool:
    return "/" not in name and "\\" not in name and any(fnmatchcase(name, pattern) for pattern in NEEDED)


def _hub_file(sibling: Any) -> HubFile:
    """Size and digest as the hub states them."""
    if sibling.size is None:
        raise DownloadError(f"{endpoint()} does not say how large {sibling.rfilename} is: it is no complete mirror")
    sha256 = sibling.lfs.sha256 if sibling.lfs is not None else None
    return HubFile(int(sibling.size), f"sha256:{sha256}" if sha256 else f"git:{sibling.blob_id}")


def _part(folder: Path, name: str, file: HubFile) -> Path:
    """Where an unfinished file is kept: by its content too, so that another revision never continues it."""
    return folder / PRIVATE / f"{name}.{file.digest.partition(':')[2][:16]}.part"


def _has(folder: Path, name: str, file: HubFile) -> int:
    """Bytes of a file that are there, by sizes."""
    final, part = folder / name, _part(folder, name, file)
    if final.is_file() and final.stat().st_size == file.size:
        return file.size
    return min(part.stat().st_size, file.size) if part.is_file() else 0


@contextmanager
def _failures(hub_id: HubId, token: str | None) -> Iterator[None]:
    """Within, what goes wrong becomes a DownloadError that says what to do."""
    try:
        from huggingface_hub import errors, get_token
    except ImportError as error:
        raise DownloadError(NOT_INSTALLED) from error
    host = urlsplit(endpoint()).netloc
    page = f"{endpoint()}/{hub_id.repo}"
    login = "log in (hf auth login), or give the token by HF_TOKEN or --token"
    try:
        yield
    except errors.HFValidationError as error:
        raise DownloadError(f"{hub_id} is not an id that {host} could have: {error}") from error
    except errors.OfflineModeIsEnabled as error:
        raise DownloadError("HF_HUB_OFFLINE forbids to ask the network: unset it to download") from error
    except errors.GatedRepoError as error:
        raise DownloadError(
            f"{hub_id} is given only to those who accept its licence: accept it on {page}, then {login}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DownloadError(f"{hub_id.repo} has no revision {hub_id.revision!r}: see {page}/commits/main") from error
    except errors.RepositoryNotFoundError as error:
        private = "it is private to others" if token or get_token() else f"it is private: then {login}"
        raise DownloadError(f"{host} has no model {hub_id.repo}: check the spelling, or {private}") from error
    except errors.HfHubHTTPError as error:
        raise DownloadError(_refusal(error, hub_id, host)) from error
    except errors.HTTPError as error:
        raise DownloadError(
            f"{host} cannot be reached ({str(error) or type(error).__name__}): check the network and the proxy, "
            "or name a mirror with HF_ENDPOINT"
        ) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DownloadError("the disk is full: make room and run it again; what has come is kept") from error
        raise
    except ValueError as error:
        raise DownloadError(
            f"{host} does not answer as a hub does ({error}): check HF_ENDPOINT and the proxy"
        ) from error


def _refusal(error: Any, hub_id: HubId, host: str) -> str:
    """Words for a status code."""
    status = error.response.status_code
    if status == 401:
        return f"{host} does not accept the token: it is wrong or has expired; make one on {endpoint()}/settings/tokens"
    if status == 403:
        return f"{host} does not let this token read {hub_id}: give it that right on {endpoint()}/settings/tokens"
    if status == 404:
        return f"a file of {hub_id} is gone from {host}: run it again, with --update"
    if status == 429:
        return f"{host} has had too many requests from here: wait a few minutes, or log in (hf auth login)"
    return f"{host} fails with status {status}: try again later; what has come is kept"
