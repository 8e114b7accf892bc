# syntax=docker/dockerfile:1.7
# A node of a GPU pool: launcher, Ray, hosts and vLLM's CUDA build. For x86_64 (H200) and arm64
# (GB200): docker build -f helm/images/engine.Dockerfile --platform linux/arm64 -t penstock-engine .
# CUDA's libraries come with the wheels; the driver comes from the node.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
# gcc and libc6-dev: the gateway's chunks pass through a module of C (hatch_build.py).
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN python -m venv /opt/penstock \
    && /opt/penstock/bin/pip wheel --no-cache-dir --no-deps -w /wheels . \
    && /opt/penstock/bin/pip install --no-cache-dir --compile -c constraints.txt \
        "$(ls /wheels/penstock-*.whl)[gpu,postgres,redis,otlp]" \
    && /opt/penstock/bin/python helm/images/sbom.py /sbom.json

FROM scratch AS sbom
COPY --from=build /sbom.json /

FROM ${BASE} AS run
# gcc and libc6-dev: Triton compiles a small C module for each kernel. libnuma1: torch. ibverbs:
# NCCL over InfiniBand. wget and procps as in the platform's image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        gcc libc6-dev libnuma1 libibverbs1 ibverbs-providers wget procps \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --home-dir /tmp --shell /usr/sbin/nologin penstock
COPY --from=build /opt/penstock /opt/penstock
ENV PATH=/opt/penstock/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /srv
USER 10001:10001
CMD ["python", "-m", "serving.cli.node", "--help"]
