"""The command line: spatial-mllm."""

from __future__ import annotations

import click

from spatial_mllm_ros import __version__
from spatial_mllm_ros.commands.ask import ask_command
from spatial_mllm_ros.commands.bench import bench_group
from spatial_mllm_ros.commands.call import call_command
from spatial_mllm_ros.commands.common import Group
from spatial_mllm_ros.commands.convert import convert_command
from spatial_mllm_ros.commands.data import data_group
from spatial_mllm_ros.commands.demo import demo_command
from spatial_mllm_ros.commands.doctor import doctor_command
from spatial_mllm_ros.commands.download import download_command
from spatial_mllm_ros.commands.evaluate import eval_command
from spatial_mllm_ros.commands.explain import explain_command
from spatial_mllm_ros.commands.export import export_group
from spatial_mllm_ros.commands.play import play_command
from spatial_mllm_ros.commands.questions import questions_command
from spatial_mllm_ros.commands.render import render_command
from spatial_mllm_ros.commands.replay import replay_command
from spatial_mllm_ros.commands.up import up_command

EPILOG = """
\b
Start here:
  spatial-mllm demo                                   ask ten questions while a simulated robot walks
  spatial-mllm ask rendered "How high is the ceiling?"
  spatial-mllm replay path/to/recording --report out
  spatial-mllm doctor                                 what is installed, what is missing
"""


@click.group(cls=Group, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="spatial-mllm")
def main() -> None:
    """Ask a robot about the space it has seen; get a typed, metric answer with its evidence."""


for command in (
    demo_command,
    ask_command,
    replay_command,
    questions_command,
    explain_command,
    render_command,
    convert_command,
    up_command,
    play_command,
    call_command,
    data_group,
    eval_command,
    bench_group,
    download_command,
    export_group,
    doctor_command,
):
    main.add_command(command)

if __name__ == "__main__":
    main()
