"""Checkpoints from a hub: whole, resumed, checked, offline afterwards; every refusal says what to do."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hub_server import COMMIT, LARGE, REPO, HubServer

from spatial_mllm_ros.cli import main
from spatial_mllm_ros.models.onnx.engine_cache import default_folder
from spatial_mllm_ros.serving.checkpoints import hub as hub_folders
from spatial_mllm_ros.serving.checkpoints.hub import (
    HubId,
    Record,
    checkpoints,
    folder_of,
    licence_of,
    problem_of,
    resolve_model,
)
from spatial_mllm_ros.serving.interface import ModelUnavailable

if importlib.util.find_spec("huggingface_hub") is None:
    pytest.skip("huggingface_hub is not installed (extra: model)", allow_module_level=True)

SHARD = "model-00001-of-00002.safetensors"


def some_bytes(seed: int, count: int) -> bytes:
    return random.Random(seed).randbytes(count)


def some_files() -> dict[str, bytes]:
    shards = {SHARD: some_bytes(1, 3_000_000), "model-00002-of-00002.safetensors": some_bytes(2, LARGE + 1)}
    index = {"weight_map": {"a": SHARD, "b": "model-00002-of-00002.safetensors"}}
    return {
        **shards,
        "model.safetensors.index.json": json.dumps(index).encode(),
        "config.json": b'{"model_type": "qwen2_5_vl"}',
        "tokenizer.json": b"{}",
        "special_tokens_map.json": b"{}",  # as large as another file, with the same content
        "merges.txt": b"",
        "LICENSE": b"as you like",
    }


NOT_NEEDED = {"pytorch_model.bin": b"x" * 100, "onnx/model.safetensors": b"y" * 100, ".gitattributes": b"z"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and a login of the test's own, and no waiting between attempts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr("spatial_mllm_ros.serving.checkpoints.download.PAUSES_S", (0.0, 0.0))
    return tmp_path / "cache"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(some_files() | NOT_NEEDED) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def download(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["download", *arguments])
    assert result.exit_code == code, f"{result.exit_code}: {result.output}\n{result.exception!r}"
    return result


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_all_that_loading_needs_and_nothing_else(hub: HubServer, own_cache: Path) -> None:
    result = download(REPO)
    folder = own_cache / "spatial_mllm_ros" / "models" / "someone--a-model"
    assert content(folder) == some_files()
    assert {p.name for p in (folder / hub_folders.PRIVATE).iterdir()} <= {"record.json", "lock"}
    assert resolve_model(REPO) == folder
    assert "3.0 MB" in result.stderr, "its size is shown before"
    for words in ("apache-2.0", f"--model {REPO}", f"model:={REPO}"):
        assert words in result.stdout
    (found,) = checkpoints()
    assert (found.model, found.problem) == (REPO, "")


def test_the_second_run_asks_no_network(hub: HubServer) -> None:
    download(REPO)
    hub.forget()
    result = download(REPO)
    assert hub.requests == []
    assert "complete already" in result.stderr
    assert str(folder_of(HubId(REPO))) in result.stderr
    line = json.loads(download(REPO, "--json").stdout)
    assert line == {
        "model": REPO,
        "folder": str(folder_of(HubId(REPO))),
        "commit": COMMIT,
        "bytes": sum(map(len, some_files().values())),
    }


@pytest.mark.parametrize("first_part", [0, 1, 1_234_567])
def test_a_download_that_broke_off_goes_on_where_it_was(hub: HubServer, first_part: int) -> None:
    """The library would drop what has come; here only the rest is fetched."""
    hub.break_after = {SHARD: [first_part, 0, 0, 0]}
    result = download(REPO, code=2)
    assert "cannot be reached" in result.stderr
    with pytest.raises(ModelUnavailable, match=f"interrupted.*spatial-mllm download {REPO}"):
        resolve_model(REPO)
    hub.forget()
    result = download(REPO)
    assert content(folder_of(HubId(REPO))) == some_files()
    assert hub.sent[SHARD] == 3_000_000 - first_part


def test_connections_that_break_are_made_anew(hub: HubServer) -> None:
    """As long as each brings something, however many it takes."""
    hub.break_after = {SHARD: [100_000] * 25}
    download(REPO)
    assert content(folder_of(HubId(REPO))) == some_files()
    assert sum(hub.sent.values()) == sum(map(len, some_files().values()))


def test_a_server_that_ignores_ranges_sends_all_again(hub: HubServer) -> None:
    hub.break_after = {SHARD: [1_000_000]}
    hub.ignore_ranges = True
    download(REPO)
    assert content(folder_of(HubId(REPO))) == some_files()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT of another process")
def test_control_c_keeps_what_has_come(hub: HubServer, own_cache: Path) -> None:
    import threading

    hub.hold = threading.Event()
    # SIGINT is ignored from the start where the tests run in the background.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from spatial_mllm_ros.cli import main; main()"
    )
    program = [sys.executable, "-c", code, "download", REPO]
    running = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert hub.half_way.wait(20), running.communicate()
    part = folder_of(HubId(REPO)) / hub_folders.PRIVATE
    until = time.monotonic() + 10
    while sum(p.stat().st_size for p in part.glob("*.part")) < 1_000_000 and time.monotonic() < until:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):  # the signal first, then the rest of the file
        running.wait(5)
    hub.hold.set()
    _, said = running.communicate(timeout=20)
    assert running.returncode == 130, said
    assert "goes on from there" in said
    assert "Traceback" not in said
    hub.hold = None
    hub.forget()
    download(REPO)
    assert content(folder_of(HubId(REPO))) == some_files()
    assert hub.sent[SHARD] < 2_100_000


def test_files_are_checked_when_they_come(hub: HubServer) -> None:
    hub.damaged = {SHARD}
    result = download(REPO, code=2)
    assert f"{SHARD} arrived damaged" in result.stderr
    assert not (folder_of(HubId(REPO)) / SHARD).exists()
    hub.damaged.clear()
    download(REPO)
    assert content(folder_of(HubId(REPO))) == some_files()


def test_a_damaged_part_is_not_built_upon(hub: HubServer) -> None:
    hub.break_after = {SHARD: [1_000_000, 0, 0, 0]}
    download(REPO, code=2)
    (part,) = (p for p in (folder_of(HubId(REPO)) / hub_folders.PRIVATE).glob(f"{SHARD}*.part"))
    part.write_bytes(b"\0" * part.stat().st_size)
    download(REPO)
    assert content(folder_of(HubId(REPO))) == some_files()


@pytest.mark.parametrize("harm", ["truncated", "missing"])
def test_a_file_that_was_harmed_later_is_noticed_and_replaced(hub: HubServer, harm: str) -> None:
    download(REPO)
    shard = folder_of(HubId(REPO)) / SHARD
    if harm == "missing":
        shard.unlink()
    else:
        os.truncate(shard, 5)
    with pytest.raises(ModelUnavailable, match=f"{SHARD} is missing or damaged.*spatial-mllm download"):
        resolve_model(REPO)
    hub.forget()
    download(REPO)
    assert content(folder_of(HubId(REPO))) == some_files()
    assert set(hub.sent) == {SHARD}, "the others are left as they are"


def test_update_gets_what_has_changed(hub: HubServer) -> None:
    download(REPO)
    hub.commit = COMMIT[::-1]
    hub.files["tokenizer.json"] = b"[]"
    del hub.files["LICENSE"]
    hub.forget()
    assert "complete already" in download(REPO).stderr
    download(REPO, "--update")
    assert set(hub.sent) == {"tokenizer.json"}
    assert content(folder_of(HubId(REPO))) == {k: v for k, v in hub.files.items() if k not in NOT_NEEDED}
    record = Record.read(folder_of(HubId(REPO)))
    assert record is not None
    assert record.commit == hub.commit


def test_a_folder_of_ones_own(hub: HubServer, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    result = download(REPO, "--output", str(folder))
    assert f"--model {folder}" in result.stdout.replace("\n", "")
    assert resolve_model(str(folder)) == folder
    with pytest.raises(ModelUnavailable, match=f"spatial-mllm download {REPO}"):
        resolve_model(REPO)
    os.truncate(folder / SHARD, 5)
    with pytest.raises(ModelUnavailable, match=f"download {REPO} --output {folder}"):
        resolve_model(str(folder))
    assert "holds someone/a-model" in download("other/model", "--output", str(folder), code=2).stderr


def test_what_was_copied_there_is_taken(hub: HubServer, tmp_path: Path) -> None:
    """For machines without a network, or with a slow one."""
    folder = tmp_path / "copied"
    folder.mkdir()
    (folder / SHARD).write_bytes(some_files()[SHARD])
    download(REPO, "--output", str(folder))
    assert SHARD not in hub.sent
    assert content(folder) == some_files()


def test_files_of_others_are_not_overwritten(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    for _ in range(2):
        assert "config.json is another file already" in download(REPO, "--output", str(tmp_path), code=2).stderr
    assert (tmp_path / "config.json").read_text() == "mine"


def test_a_revision_has_a_folder_of_its_own(hub: HubServer) -> None:
    download(REPO, "--revision", "v1")
    assert resolve_model(f"{REPO}@v1") == folder_of(HubId(REPO, "v1"))
    with pytest.raises(ModelUnavailable):
        resolve_model(REPO)
    assert "no revision 'v9'" in download(REPO, "--revision", "v9", code=2).stderr


def test_gated_says_where_to_accept(hub: HubServer) -> None:
    hub.accepted = False
    said = download(REPO, code=2).stderr
    assert f"accept it on {hub.url}/{REPO}" in said
    assert "hf auth login" in said


def test_tokens(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_right"
    assert "it is private: then log in" in download(REPO, code=2).stderr
    assert "wrong or has expired" in download(REPO, "--token", "hf_wrong", code=2).stderr
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    download(REPO)
    assert not hub.token_told, "no other host learns the token"


@pytest.mark.parametrize(
    ("status", "words"),
    [(429, "too many requests"), (503, "try again later"), (403, "does not let this token"), (451, "451")],
)
def test_refusals(hub: HubServer, status: int, words: str) -> None:
    hub.status = status
    assert words in download(REPO, code=2).stderr


def test_a_file_that_is_gone(hub: HubServer) -> None:
    hub.gone = {"tokenizer.json"}
    assert "is gone" in download(REPO, code=2).stderr


@pytest.mark.parametrize("model", ["someone", "a/b/c", "../x", "a b/c", "/etc", "", "-/x"])
def test_what_is_no_id(model: str) -> None:
    assert "is not an id" in download("--", model, code=2).stderr


def test_unknown_models_and_no_checkpoints(hub: HubServer) -> None:
    assert "has no model some/other: check the spelling" in download("some/other", code=2).stderr
    assert "not an id that" in download("some--one/other..", code=2).stderr
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b""}
    assert "no *.safetensors" in download(REPO, code=2).stderr
    hub.unsized = True
    hub.files = some_files()
    assert "does not say how large" in download(REPO, code=2).stderr


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said = download(REPO, code=2).stderr
    assert "127.0.0.1:9 cannot be reached" in said
    assert "HF_ENDPOINT" in said


def test_offline_by_choice(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in download(REPO, code=2).stderr


def test_full_disks(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=2_000_000)
    with monkeypatch.context() as little:
        little.setattr("spatial_mllm_ros.serving.checkpoints.download.shutil.disk_usage", lambda path: usage)
        assert "make room" in download(REPO, code=2).stderr
    assert set(hub.sent) == set(), "found out before anything is fetched"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spatial_mllm_ros.serving.checkpoints.download._Transfer._connect", full)
    assert "the disk is full" in download(REPO, code=2).stderr


def test_without_the_extra(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'spatial_mllm_ros[model]'" in download(REPO, code=2).stderr


def test_resolving_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="neither a folder on this machine nor"):
        resolve_model(str(tmp_path / "nowhere"))
    with pytest.raises(ModelUnavailable, match=r"no config\.json"):
        resolve_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert "model.safetensors is missing" in problem_of(tmp_path)
    for name, data in some_files().items():
        (tmp_path / name).write_bytes(data)
    assert resolve_model(str(tmp_path)) == tmp_path
    (tmp_path / SHARD).unlink()
    assert f"{SHARD} is missing" in problem_of(tmp_path)


def test_the_cache_of_the_library_is_found(hub: HubServer, tmp_path: Path) -> None:
    """Who has loaded the model by other means need not download it again."""
    repo = tmp_path / "hf" / "models--someone--a-model"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    (snapshot / "config.json").write_text("{}")
    with pytest.raises(ModelUnavailable):
        resolve_model(REPO)
    (snapshot / "model.safetensors").write_bytes(b"0")
    assert resolve_model(REPO) == snapshot
    assert "complete already" in download(REPO).stderr
    assert hub.requests == []


def test_two_at_a_time(hub: HubServer) -> None:
    from huggingface_hub.utils import WeakFileLock

    private = folder_of(HubId(REPO)) / hub_folders.PRIVATE
    private.mkdir(parents=True)
    with WeakFileLock(private / "lock"):
        assert "another download" in download(REPO, code=2).stderr


def test_a_damaged_record(hub: HubServer) -> None:
    download(REPO)
    (folder_of(HubId(REPO)) / hub_folders.PRIVATE / "record.json").write_text("[")
    assert "is damaged" in download(REPO, code=2).stderr
    assert "is damaged" in checkpoints()[0].problem


def test_licences() -> None:
    assert "non-commercial" in licence_of("Diankun/Spatial-MLLM-v1.1-Instruct-135K")
    assert "non-commercial" in licence_of("Qwen/Qwen2.5-VL-3B-Instruct")
    assert licence_of("Qwen/Qwen2.5-VL-7B-Instruct") == "Apache-2.0"
    assert licence_of("someone/else") == ""


@pytest.mark.parametrize(
    ("cache", "used"), [("/var/cache", "/var/cache"), ("", "/home/me/.cache"), ("cache", "/home/me/.cache")]
)
def test_all_of_the_package_has_one_cache_folder(cache: str, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative XDG_CACHE_HOME does not count, as its specification says: it would be another one in every folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setenv("HOME", "/home/me")
    assert str(hub_folders.models_folder()) == f"{used}/spatial_mllm_ros/models"
    assert str(default_folder()) == f"{used}/spatial_mllm_ros/engines"
