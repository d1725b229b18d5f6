# Sourced by demo.sh and test.sh: a virtual environment that has this package and what it needs.

say() { printf '==> %s\n' "$*"; }

complain() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Prints the newest Python here that can make virtual environments. PYTHON chooses another.
find_python() {
  local python version without_venv=
  for python in ${PYTHON:-python3.13 python3.12 python3.11 python3.10 python3 python}; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || continue
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
      echo "$python"
      return
    fi
    without_venv=${without_venv:-$python}
  done
  if [[ -n $without_venv ]]; then
    version=$("$without_venv" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    complain "$version is here, but cannot make virtual environments. On Debian and Ubuntu: sudo apt install $version-venv"
  fi
  complain "Python 3.10 or newer is needed${PYTHON:+, and $PYTHON is not that}. Install it, or say where it is:" \
    "PYTHON=/path/to/python3 $0"
}

# environment FOLDER [EXTRAS]: a virtual environment in FOLDER with this package, editable, and its EXTRAS.
# Does nothing where a former call has done it.
environment() {
  local folder=$1 extras=${2:-} python wanted
  unset PYTHONPATH PYTHONHOME # of a sourced ROS 2, whose packages are made for another Python
  if ! "$folder/bin/python" -c 'import pip' 2>/dev/null; then
    python=$(find_python)
    say "Making a virtual environment in $folder with $("$python" --version)"
    "$python" -m venv --clear "$folder"
  fi
  python=$folder/bin/python
  wanted=$(echo "$PWD [$extras]" && "$python" --version && cat pyproject.toml setup.py constraints.txt)
  if [[ $wanted != "$(cat "$folder/spatial_mllm_ros.installed" 2>/dev/null)" ]]; then
    say "Installing into $folder (about a minute the first time)"
    "$python" -m pip install --quiet --disable-pip-version-check --editable ".${extras:+[$extras]}" \
      --constraint constraints.txt || complain "installing failed; pip says why above. It needs a connection to PyPI."
    echo "$wanted" >"$folder/spatial_mllm_ros.installed"
  fi
}
