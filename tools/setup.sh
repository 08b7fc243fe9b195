#!/usr/bin/env bash
# Makes the virtual environment and installs the package in it, with uv where it is present, else with venv and pip.
set -euo pipefail
if [ -z "${PYTHON}" ]; then
    echo "Surefoot needs Python 3.11 or newer, and none was found. Try: make PYTHON=/path/to/python3.12" >&2
    exit 1
fi
if command -v uv >/dev/null 2>&1; then
    [ -d "${VENV}" ] || uv venv --quiet --python "${PYTHON}" "${VENV}"
    uv pip install --quiet --python "${VENV}/bin/python" -e '.[dev]'
    uv pip install --quiet --python "${VENV}/bin/python" --no-deps -r tools/requirements-worlds.txt
else
    [ -d "${VENV}" ] || "${PYTHON}" -m venv "${VENV}"
    "${VENV}/bin/pip" install --quiet --disable-pip-version-check -e '.[dev]'
    # AgentDojo's worlds are what our tests need of it; its own requirements are the SDKs of six model providers.
    "${VENV}/bin/pip" install --quiet --disable-pip-version-check --no-deps -r tools/requirements-worlds.txt
fi
