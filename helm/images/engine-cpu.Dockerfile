# syntax=docker/dockerfile:1.7
# A node of pool `cpu`, for development and trials on x86_64: as engine.Dockerfile, with vLLM's CPU
# build. Installs constraints.txt as it stands, as `make setup` does (scripts/setup.sh says why).
ARG BASE=docker.io/library/python:3.11-slim-bookworm
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

FROM ${BASE} AS build
ARG TORCH_INDEX
# gcc and libc6-dev: the gateway's chunks pass through a module of C (hatch_build.py).
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN python -m venv /opt/penstock \
    && torch="$(sed -n 's/^torch==//p' constraints.txt)" \
    && /opt/penstock/bin/pip install --no-cache-dir --compile --no-deps \
        --index-url "$TORCH_INDEX" "torch==$torch+cpu" \
    && /opt/penstock/bin/pip install --no-cache-dir --compile --no-deps -r constraints.txt \
    && /opt/penstock/bin/pip wheel --no-cache-dir --no-deps -w /wheels . \
    && /opt/penstock/bin/pip install --no-cache-dir --compile --no-deps /wheels/penstock-*.whl \
    && /opt/penstock/bin/python helm/images/sbom.py /sbom.json

FROM scratch AS sbom
COPY --from=build /sbom.json /

FROM ${BASE} AS run
# gcc and libc6-dev: torch's compiler builds kernels for the CPU. libnuma1: vLLM's CPU build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc g++ libc6-dev libnuma1 wget procps \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --home-dir /tmp --shell /usr/sbin/nologin penstock
COPY --from=build /opt/penstock /opt/penstock
ENV PATH=/opt/penstock/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /srv
USER 10001:10001
CMD ["python", "-m", "serving.cli.node", "--help"]
