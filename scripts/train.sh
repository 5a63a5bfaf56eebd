#!/usr/bin/env bash
# Sets everything up in .venv and trains: scripts/train.sh [MODEL] [options of 'chaos train']
# Without arguments it trains the model 'small' on MNIST with as many workers as there are cores.
set -euo pipefail
# shellcheck source=scripts/setup_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"

venv=${CHAOS_VENV_DIR:-$root/.venv}
ensure_env "$venv" editable progress # kept small, so that the first run starts soon

model=(small)
defaults=(--epochs 8 --lr 0.01)
if [[ $# -gt 0 && $1 != -* ]]; then
    model=("$1")
    shift
elif [[ " $* " == *" --resume "* ]]; then
    model=()
fi
if [[ " $* " == *" --resume "* ]]; then
    defaults=() # a run that is continued has its own settings
fi
# The defaults come first: argparse lets the last one win.
exec "$venv/bin/chaos" train "${model[@]}" "${defaults[@]}" "$@"
