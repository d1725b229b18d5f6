"""spatial-mllm explain: how a question is read, without answering it."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from typing import Any

import click
from rich.text import Text
from rich.tree import Tree

from spatial_mllm_ros.commands import common
from spatial_mllm_ros.commands.asking import own_words_option
from spatial_mllm_ros.language.own_words import OwnWords
from spatial_mllm_ros.language.tokens import marks_in
from spatial_mllm_ros.queries.query import Query
from spatial_mllm_ros.queries.serialization import to_json
from spatial_mllm_ros.queries.term import Term

EPILOG = """
\b
Examples:
  spatial-mllm explain "How far is <p0> from <p1>, in feet?"
  spatial-mllm explain "Is <p0> within 80 cm of the table?" --json | jq .query
  spatial-mllm explain "Where is the droid?" --own-words words.yaml

The request is taken to have the marks that the question names.
"""


@click.command(
    name="explain", epilog=EPILOG, short_help="Show how a question is read: its parts, alternatives, remarks."
)
@click.argument("question")
@own_words_option
@common.json_option
def explain_command(*, question: str, own_words: OwnWords, as_json: bool) -> None:
    """Show what a question is read as, the parts of its query as a tree, and what else it can mean."""
    reading = own_words.read(question, **marks_in(question))
    if as_json:
        common.print_json(
            {
                "query": None if reading.query is None else to_json(reading.query),
                "queries": [to_json(query) for query in reading.queries],
                "read_as": reading.read_as,
                "alternatives": [{"read_as": a.words, "query": to_json(a.query)} for a in reading.alternatives],
                "remarks": list(reading.remarks),
                "code": reading.code.name,
                "reason": reading.reason,
                "free_form": reading.free_form,
            }
        )
        return
    console = common.out()
    if reading.query is not None:
        console.print(Text(reading.read_as or "(there is no plain sentence for it)", style="bold"))
        console.print(query_tree(reading.query))
    else:
        console.print(Text(f"{reading.code.name}: {reading.reason}", style="bold"))
    for remark in reading.remarks:
        console.print(Text(f"remark: {remark}"))
    if reading.alternatives:
        console.print(Text("What could be asked:" if reading.query is None else "It could also mean:"))
    for alternative in reading.alternatives:
        console.print(Text(f"  {alternative.words}"))
    if reading.free_form:
        console.print(Text("A model may answer it."))


def query_tree(query: Query) -> Tree:
    """The parts of a query, those at their defaults left out."""
    tree = Tree(Text("query"))
    _grow(tree, query)
    return tree


def _grow(tree: Tree, term: Term) -> None:
    for field in fields(term):
        value: Any = getattr(term, field.name)
        if value == field.default:
            continue
        for one in value if isinstance(value, tuple) else (value,):
            said = one.type_name if isinstance(one, Term) else one.value if isinstance(one, Enum) else one
            branch = tree.add(Text(f"{field.name}: {said}"))
            if isinstance(one, Term):
                _grow(branch, one)
