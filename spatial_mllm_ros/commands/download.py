"""spatial-mllm download: checkpoints from the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from spatial_mllm_ros.commands import common
from spatial_mllm_ros.commands.models import gigabytes
from spatial_mllm_ros.serving.checkpoints.download import DownloadError, fetch, free_bytes, look_up, remaining
from spatial_mllm_ros.serving.checkpoints.hub import HubId, Record, folder_of, licence_of, resolve_model
from spatial_mllm_ros.serving.interface import ModelUnavailable

EPILOG = """
\b
Examples:
  spatial-mllm download Diankun/Spatial-MLLM-v1.1-Instruct-135K
  spatial-mllm download Qwen/Qwen2.5-VL-7B-Instruct --output /data/models/qwen
  spatial-mllm download Diankun/Spatial-MLLM-v1.1-Instruct-135K --update

Afterwards the id means the downloaded folder wherever a model is named, and no network is needed. Interrupted, it goes
on where it was when it is run again. HF_TOKEN or `hf auth login` gives a token, HF_ENDPOINT names a mirror. Which model
for which machine: docs/models.md.

Exit code: 0 when the checkpoint is complete, 2 when it is not, 130 after Ctrl-C.
"""


class Interrupted(common.Failure):
    """By Ctrl-C: exit code 130."""

    exit_code = 130


@click.command(name="download", epilog=EPILOG, short_help="Get a model's checkpoint from the hub, for use offline.")
@click.argument("model", metavar="ID")
@click.option(
    "--output",
    "output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The folder (default: one of its id in ~/.cache/spatial_mllm_ros/models, where the id alone finds it).",
)
@click.option("--revision", default="", metavar="R", help="Branch, tag or commit; afterwards the model is ID@R.")
@click.option("--token", metavar="TOKEN", help="Access token (default: HF_TOKEN, or that of hf auth login).")
@click.option("--update", is_flag=True, help="Ask whether there is a newer version, and get what has changed.")
@common.json_option
def download_command(
    *, model: str, output: Path | None, revision: str, token: str | None, update: bool, as_json: bool
) -> None:
    """Get what loading the model ID (OWNER/NAME) needs: weights as safetensors, configuration, tokenizer, licences.

    What is complete already is left as it is, without asking the network. Every file is checked against the digest that
    the hub states.
    """
    hub_id = HubId.parse(f"{model}@{revision}" if revision else model)
    if hub_id is None:
        raise click.UsageError(
            f"{common.printable(model)!r} is not an id: give OWNER/NAME, for example "
            "Diankun/Spatial-MLLM-v1.1-Instruct-135K"
        )
    folder = (output or folder_of(hub_id)).expanduser()
    try:
        there = None if update else _already(hub_id, folder, output is not None)
        if there is not None:
            common.say(f"{hub_id} is complete already, in {there}; the network was not asked (--update asks it)")
            _finish(hub_id, there, Record.read(there), as_json)
            return
        record = look_up(hub_id, token)
        still = remaining(record, folder)
        common.say(
            f"{hub_id}, commit {record.commit[:8] or 'unknown'}: {len(record.files)} files, {gigabytes(record.size)}, of "
            f"which {gigabytes(still)} are still to come; {gigabytes(free_bytes(folder))} free at {folder}"
        )
        with _bytes_bar(record.size, as_json) as advance:
            record = fetch(record, folder, token, advance)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted: what has come is kept in {folder}, and the same command goes on from there"
        ) from None
    except (DownloadError, ModelUnavailable) as error:
        raise common.Failure(common.printable(str(error))) from error
    _finish(hub_id, folder, record, as_json)


def _already(hub_id: HubId, folder: Path, chosen: bool) -> Path | None:
    """Where the model is complete: in the folder that the user chose, else in any that its id finds."""
    record = Record.read(folder) if folder.is_dir() else None
    if record is not None and record.hub_id != hub_id:
        raise DownloadError(f"{folder} holds {record.hub_id}: choose another folder with --output, or delete it")
    try:
        return resolve_model(str(folder if chosen else hub_id)) if record is not None or not chosen else None
    except ModelUnavailable:  # it is not there, or not complete: that is what downloading is for
        return None


def _finish(hub_id: HubId, folder: Path, record: Record | None, as_json: bool) -> None:
    """Where it is, under which licence, and what to do with it."""
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    by_id = folder == folder_of(hub_id)
    if as_json:
        commit = record.commit if record is not None else ""
        common.print_json({"model": str(hub_id), "folder": str(folder), "commit": commit, "bytes": size})
        return
    name = str(hub_id) if by_id else str(folder)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    stated = f"the hub says: {record.licence}" if record is not None and record.licence else ""
    licence = "; ".join(filter(None, (licence_of(hub_id.repo), stated))) or "read its page on the hub"
    for title, words in (
        ("folder", str(folder)),
        ("size", gigabytes(size)),
        ("licence", licence),
        ("next", f'spatial-mllm ask rendered "What is in this room?" --model {name}'),
        ("", f"ros2 launch spatial_mllm_ros bringup.launch.py model:={name}"),
        ("", "spatial-mllm doctor   says whether it fits this machine"),
    ):
        table.add_row(title, Text(common.printable(words)))
    common.out().print(table)


@contextmanager
def _bytes_bar(total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar of bytes on stderr, only on a terminal; yields ``advance(count)``."""
    console = common.err()
    columns: tuple[ProgressColumn, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("downloading", total=total)

        def advance(count: int) -> None:
            bar.advance(task, count)

        yield advance
