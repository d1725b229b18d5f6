#!/usr/bin/env bash
# Sets up what the demonstration needs, in .venv, and runs it: ./demo.sh [arguments of spatial-mllm demo]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/environment.sh

environment .venv dds
say "Running spatial-mllm demo $*"
exec .venv/bin/spatial-mllm demo "$@"
