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
from pathlib import Path
from typing import Any

from spatial_mllm_ros.models.export.onnx_file import ExportError, fingerprint

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"


def default_folder() -> Path:
    """Where engines are kept unless told otherwise: ``spatial_mllm_ros/engines`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spatial_mllm_ros" / "engines"


class EngineCache:
    """Folders of engine files by key. Safe for several processes: one builds, the others wait for it."""

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder).expanduser() if folder else default_folder()

    def get(
        self,
        key: Mapping[str, Any],
        build: Callable[[Path], object],
        on_build: Callable[[str], object] = lambda why: None,
    ) -> Path:
        """The folder of the engine for this key, built now unless it is there and whole.

        key: everything that the engine depends on, as JSON types. build: called with an empty folder to fill. on_build:
        called first, with the reason. Raises ExportError where the folder cannot be written or the disk is full, and
        what ``build`` raises; nothing is left behind then.
        """
        from filelock import FileLock

        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        home = self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f"{name}.lock"):
                fault = self._fault(home, key)
                if fault:
                    on_build(fault)
                    self._build(home, key, build)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ExportError(
                    f"the disk is full at {self.folder} while an engine is built: free some space, or keep engines "
                    "elsewhere"
                ) from error
            raise ExportError(
                f"engines cannot be kept in {self.folder} ({error.strerror or error}): choose a folder that can be written"
            ) from error
        return home

    def _build(self, home: Path, key: Mapping[str, Any], build: Callable[[Path], object]) -> None:
        with tempfile.TemporaryDirectory(prefix=".building-", dir=self.folder, ignore_cleanup_errors=True) as partial:
            folder = Path(partial) / "engine"
            folder.mkdir()
            build(folder)
            files = {path.name: fingerprint(path) for path in sorted(folder.iterdir())}
            (folder / MANIFEST).write_text(json.dumps({"key": key, "files": files}, indent=1) + "\n", encoding="utf-8")
            if home.exists():
                shutil.rmtree(home)
            folder.rename(home)

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
