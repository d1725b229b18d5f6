"""spatial-mllm questions: what geometry can answer."""

from __future__ import annotations

import click
from rich.table import Table
from rich.text import Text

from spatial_mllm_ros.commands import common
from spatial_mllm_ros.queries.serialization import json_schema
from spatial_mllm_ros.query.table import built_in_table

EPILOG = """
\b
Examples:
  spatial-mllm questions
  spatial-mllm questions --json | jq '.[].examples[0]'

Wording is free within reason: every word of a question must be known. <p0>, <p1> ... stand for marked pixels, <box0>
for a box in an image, <t0> for a moment; the options --point, --box and --time of "spatial-mllm ask" give them.
"""


@click.command(name="questions", epilog=EPILOG, short_help="List the questions that geometry answers, with examples.")
@common.json_option
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a typed query instead.")
def questions_command(*, as_json: bool, schema: bool) -> None:
    """List the families of questions that geometry answers without a model, with examples of each."""
    if schema:
        common.print_json(json_schema())
        return
    families = list(built_in_table().families.values())
    if as_json:
        common.print_json(
            [
                {
                    "family": f.name,
                    "answers": f.answers,
                    "answer_type": f.answer_type.name,
                    "unit": f.unit,
                    "examples": list(f.examples),
                }
                for f in families
            ]
        )
        return
    table = Table(pad_edge=False, header_style="bold")
    table.add_column("family", no_wrap=True)
    table.add_column("answers", ratio=2)
    table.add_column("type", no_wrap=True)
    table.add_column("for example", ratio=3)
    for f in families:
        kind = f"{f.answer_type.name} {f.unit}".strip()
        table.add_row(f.name, Text(f.answers), kind, Text("\n".join(f.examples[:2])))
    common.out().print(table)
