"""Checkpoints on this machine: where they are kept, which are complete, what their licences say. No torch here."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from spatial_mllm_ros.serving.interface import ModelUnavailable
from spatial_mllm_ros.serving.user_cache import user_cache

NEEDED = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "LICENSE*", "LICENCE*", "NOTICE*", "README.md")
"""What loading needs, and what the licence says: at the top of a checkpoint, nothing in folders, no pickles."""
PRIVATE = ".download"
"""Folder of a checkpoint for what downloading keeps: the record, the lock and parts of files."""
_RECORD = f"{PRIVATE}/record.json"
_ID = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w./-]*))?", re.ASCII)

LICENCES = (
    (
        r"diankun/spatial-mllm",
        "Spatial-MLLM's code is MIT, but its checkpoints contain weights of VGGT-1B, which are non-commercial, and are "
        "trained from Qwen2.5-VL-3B (Qwen Research Licence, non-commercial): research only",
    ),
    (r"qwen/qwen2\.5-vl-3b", "Qwen Research Licence: non-commercial"),
    (r"qwen/qwen2\.5-vl-(7b|32b)", "Apache-2.0"),
    (r"qwen/qwen3-vl", "Apache-2.0"),
    (r"facebook/vggt-1b(?!-commercial)", "VGGT-1B: non-commercial"),
)
"""Start of an id in small letters, and what is known of its licence; the model's page decides."""


@dataclass(frozen=True)
class HubId:
    """A model on the hub: OWNER/NAME, and a revision (branch, tag or commit; '' is the newest) after an @."""

    repo: str
    revision: str = ""

    @staticmethod
    def parse(text: str) -> HubId | None:
        """None for what is no id."""
        match = _ID.fullmatch(text)
        return None if match is None else HubId(match["repo"], match["revision"] or "")

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


@dataclass(frozen=True)
class HubFile:
    """size: bytes. digest: "sha256:…", or "git:…", the SHA-1 that git gives a file."""

    size: int
    digest: str


@dataclass(frozen=True)
class Record:
    """What a folder holds once its download is complete, and whether it is. licence: as the hub names it."""

    model: str
    revision: str
    commit: str
    licence: str
    files: dict[str, HubFile] = field(default_factory=dict)
    complete: bool = False

    @property
    def hub_id(self) -> HubId:
        return HubId(self.model, self.revision)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    def write(self, folder: Path) -> None:
        """Into the folder of the checkpoint, at once or not at all."""
        path = folder / _RECORD
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        os.replace(new, path)

    @staticmethod
    def read(folder: Path) -> Record | None:
        """None for a folder without one. ModelUnavailable when it is damaged."""
        path = folder / _RECORD
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            files = {str(name): HubFile(**file) for name, file in values.pop("files").items()}
            return Record(files=files, **values)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelUnavailable(f"{path} is damaged ({error}): delete {path.parent} and download again") from error

    def lacking(self, folder: Path) -> list[str]:
        """Files that are not there, or not of their size."""
        return [name for name, file in self.files.items() if not _has_size(folder / name, file.size)]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine. model: what to say to load it. problem: why it cannot be used, '' if it can."""

    model: str
    folder: Path
    size: int
    problem: str = ""


def models_folder() -> Path:
    """Where downloads go: ``spatial_mllm_ros/models`` in the user's cache ($XDG_CACHE_HOME, else ~/.cache)."""
    return user_cache("models")


def folder_of(hub_id: HubId) -> Path:
    """Where a model is kept unless told otherwise."""
    return models_folder() / str(hub_id).replace("/", "--")


def resolve_model(model: str) -> Path:
    """The folder of a checkpoint, named by its folder or by its id on the hub (OWNER/NAME, OWNER/NAME@REVISION).

    Looks at folders, what ``spatial-mllm download`` brought, and the cache of huggingface_hub. Never asks the network.
    Raises ModelUnavailable, with the command to run.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        _raise(problem_of(folder))
        return folder
    hub_id = HubId.parse(model)
    if hub_id is None:
        raise ModelUnavailable(
            f"{model!r} is neither a folder on this machine nor a model's id such as "
            "Diankun/Spatial-MLLM-v1.1-Instruct-135K"
        )
    folder = folder_of(hub_id)
    problem = problem_of(folder) if folder.is_dir() else ""
    if folder.is_dir() and not problem:
        return folder
    cached = _in_hub_cache(hub_id)
    if cached is not None:
        return cached
    _raise(problem)
    raise ModelUnavailable(f"{hub_id} is not on this machine. To get it: spatial-mllm download {hub_id}")


def problem_of(folder: Path) -> str:
    """Why a folder cannot be loaded, with what to do; '' when it looks like a complete checkpoint."""
    try:
        record = Record.read(folder)
    except ModelUnavailable as error:
        return str(error)
    if record is not None:
        lacking = record.lacking(folder)
        if lacking or not record.complete:
            output = "" if folder == folder_of(record.hub_id) else f" --output {folder}"
            what = f"{lacking[0]} is missing or damaged" if record.complete else "its download was interrupted"
            return f"{folder}: {what}. To complete it: spatial-mllm download {record.hub_id}{output}"
        return ""
    if not (folder / "config.json").is_file():
        return f"{folder} holds no config.json: it is not the folder of a checkpoint"
    lacking = _shards_lacking(folder)
    return f"{folder}: {lacking[0]} is missing ({len(lacking)} in all): download or copy it again" if lacking else ""


def checkpoints() -> list[Checkpoint]:
    """What ``spatial-mllm download`` brought into its own folder, complete or not."""
    found = []
    folders = sorted(models_folder().iterdir()) if models_folder().is_dir() else []
    for folder in folders:
        if not (folder / PRIVATE).is_dir():
            continue
        problem = problem_of(folder)
        try:
            record = Record.read(folder)
        except ModelUnavailable:  # its reason is the problem
            record = None
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        found.append(Checkpoint(str(record.hub_id) if record else str(folder), folder, size, problem))
    return found


def has_random_weights(folder: Path) -> bool:
    """Whether a checkpoint says that nobody trained it (``random_weights`` in config.json)."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{folder / 'config.json'} cannot be read ({error}): download it again") from error
    return isinstance(config, dict) and bool(config.get("random_weights"))


def licence_of(model: str) -> str:
    """What is known of the licence of a model by its id; '' when nothing is."""
    return next((words for start, words in LICENCES if re.match(start, model.lower())), "")


def _raise(problem: str) -> None:
    if problem:
        raise ModelUnavailable(problem)


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _shards_lacking(folder: Path) -> list[str]:
    """Files of weights that are not there: those that the index names, else one at least."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [] if any(folder.glob("*.safetensors")) else ["model.safetensors"]
    try:
        names = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return [index.name]
    return sorted(name for name in names if not (folder / name).is_file())


def _in_hub_cache(hub_id: HubId) -> Path | None:
    """The complete snapshot in the cache of huggingface_hub, if there is one."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError:
        return None
    try:
        revision = hub_id.revision or None
        found = snapshot_download(hub_id.repo, revision=revision, local_files_only=True, allow_patterns=list(NEEDED))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    folder = Path(found)
    return None if problem_of(folder) else folder
