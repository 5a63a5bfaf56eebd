#!/usr/bin/env bash
# What takes too long for every change: scripts/nightly.sh [folder of the results, by default docs/nightly]
# All tests, the long statistical ones and the sanitizers in full among them, soak runs, the fuzzing of readers, and faults
# that are planted. Goes on after a failure; exit status 1 if anything failed. Some hours on two cores.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
out=$(realpath -m "${1:-docs/nightly}")
mkdir -p "$out"
failed=()

# step NAME COMMAND... : its output goes to a log, which is not kept where all is well
step() {
    local name=$1 log=$out/$1.log start=$SECONDS
    shift
    echo "nightly: $name ..."
    if "$@" >"$log" 2>&1; then
        echo "nightly: $name: all right after $((SECONDS - start)) s"
        rm -f "$log"
    else
        echo "nightly: $name: FAILED, see $log"
        failed+=("$name")
    fi
}

step tests scripts/test.sh --nightly --junit-xml="$out/tests.xml" --timeout=7200
python=$PWD/.venv-test/bin/python
unset PYTHONPATH
export PYTHONSAFEPATH=
for script in "soak_kill.py --kills 200" "soak_kill.py --kills 50 --ranks 2 --library mpich" \
    "soak_kill.py --kills 50 --ranks 2 --library openmpi" "soak_trainings.py --count 1000" \
    "soak_load.py --workers 244 --minutes 60" "fuzz_readers.py --inputs 1000000 --findings $out/findings"; do
    read -ra words <<<"$script"
    name=${words[0]%.py}$([[ $script == *--ranks* ]] && echo "_${words[-1]}")
    step "$name" "$python" "scripts/${words[0]}" "${words[@]:1}" --json "$out/$name.json"
done
step mutants "$python" scripts/mutants.py planted --json "$out/mutants.json"
if ((${#failed[@]})); then
    echo "nightly: failed: ${failed[*]}"
    exit 1
fi
echo "nightly: all right"
