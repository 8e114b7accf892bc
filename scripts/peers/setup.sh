#!/usr/bin/env bash
# Installs the gateways that ours is measured against, each in a virtual environment of its own:
#   scripts/peers/setup.sh [FOLDER]     default: $PENSTOCK_PEERS_DIR or ~/.cache/penstock/peers
# Does nothing where they are there. nginx comes from the system (apt-get install nginx).
set -euo pipefail

folder=${1:-${PENSTOCK_PEERS_DIR:-$HOME/.cache/penstock/peers}}
python=${PYTHON:-python3}

install() { # NAME REQUIREMENT...
  local name=$1
  shift
  local stamp="$folder/$name/installed"
  if [[ -f $stamp && $(<"$stamp") == "$*" ]]; then
    return
  fi
  echo "installing $* into $folder/$name" >&2
  rm -rf "${folder:?}/$name"
  "$python" -m venv "$folder/$name"
  "$folder/$name/bin/pip" install --quiet --disable-pip-version-check "$@"
  echo "$*" >"$stamp"
}

mkdir -p "$folder"
install rust-router 'sglang-router==0.3.2'
install litellm 'litellm[proxy]==1.106.0'
command -v nginx >/dev/null || echo "nginx is missing: it will be left out" >&2
echo "$folder"
