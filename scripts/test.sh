#!/usr/bin/env bash
# Builds and installs the package into .venv-test and runs the tests on it: scripts/test.sh [options of pytest]
# In CHAOS_TEST_PROCESSES processes side by side (default: 3, as many tests wait; 0, for a debugger: in this one).
set -euo pipefail
# shellcheck source=scripts/setup_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"

venv=${CHAOS_VENV_DIR:-$root/.venv-test}
# tests/test_build.py compiles the same once more
if [[ -z ${CC-} ]] && command -v ccache >/dev/null; then
    CC="ccache $("${PYTHON:-python3}" -c 'import sysconfig; print(sysconfig.get_config_var("CC") or "cc")' || echo cc)"
    export CC
    ensure_env "$venv" package test
    unset CC
else
    ensure_env "$venv" package test
fi

cd "$root"
# The installed package is tested, so nothing, not even a child process, may find chaos/ in the source tree.
unset PYTHONPATH
export PYTHONSAFEPATH=1
"$venv/bin/python" - <<'END' || stop "the tests would not see the installed package"
import importlib.util, sys, sysconfig
found, wanted = importlib.util.find_spec("chaos").origin, sysconfig.get_path("platlib")
sys.exit(None if found.startswith(wanted) else f"chaos is imported from {found}, not from {wanted}")
END
exec "$venv/bin/python" -m pytest -n "${CHAOS_TEST_PROCESSES:-3}" --dist loadscope --no-loadscope-reorder "$@"
