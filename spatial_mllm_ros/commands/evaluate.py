"""spatial-mllm eval: how well geometry, a model, or blind guessing answers a benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.table import Table

from spatial_mllm_ros.commands import common
from spatial_mllm_ros.commands.models import make_model
from spatial_mllm_ros.serving.interface import PRECISIONS, ModelError, ModelOptions, ModelUnavailable, SpatialModel

NAMES = ("vsibench", "vsibench-debiased", "multispa", "sparbench", "blink", "cvbench", "scanqa", "sqa3d")
ANSWERERS = ("geometry", "model", "both", "chance", "frequency")
EPILOG = """
\b
Examples:
  spatial-mllm eval multispa --data questions --answerer geometry
  spatial-mllm eval vsibench --data VSI-Bench --answerer model --model Diankun/Spatial-MLLM-v1.1-Instruct-135K
  spatial-mllm eval multispa --data questions --answerer both --model my_checkpoint
  spatial-mllm eval cvbench --data CV-Bench --answerer frequency

--data is a local copy in the layout of the hub. Answers are kept question by question, so that an interrupted run goes on
where it stopped. The blind baselines, chance and frequency, are always beside. See docs/learning.md.
"""


@click.command(name="eval", epilog=EPILOG, short_help="Score geometry or a model on a benchmark.")
@click.argument("benchmark", type=click.Choice(NAMES))
@click.option(
    "--data", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR",
    help="The benchmark's folder.",
)  # fmt: skip
@click.option("--answerer", type=click.Choice(ANSWERERS), default="frequency", show_default=True)
@click.option("--model", metavar="CHECKPOINT", help="Of the answerers model and both.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--frames", type=click.IntRange(1, 128), default=16, show_default=True, metavar="N", help="Of a video.")
@click.option("--limit", type=click.IntRange(0), default=0, metavar="N", help="Every so many-th question, N in all.")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="DIR", help="Of the answers.  [default: eval-BENCHMARK]"
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Of chance.")
@common.json_option
def eval_command(
    *,
    benchmark: str,
    data: Path,
    answerer: str,
    model: str | None,
    precision: str,
    device: str,
    frames: int,
    limit: int,
    output: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Answer the questions of a benchmark and score them as published, each variant of the rules by its name."""
    import json

    from spatial_mllm_ros.learning.evaluation.answerers import Answerer, Both, Chance, Frequency, ModelAnswerer
    from spatial_mllm_ros.learning.evaluation.geometry import GeometryAnswerer
    from spatial_mllm_ros.learning.evaluation.picture import scores_svg
    from spatial_mllm_ros.learning.evaluation.registry import BENCHMARKS
    from spatial_mllm_ros.learning.evaluation.run import evaluate, write_results

    needs_model = answerer in ("model", "both")
    if needs_model and model is None:
        raise common.Failure(f"the answerer {answerer} needs --model CHECKPOINT")
    if answerer in ("geometry", "both") and benchmark != "multispa":
        raise common.Failure(
            f"geometry needs depth and poses, which {benchmark} does not bring: it answers multispa, on folders of "
            "'spatial-mllm data multispa'"
        )
    rules = BENCHMARKS[benchmark]
    items = rules.load(data)
    if limit and limit < len(items):
        items = [items[k * len(items) // limit] for k in range(limit)]
    folder = output or Path(f"eval-{benchmark}")
    with (
        common.task_progress(quiet=as_json) as progress,
        _model(model if needs_model else None, precision, device) as loaded,
    ):
        contestants: list[Answerer] = [Chance(items, seed), Frequency(items)]
        geometry = GeometryAnswerer(data, progress) if answerer in ("geometry", "both") else None
        asked = None if loaded is None else ModelAnswerer(loaded, frames)
        if geometry is not None and asked is not None:
            contestants.append(Both(geometry, asked))
        elif geometry is not None or asked is not None:
            contestants.append(geometry or asked)  # type: ignore[arg-type]
        try:
            outcomes = [evaluate(rules, items, contestant, folder, progress) for contestant in contestants]
        except ModelUnavailable as error:
            raise common.Failure(f"{error}; what was answered is kept in {folder}") from error
    path = write_results(
        rules, outcomes, folder, len(items), {"data": str(data), "model": model if needs_model else None}
    )
    (folder / "scores.svg").write_text(scores_svg(rules.name, outcomes, rules.variants[0]), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(json.loads(path.read_text(encoding="utf-8"))))
        return
    for variant in rules.variants:
        table = Table(f"{benchmark}: {variant}", *(o.answerer for o in outcomes), box=None, header_style="bold")
        for row in outcomes[0].figures[variant]:
            table.add_row(row, *(f"{o.figures[variant].get(row, 0.0):.1f}" for o in outcomes))
        common.out().print(table)
    for o in outcomes:
        if o.refused:
            common.say(f"{o.answerer} gave no answer: {common.counted(o.refused)}")
    click.echo(common.printable(f"{len(items)} questions; answers, results.json and scores.svg are in {folder}"))


@contextmanager
def _model(name: str | None, precision: str, device: str) -> Iterator[SpatialModel | None]:
    """Within, the model is loaded; None without a name."""
    if name is None:
        yield None
        return
    try:
        loaded = make_model(ModelOptions(name, precision=precision, device=device))
    except ModelError as error:
        raise common.Failure(str(error)) from error
    try:
        yield loaded
    finally:
        loaded.close()
