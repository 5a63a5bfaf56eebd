# Makes the environments of scripts/train.sh, test.sh and many_core.sh. Sourced by these, not run by itself.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

stop() {
    echo "chaos: $*" >&2
    exit 1
}

# fingerprint WORD... : one number for the words, the build switches and every source that needs a new install.
fingerprint() {
    local folders=(cext)
    # An editable install sees changed Python files by itself.
    [[ $1 == editable ]] || folders+=(chaos)
    (
        cd "$root" || exit
        echo "$*" "$PWD" "${CHAOS_NATIVE-}" "${CHAOS_DEBUG-}" "${CHAOS_SANITIZE-}" "${CHAOS_OPENMP-}" "${CC-}" "${CFLAGS-}"
        find pyproject.toml setup.py MANIFEST.in chaos/_version.py "${folders[@]}" -type f \
            ! -name '*.so' ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 cksum
    ) | cksum
}

# requirements PYTHON EXTRA : what the build needs, an empty line, and what the package needs with that extra; one a line.
requirements() {
    "$1" - "$root/pyproject.toml" "$2" <<'END'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    about = tomllib.load(file)
project = about["project"]
own = project["name"] + "["
def flat(extras):
    for extra in extras:
        for wanted in project["optional-dependencies"][extra]:
            if wanted.startswith(own):
                yield from flat(wanted.removeprefix(own).rstrip("]").split(","))
            else:
                yield wanted
print(*about["build-system"]["requires"], "", *project["dependencies"], *flat([sys.argv[2]]), sep="\n")
END
}

# beside DIRECTORY EXTRA : compiles the package while what it needs is installed, which leaves a core idle. What goes wrong
# with the one is told where the package is installed, which then compiles what is missing.
beside() {
    local python=$1/bin/python build=() needs=() line compiling status=0
    local how=(--disable-pip-version-check --no-input --quiet)
    mapfile -t needs < <(requirements "$python" "$2")
    while line=${needs[0]-} && needs=("${needs[@]:1}") && [[ -n $line ]]; do
        build+=("$line")
    done
    if ! ((${#build[@]} && ${#needs[@]})) || ! "$python" -m pip install "${how[@]}" "${build[@]}"; then
        return 1
    fi
    (cd "$root" && "$python" setup.py -q build_ext) &
    compiling=$!
    "$python" -m pip install "${how[@]}" "${needs[@]}" || status=1
    wait "$compiling" || true
    return "$status"
}

# ensure_env DIRECTORY editable|package EXTRA : leaves a ready environment, or stops with the reason.
ensure_env() {
    local dir=$1 mode=$2 extra=$3 stamp=$1/chaos-stamp log=$1/chaos-pip.log
    local python=${PYTHON:-python3} target="${root}[$extra]" now
    now=$(fingerprint "$mode" "$extra" "$python")
    if [[ -x $dir/bin/python && -f $stamp && $(<"$stamp") == "$now" ]]; then
        return
    fi
    if [[ ! -f $stamp ]]; then
        command -v "$python" >/dev/null || stop "$python not found; on Debian/Ubuntu: apt-get install python3 python3-venv python3-dev"
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
            stop "$("$python" --version 2>&1) is too old, 3.11 or newer is needed; name another one with PYTHON=python3.12"
        "$python" -c 'import venv, ensurepip' 2>/dev/null ||
            stop "$python cannot make environments; on Debian/Ubuntu: apt-get install python3-venv"
        if [[ -d $dir && ! -f $dir/pyvenv.cfg && -n $(ls -A "$dir") ]]; then
            stop "$dir is not empty and not a Python environment; give another place with CHAOS_VENV_DIR"
        fi
        echo "chaos: setting up $dir (some minutes) ..." >&2
        "$python" -m venv "$dir" || stop "cannot make $dir"
    else
        echo "chaos: sources changed, building again into $dir ..." >&2
        rm -f "$stamp"
        # the name of the distribution until 0.1
        "$dir/bin/python" -m pip uninstall --yes --quiet chaos 2>/dev/null || true
    fi
    # Files deleted from the sources would live on in setuptools' copy of the package.
    rm -rf "$root"/build/lib*
    # Verbose, because pip otherwise hides what setup.py says; the log is shown only on failure.
    local how=(--verbose --disable-pip-version-check --no-input)
    if [[ $mode == editable ]]; then
        how+=(--editable)
    elif beside "$dir" "$extra" >"$log" 2>&1; then
        how+=(--no-build-isolation)
    fi
    if ! "$dir/bin/python" -m pip install "${how[@]}" "$target" >"$log" 2>&1; then
        # What setup.py has to say about a missing tool is one line; anything else is shown whole.
        sed -n 's/^.*chaos build: stopped/chaos: build stopped/p' "$log" | sort -u | grep . >&2 && exit 1
        cat "$log" >&2
        stop "installing failed; what pip said is above and in $log"
    fi
    grep -h '^ *chaos build: ' "$log" | sed 's/^ *//' >&2 || true
    echo "$now" >"$stamp"
}
