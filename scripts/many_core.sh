#!/usr/bin/env bash
# How chaos scales on this machine, in about ten minutes: scripts/many_core.sh [--quick] [options of scripts/many_core.py]
# Sets everything up in .venv-many-core, measures strategies, numbers of workers and placements beside their predictions, and leaves
# many_core/many_core.json and many_core/many_core.html. Any Linux machine; made for 8 to 256 cores.
set -euo pipefail
# shellcheck source=scripts/setup_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"

venv=${CHAOS_VENV_DIR:-$root/.venv-many-core}
ensure_env "$venv" editable plot
exec "$venv/bin/python" "$root/scripts/many_core.py" "$@"
