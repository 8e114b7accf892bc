#!/usr/bin/env bash
# One part of the tests: scripts/test_part.sh NAME [pytest's arguments].
#
# What fails is tried once more, alone and with processes of its own: a test has failed where it
# fails twice. One that needed its second try is still named in the first summary: look for why.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly PART=$1
shift

tests() { .venv/bin/python -m pytest -o "cache_dir=.pytest_cache/$PART" "$@"; }

rc=0
tests "$@" || rc=$?
case $rc in
    1)
        echo "$PART: a second try of what failed"
        tests --last-failed --last-failed-no-failures none "$@"
        ;;
    5) ;; # `-k` left nothing of this part
    *) exit "$rc" ;;
esac
