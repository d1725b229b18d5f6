#!/usr/bin/env bash
# Builds the ROS 2 package with colcon and runs test/ros in it: scripts/test_ros.sh [arguments of pytest]
# Uses the ROS 2 that is sourced, or else one of /opt/ros; does nothing where there is none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh

use() { # sources the set-up of a ROS 2, which needs unset variables to be empty
  set +u
  source "$1"
  set -u
}

if ! compgen -G "test/ros/test_*.py" >/dev/null; then
  say "There are no tests of the ROS 2 package in test/ros"
  exit
fi
if [[ -z ${AMENT_PREFIX_PATH:-} ]]; then
  setups=(/opt/ros/*/setup.bash)
  if [[ ! -e ${setups[-1]} ]]; then
    say "The tests of the ROS 2 package are skipped: no ROS 2 is sourced, nor in /opt/ros"
    exit
  fi
  say "Using ${setups[-1]}"
  use "${setups[-1]}"
fi
if ! command -v colcon >/dev/null; then
  say "The tests of the ROS 2 package are skipped: no colcon (sudo apt install python3-colcon-common-extensions)"
  exit
fi

build=build/ros
say "Building the ROS 2 package with colcon in $build"
colcon --log-base $build/log build --paths . --build-base $build/build --install-base $build/install \
  --symlink-install --cmake-args -DBUILD_TESTING=OFF
use $build/install/local_setup.bash

# What ROS 2 does not bring comes from pip, beside ROS 2's own Python packages; numpy stays the one they were built with.
folder=.venv-ros
wanted=$(echo "$PWD" && python3 --version && cat pyproject.toml setup.py)
if [[ $wanted != "$(cat $folder/spatial_mllm_ros.installed 2>/dev/null)" ]]; then
  say "Making a virtual environment beside ROS 2 in $folder"
  python3 -m venv --clear $folder || complain "on Debian and Ubuntu: sudo apt install python3-venv"
  python3 -c 'import site; print("\n".join(site.getsitepackages()))' \
    >"$($folder/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ros.pth"
  python3 -c 'import numpy; print(f"numpy=={numpy.__version__}")' >$folder/constraints.txt
  $folder/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]' \
    --constraint $folder/constraints.txt || complain "installing failed; pip says why above. It needs a connection to PyPI."
  echo "$wanted" >$folder/spatial_mllm_ros.installed
fi
say "pytest test/ros"
cd test/ros # Python looks into the working directory first: not into the checkout, but into what is installed
../../$folder/bin/python -m pytest . "$@"
