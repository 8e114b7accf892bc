#!/usr/bin/env bash
# Proves the platform on this machine, from nothing but a Python and a folder of wheels, with no
# network: makes an environment, then runs `loadtests.gpu.check`, whose flags come after these.
#
#   check.sh --wheels FOLDER [--python PYTHON] [--work FOLDER] [--installed] [--cpu] [...]
#
# --wheels     what `wheels.sh` has put together; each wheel in it is installed, nothing else
# --python     interpreter to build upon; default: python3. What it has installed stays visible
#              (a GPU machine's own torch), but for --cpu, where only the wheels count
# --installed  take --python as it is: it has all that is needed
set -euo pipefail

readonly HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly BUDGET_S=1500
readonly REPOSITORY=$(cd "$HERE/../.." && pwd)

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 2
}

# In a function: read whole before anything runs, so that an edit meanwhile changes nothing.
main() {
    python=python3 wheels='' work=$PWD/gpu-check installed=0 cpu=0
    flags=()
    while (($#)); do
        case $1 in
            --wheels | --python | --work)
                (($# > 1)) || fail "$1 needs a value" "see the head of $0"
                printf -v "${1#--}" '%s' "$2"
                shift 2
                ;;
            --installed) installed=1 && shift ;;
            --cpu) cpu=1 && flags+=("$1") && shift ;;
            *) flags+=("$1") && shift ;;
        esac
    done
    mkdir -p "$work"
    work=$(cd "$work" && pwd)
    command -v "$python" >/dev/null || fail "there is no $python" "name one with --python"
    python=$(command -v "$python")

    if ((!installed)); then
        [[ -n $wheels ]] || fail "no folder of wheels is named" "--wheels FOLDER, or --installed"
        wheels=$(cd "$wheels" && pwd)
        compgen -G "$wheels/*.whl" >/dev/null || fail "$wheels has no wheels" "wheels.sh makes them"
        environment=$work/environment
        "$python" -m venv --clear "$environment" ||
            fail "$python cannot make an environment" "install its venv module"
        if ((!cpu)); then
            # Behind the environment's own packages; also where the interpreter is an environment's.
            "$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' >"$work/own.pth"
            mv "$work/own.pth" "$("$environment/bin/python" -c \
                'import sysconfig; print(sysconfig.get_paths()["purelib"])')/own.pth"
        fi
        echo "installing $(compgen -G "$wheels/*.whl" | wc -l) wheels" >&2
        # PIP_*: whatever this machine's pip is told to look at, these wheels are all.
        env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null \
            "$environment/bin/python" -m pip --disable-pip-version-check install --no-index --no-deps \
            --compile --no-input "$wheels"/*.whl >"$work/install.log" 2>&1 ||
            { tail -n 5 "$work/install.log" >&2; fail "the wheels cannot be installed" "see $work/install.log"; }
        python=$environment/bin/python
    fi
    # Where the platform itself is not among what is installed, it is what lies around this script.
    "$python" -P -c 'import loadtests, serving' 2>/dev/null || export PYTHONPATH=$REPOSITORY
    # Compilers of kernels look for their tools there.
    export PATH="$(dirname "$python"):$PATH"
    export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 RAY_USAGE_STATS_ENABLED=0 VLLM_NO_USAGE_STATS=1
    cd "$work"
    # What the installing took is off the time for all; a `--budget-s` of the caller's stands.
    exec "$python" -P -m loadtests.gpu.check --work "$work" --budget-s "$((BUDGET_S - SECONDS))" \
        "${flags[@]}"
}

main "$@"
