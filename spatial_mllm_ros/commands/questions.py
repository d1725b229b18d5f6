"""spatial-mllm questions: what geometry can answer."""

from __future__ import annotations

import dataclasses

import click
from rich.table import Table
from rich.text import Text

from spatial_mllm_ros.answering.catalogue import kinds
from spatial_mllm_ros.commands import common
from spatial_mllm_ros.queries.serialization import json_schema

EPILOG = """
\b
Examples:
  spatial-mllm questions
  spatial-mllm questions --json | jq '.[].example'

Wording is free within reason; the examples are in canonical words, and "spatial-mllm explain" shows how others are
read. <p0>, <p1> ... stand for marked pixels, <box0> for a box in an image, <t0> for a moment; the options --point, --box
and --time of "spatial-mllm ask" give them.
"""


@click.command(name="questions", epilog=EPILOG, short_help="List the questions that geometry answers, with examples.")
@common.json_option
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a typed query instead.")
def questions_command(*, as_json: bool, schema: bool) -> None:
    """List the kinds of questions that geometry answers without a model, with an example of each; --json: all kinds."""
    if schema:
        common.print_json(json_schema())
        return
    if as_json:
        common.print_json([dataclasses.asdict(kind) for kind in kinds()])
        return
    table = Table(pad_edge=False, header_style="bold")
    table.add_column("query", no_wrap=True)
    table.add_column("what it is", ratio=2)
    table.add_column("answer", no_wrap=True)
    table.add_column("for example", ratio=3)
    for kind in kinds():
        if not kind.needs:
            answer = f"{kind.answer_type} {kind.unit}".strip()
            table.add_row(kind.name, Text(kind.answers), answer, Text(kind.example))
    common.out().print(table)
