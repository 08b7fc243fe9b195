#!/usr/bin/env bash
# Makes a second virtual environment with the oldest Pydantic AI that pyproject.toml allows, and what its tests need.
set -euo pipefail
oldest=$(sed -n 's/.*"pydantic-ai-slim>=\([0-9.]*\),.*/\1/p' pyproject.toml | head -1)
packages=(-e . "pydantic-ai-slim==${oldest}" hypothesis pytest pytest-asyncio pytest-xdist)
if command -v uv >/dev/null 2>&1; then
    [ -d "${VENV}" ] || uv venv --quiet --python "${PYTHON}" "${VENV}"
    uv pip install --quiet --python "${VENV}/bin/python" "${packages[@]}"
else
    [ -d "${VENV}" ] || "${PYTHON}" -m venv "${VENV}"
    "${VENV}/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
fi
