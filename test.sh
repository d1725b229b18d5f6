#!/usr/bin/env bash
# Sets up what the tests need, in .venv-test or in the virtual environment that is active, and runs them:
# ./test.sh [arguments of pytest]
# WITHOUT_MODEL=1 ./test.sh does without PyTorch, by far the largest download; the tests of the models are then skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/environment.sh

folder=${VIRTUAL_ENV:-.venv-test}
if [[ -n ${AMENT_PREFIX_PATH:-} ]]; then
  folder=.venv-test # the active one is that of a sourced ROS 2: leave it as it is
fi

(
  extras=test,lint,onnx,int4
  [[ -z ${WITHOUT_MODEL:-} ]] || extras=test,lint
  environment "$folder" "$extras"
  checks=$(mktemp -d)
  trap 'rm -rf "$checks"' EXIT
  check() { # NAME MODULE [ARGUMENTS]: beside the tests, and told after them whatever these say
    local name=$1
    shift
    { "$folder/bin/python" -m "$@" >"$checks/$name" 2>&1 && touch "$checks/$name.passed"; } &
  }
  names=(ruff)
  check ruff ruff check
  if "$folder/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    names+=(mypy)
    check mypy mypy
  else
    say "mypy is skipped: it needs the types of a numpy that Python 3.10 does not have"
  fi
  say "pytest"
  failed=
  "$folder/bin/python" -m pytest --numprocesses auto --dist loadfile "$@" || failed=" pytest"
  wait || true
  for name in "${names[@]}"; do
    say "$name"
    cat "$checks/$name"
    [[ -e $checks/$name.passed ]] || failed+=" $name"
  done
  [[ -z $failed ]] || complain "failed:$failed"
)
scripts/test_ros.sh
say "All tests passed"
