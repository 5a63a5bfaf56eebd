#!/usr/bin/env bash
# Builds the C core with tests/c/driver.c under the sanitizers and runs it: scripts/run_sanitizers.sh [asan|tsan|all] [networks [short]]
#   asan  AddressSanitizer and UndefinedBehaviorSanitizer with gcc, AddressSanitizer with clang if there is one (only clang
#         sees the masked stores of AVX-512)
#   tsan  ThreadSanitizer with clang (it sees accesses of up to 16 bytes, so all those of the generic instruction set)
# short: AddressSanitizer with gcc only, and only the instruction sets of this processor; with up to 4 workers instead of 8.
# Each tool has to find a planted fault before its silence counts. One line per configuration; exit status 0: all right,
# 1: something was found, 77: a tool is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

what=${1:-all} networks=${2:-} short=${3:-} out=build/sanitizers wrong=0 here=() ccache=()
case $what in asan | tsan | all) ;; *)
    echo "usage: scripts/run_sanitizers.sh [asan|tsan|all] [random networks [short]]" >&2
    exit 2
    ;;
esac
unset "${!OMP_@}" "${!GOMP_@}" "${!KMP_@}"
# the tests run both parts at the same time: each has its own folder
out=$out/$what
mkdir -p "$out"
# the lists of kinds, written as for the extension module
${PYTHON:-python3} -c "import sys; sys.path.insert(0, '.'); import setup; setup.write_lists('$out/generated/lists')"
if command -v ccache >/dev/null; then
    ccache=(ccache)
fi
# Older sanitizers cannot place their shadow memory under the address randomisation of newer kernels.
if setarch "$(uname -m)" -R true 2>/dev/null; then
    here=(setarch "$(uname -m)" -R)
fi

missing() {
    echo "sanitizers: $*" >&2
    exit 77
}

isas=(generic avx2 avx512)
# In the short form what the processor cannot run is not built: instruction sets take by far the longest.
if [[ -n $short ]] && ! grep -qw avx512f /proc/cpuinfo; then
    isas=(generic avx2)
fi

# build NAME COMPILER FLAGS... : the core with the instruction sets `isas` and the driver, as in setup.py but for the
# optimisation. The objects of instruction sets are those of the build BODIES if there is one.
build() {
    local name=$1 compiler=$2
    shift 2
    local flags=(-std=gnu11 -O1 -g1 -fno-omit-frame-pointer -fno-math-errno -fno-trapping-math -Wall -Wextra
        -Wno-unused-parameter -Werror -fopenmp -DCHAOS_OPENMP=1 "-DCHAOS_ISA_LIMIT=${#isas[@]}" -Icext "-I$out/generated" "$@")
    rm -rf "${out:?}/$name"
    mkdir -p "$out/$name"
    local bodies=("${isas[@]/#/cext/isa/}")
    bodies=("${bodies[@]/%/.c}")
    if [[ -n ${BODIES-} ]]; then
        cp "$out/$BODIES"/cext_isa_*.o "$out/$name"
        bodies=()
    fi
    # shellcheck disable=SC2016  # for the inner shell
    if ! printf '%s\n' "${bodies[@]}" cext/*.c cext/bf16/*.c cext/engine/*.c cext/replay/*.c cext/sync/*.c cext/virtual/*.c \
        cext/virtual/orders/*.c tests/c/driver.c |
        xargs -P "$(nproc)" -I{} sh -c 'source=$1 to=$2/$(echo "$1" | tr / _).o; shift 2; "$@" -c "$source" -o "$to"' \
            sh {} "$out/$name" "${ccache[@]}" "$compiler" "${flags[@]}" >"$out/$name/log" 2>&1 ||
        ! "$compiler" "${flags[@]}" "$out/$name"/*.o -o "$out/$name/driver" -lm >>"$out/$name/log" 2>&1; then
        cat "$out/$name/log" >&2
        echo "$name: does not compile"
        return 1
    fi
}

# passes NAME ARGUMENT... : the driver must end well and silently
passes() {
    local name=$1 log=$out/$1/log
    SECONDS=0
    if "${here[@]}" "$out/$name/driver" "${@:2}" >"$log" 2>&1 && ! grep -q 'Sanitizer\|runtime error' "$log"; then
        echo "$name: $(tail -n 1 "$log") ($SECONDS s)"
    else
        cat "$log" >&2
        echo "$name: FAILED"
        wrong=1
    fi
}

# reports NAME TEXT ARGUMENT... : the driver must be caught doing what was planted
reports() {
    local name=$1 log=$out/$1/log
    if ! "${here[@]}" "$out/$name/driver" "${@:3}" >"$log" 2>&1 && grep -q "$2" "$log"; then
        echo "$name: the planted fault is found"
    else
        tail -n 40 "$log" >&2
        echo "$name: the planted fault is NOT found"
        wrong=1
    fi
}

asan() {
    command -v gcc >/dev/null || missing "no gcc; on Debian/Ubuntu: apt-get install build-essential"
    # GCC 12 puts 64-byte vectors where stack_use_after_return keeps its frames, not all of which are so aligned (GCC bug
    # 110027); Clang looks for uses after return.
    export ASAN_OPTIONS=detect_stack_use_after_return=0 UBSAN_OPTIONS=print_stacktrace=1 LSAN_OPTIONS
    # libomp keeps what it knows of threads that have ended
    echo leak:libomp.so >"$out/leaks"
    LSAN_OPTIONS=suppressions=$out/leaks:print_suppressions=0
    # both watch all kernels on every instruction set; workers, who meet in cext/engine, on one each
    local clang=yes on=(generic)
    if [[ -n $short ]]; then
        clang=no on=(best 4)
    elif ! command -v clang >/dev/null || ! try clang -fsanitize=address; then
        clang=no on=()
    fi
    if build asan-gcc gcc -fsanitize=address,undefined -fno-sanitize-recover=all; then
        reports asan-gcc heap-buffer-overflow fault
        passes asan-gcc "${networks:-15}" "${on[@]}"
    else
        wrong=1
    fi
    if [[ $clang = no ]]; then
        echo "asan-clang: left out: ${short:-there is no clang with OpenMP and sanitizers}"
    elif ASAN_OPTIONS=detect_stack_use_after_return=1 && build asan-clang clang -fsanitize=address; then
        reports asan-clang heap-buffer-overflow fault
        passes asan-clang "${networks:-15}" best
    else
        wrong=1
    fi
}

# try COMPILER FLAGS... : whether it makes OpenMP programs with them
try() {
    printf '#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n' |
        "$@" -fopenmp -x c - -o "$out/probe" >/dev/null 2>&1 && "${here[@]}" "$out/probe" >/dev/null 2>&1
}

tsan() {
    local install="apt-get install clang libomp-dev" major archer=
    command -v clang >/dev/null || missing "no clang; on Debian/Ubuntu: $install"
    major=$(clang -dumpversion)
    major=${major%%.*}
    try clang -fsanitize=thread ||
        missing "clang makes no OpenMP programs with ThreadSanitizer; on Debian/Ubuntu: $install libclang-rt-$major-dev"
    for archer in "/usr/lib/llvm-$major/lib/libarcher.so" /usr/lib/llvm-*/lib/libarcher.so; do
        [[ -f $archer ]] && break
    done
    [[ -f $archer ]] || missing "no libarcher.so, which tells ThreadSanitizer what OpenMP does; on Debian/Ubuntu: $install"
    export OMP_TOOL_LIBRARIES=$archer TSAN_OPTIONS="ignore_noninstrumented_modules=1 history_size=4"
    isas=(generic) # of the others it sees no more: workers meet in cext/engine
    if build tsan clang -fsanitize=thread -DCHAOS_CAREFUL=1; then
        # Without its exemption the copying of cext/engine/shared.h, which cext/isa does not see, must be reported.
        if BODIES=tsan build tsan-planted clang -fsanitize=thread -DCHAOS_CAREFUL=1 '-DRACES=__attribute__((noinline))'; then
            TSAN_OPTIONS="$TSAN_OPTIONS halt_on_error=1" reports tsan-planted 'ThreadSanitizer: data race .* in racy_copy' 0
        else
            wrong=1
        fi
        passes tsan "${networks:-5}" generic ${short:+4}
    else
        wrong=1
    fi
}

if [[ $what != tsan ]]; then
    asan
fi
if [[ $what != asan ]]; then
    tsan
fi
exit "$wrong"
