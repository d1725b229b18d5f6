"""Engines kept on disk: built once for a key, whole or not at all, checked whenever they are used. No torch here."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # not on Windows, where engines are not removed
    fcntl = None  # type: ignore[assignment]

from spatial_mllm_ros.serving.onnx_file import ExportError, fingerprint
from spatial_mllm_ros.serving.user_cache import user_cache

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"


def default_folder() -> Path:
    """Where engines are kept unless told otherwise: ``spatial_mllm_ros/engines`` in the user's cache folder."""
    return user_cache("engines")


@dataclass(frozen=True, eq=False)
class Engine:
    """An engine that is there and whole. While this object lives, no process removes the folder."""

    folder: Path
    _held: IO[bytes] | None = None


class EngineCache:
    """Folders of engine files by key. Safe for several processes: one builds, the others wait for it.

    Once an engine has been built, those of other keys that were built from the same source (the same exported file,
    provider and device; other versions, or what the file held before) are removed, unless a process uses them.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder).expanduser() if folder else default_folder()

    def get(
        self,
        key: Mapping[str, Any],
        build: Callable[[Path], object],
        on_build: Callable[[str], object] = lambda why: None,
        source: Mapping[str, str] | None = None,
        name: str = "",
    ) -> Engine:
        """The engine for this key, built now unless it is there and whole.

        key: everything that the engine depends on, as JSON types. build: called with an empty folder to fill. on_build:
        called first, with the reason. source: what it is built from, whose older engines it replaces. name: for people.
        Raises ExportError where the folder cannot be written or the disk is full, and what ``build`` raises; nothing is
        left behind then.
        """
        from filelock import FileLock

        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        home = self.folder / digest
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f"{digest}.lock"):
                fault = self._fault(home, key)
                if fault:
                    on_build(fault)
                    self._build(home, build, {"name": name, "key": key, "source": dict(source or {})})
                engine = Engine(home, _hold(home))
            if fault and source:
                self._prune(home, source)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ExportError(
                    f"the disk is full at {self.folder} while an engine is built: free some space, or keep engines "
                    "elsewhere"
                ) from error
            raise ExportError(
                f"engines cannot be kept in {self.folder} ({error.strerror or error}): choose a folder that can be written"
            ) from error
        return engine

    def engines(self) -> list[tuple[str, dict[str, str]]]:
        """Name and source of every engine that is kept, by name."""
        found = [_manifest(path) for path in self.folder.glob(f"*/{MANIFEST}")]
        named = [(str(each["name"]), dict(each.get("source", {}))) for each in found if each.get("name")]
        return sorted(named, key=lambda engine: (engine[0], engine[1].get("file", "")))

    def _build(self, home: Path, build: Callable[[Path], object], about: Mapping[str, Any]) -> None:
        with tempfile.TemporaryDirectory(prefix=".building-", dir=self.folder, ignore_cleanup_errors=True) as partial:
            folder = Path(partial) / "engine"
            folder.mkdir()
            build(folder)
            files = {path.name: fingerprint(path) for path in sorted(folder.iterdir())}
            (folder / MANIFEST).write_text(json.dumps({**about, "files": files}, indent=1) + "\n", encoding="utf-8")
            if home.exists():
                shutil.rmtree(home)
            folder.rename(home)

    def _prune(self, newest: Path, source: Mapping[str, str]) -> None:
        """Remove what ``newest`` replaces. What another process builds, checks or uses stays, until the next time."""
        from filelock import FileLock, Timeout

        for manifest in self.folder.glob(f"*/{MANIFEST}"):
            old = manifest.parent
            if old == newest or _manifest(manifest).get("source") != dict(source):
                continue
            try:
                with FileLock(self.folder / f"{old.name}.lock", timeout=0):
                    if _unused(old):
                        shutil.rmtree(old)
                        log.info("an engine of %s by older versions was removed: %s", source.get("file", ""), old)
            except Timeout:
                continue
            except OSError as error:
                log.warning("the old engine in %s cannot be removed: %s", old, error)

    def _fault(self, home: Path, key: Mapping[str, Any]) -> str:
        """Why the engine has to be built; '' if it is there and whole."""
        if not home.exists():
            return "there is none for this model, device and these versions yet"
        try:
            manifest = json.loads((home / MANIFEST).read_text(encoding="utf-8"))
            files = dict(manifest["files"])
            same_key = manifest["key"] == json.loads(json.dumps(key))
        except (OSError, ValueError, KeyError, TypeError) as error:
            return self._damaged(home, f"its {MANIFEST} cannot be read ({error})")
        if not same_key:
            return self._damaged(home, "it is of another key")
        for name, digest in files.items():
            path = home / name
            if not path.is_file():
                return self._damaged(home, f"{name} is missing")
            if fingerprint(path) != digest:
                return self._damaged(home, f"{name} has changed")
        return ""

    def _damaged(self, home: Path, what: str) -> str:
        log.warning("the engine in %s is damaged: %s; it is built again", home, what)
        return f"the one that was kept is damaged: {what}"


def _hold(folder: Path) -> IO[bytes] | None:
    """Show other processes that an engine is used, for as long as the file is open."""
    if fcntl is None:
        return None
    held = (folder / MANIFEST).open("rb")
    fcntl.flock(held, fcntl.LOCK_SH)
    return held


def _unused(folder: Path) -> bool:
    """Whether no process shows that it uses an engine. Under the engine's lock, so that none begins to meanwhile."""
    if fcntl is None:
        return False
    with (folder / MANIFEST).open("rb") as manifest:
        try:
            fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _manifest(path: Path) -> dict[str, Any]:
    """What an engine says about itself; {} where that cannot be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
