#!/usr/bin/env bash
# One part of the tests: scripts/test_part.sh NAME [pytest's arguments].
#
# What fails is tried once more, alone and with processes of its own: a test has failed where it
# fails twice. One that needed its second try is still named in the first summary: look for why.
#
# TRY=first or TRY=second makes one of the tries: scripts/test_parts.py takes first tries together.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly PART=$1 TRIES=${TRY:-both}
shift
unset TRY # it is nothing to a test that runs this script

tests() { .venv/bin/python -m pytest -o "cache_dir=.pytest_cache/$PART" "$@"; }

rc=0
if [[ $TRIES != second ]]; then
    tests "$@" || rc=$?
    case $rc in
        0 | 5) exit 0 ;; # 5: `-k` left nothing of this part
        1) [[ $TRIES == both ]] || exit 1 ;;
        *) exit "$rc" ;;
    esac
fi
echo "$PART: a second try of what failed"
tests --last-failed --last-failed-no-failures none "$@"
