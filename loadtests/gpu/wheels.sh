#!/usr/bin/env bash
# Puts together the folder of wheels that check.sh installs; needs the network, and this repository.
#
#   wheels.sh FOLDER --cpu            the locked list of constraints.txt, for this very Python
#   wheels.sh FOLDER --gpu            vLLM 0.26.0 and the platform for Python 3.12 on x86-64, without
#                                     torch and CUDA's libraries, which the GPU machine has
set -euo pipefail
readonly HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$HERE/../.."

readonly PYTHON=${PYTHON:-python3}
readonly VLLM=0.26.0 GPU_PYTHON=3.12
# What the machine's torch has brought; and torchcodec, which needs ffmpeg and which text does not.
readonly CUDA='cublas|cuda-cupti|cuda-nvrtc|cuda-runtime|cudnn-cu13|cufft|cufile|curand|cusolver'
readonly MORE='cusparse|cusparselt-cu13|nccl-cu13|nvjitlink|nvshmem-cu13|nvtx'
readonly TORCH='torch|torchaudio|torchvision|torchcodec|triton|cuda-(toolkit|bindings|pathfinder)'
readonly OWN="^($TORCH|nvidia-($CUDA|$MORE))\$"

(($# == 2)) || { sed -n 's/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed -n 2,8p >&2; exit 2; }
readonly FOLDER=$1
mkdir -p "$FOLDER"
pip() { "$PYTHON" -m pip --disable-pip-version-check "$@"; }

pip wheel --quiet --no-deps --wheel-dir "$FOLDER" .
case $2 in
    --cpu)
        # torch's CPU build has a local version, which an index of PyTorch's or find-links offers.
        version=$(sed -n 's/^torch==//p' constraints.txt)
        grep -v '^torch==' constraints.txt >"$FOLDER/list.txt"
        pip download --quiet --no-deps --dest "$FOLDER" "torch==$version+cpu" ||
            pip download --quiet --no-deps --dest "$FOLDER" "torch==$version+cpu" \
                --index-url https://download.pytorch.org/whl/cpu
        # A few packages have no wheel; `wheel` builds it, where `download` would take the source.
        pip wheel --quiet --no-deps --wheel-dir "$FOLDER" --requirement "$FOLDER/list.txt"
        # The locked list is of all that anyone works with here: documents, linters, tests.
        "$PYTHON" "$HERE/wanted.py" "$FOLDER" "penstock[cpu,loadtest]"
        ;;
    --gpu)
        platforms=(--platform linux_x86_64) # as our own wheel is called
        # Each tag by its name: pip takes no "2_35 or older" for another machine.
        for tag in 1 2010 2014 $(seq -f '_2_%g' 5 35); do
            platforms+=(--platform "manylinux${tag}_x86_64")
        done
        target=(--python-version "$GPU_PYTHON" --only-binary :all: "${platforms[@]}")
        wheel=$(ls "$FOLDER"/penstock-*.whl)
        # The whole closure is resolved once, and what the machine has is left out of the download.
        pip install --quiet --dry-run --ignore-installed --report "$FOLDER/report.json" \
            --target "$FOLDER/none" "${target[@]}" "vllm==$VLLM" "$wheel"
        "$PYTHON" - "$FOLDER/report.json" "$OWN" >"$FOLDER/list.txt" <<'PY'
import json, re, sys
for found in json.load(open(sys.argv[1]))["install"]:
    name, version = found["metadata"]["name"], found["metadata"]["version"]
    if name.lower() != "penstock" and not re.match(sys.argv[2], name.lower()):
        print(f"{name}=={version}")
PY
        pip download --quiet --no-deps --dest "$FOLDER" "${target[@]}" \
            --requirement "$FOLDER/list.txt"
        ;;
    *) echo "say --cpu or --gpu" >&2 && exit 2 ;;
esac
rm -f "$FOLDER/list.txt" "$FOLDER/report.json"
echo "$(ls "$FOLDER"/*.whl | wc -l) wheels, $(du -sh "$FOLDER" | cut -f 1), in $FOLDER"
