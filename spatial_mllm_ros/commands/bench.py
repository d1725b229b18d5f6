"""spatial-mllm bench: measurements that back what the documentation says."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table
from rich.text import Text

from spatial_mllm_ros.commands import common

EPILOG = """
\b
Examples:
  spatial-mllm bench selection --quick
  spatial-mllm bench selection --json > selection.json
  spatial-mllm bench selection --source my_recording
"""


@click.group(name="bench", epilog=EPILOG, short_help="Measure this package on this machine.")
def bench_group() -> None:
    """Measure this package on this machine."""


@bench_group.command(name="selection", epilog=EPILOG)
@common.json_option
@click.option("--quick", is_flag=True, help="A shorter run, for a first impression.")
@click.option("--source", "sources", multiple=True, metavar="SOURCE", help="Judge the selector on this recording too.")
def selection_command(*, as_json: bool, quick: bool, sources: tuple[str, ...]) -> None:
    """Compare selection with what is published, and streaming with greedy over all frames: coverage, time and memory.

    Takes about five minutes, with --quick one.
    """
    from spatial_mllm_ros.bench import selection

    with common.task_progress(quiet=as_json) as progress:
        result: dict[str, Any] = selection.run(quick, sources, progress)
    print_result(result, as_json)


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """A benchmark's result: JSON, or every list of rows as a table and the rest as lines."""
    if as_json:
        common.print_json(result)
        return
    console = common.out()
    for name, value in result.items():
        rows = value if isinstance(value, list) else None
        if rows and all(isinstance(row, dict) for row in rows):
            table = Table(title=name, pad_edge=False, header_style="bold", title_justify="left")
            for column in rows[0]:
                table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
            for row in rows:
                table.add_row(*(Text(_cell(row.get(column))) for column in rows[0]))
            console.print(table)
        elif isinstance(value, dict):
            for key, item in value.items():
                console.print(Text(f"{name} {key}: {_cell(item)}"))
        else:
            console.print(Text(f"{name}: {_cell(value)}"))


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
