# syntax=docker/dockerfile:1.7
# Gateway, controller and Ray's head: no vLLM, no torch, no CUDA. From the repository's root:
#   docker build -f helm/images/platform.Dockerfile --build-arg BASE=python@sha256:... -t penstock .
# Both architectures: add --platform linux/amd64,linux/arm64.
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
        "$(ls /wheels/penstock-*.whl)[postgres,redis,otlp]" \
    && /opt/penstock/bin/python helm/images/sbom.py /sbom.json

FROM scratch AS sbom
COPY --from=build /sbom.json /

FROM ${BASE} AS run
# wget: KubeRay's probes of Ray's head and workers call it. procps: so does `ray stop`.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget procps \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --home-dir /tmp --shell /usr/sbin/nologin penstock
COPY --from=build /opt/penstock /opt/penstock
ENV PATH=/opt/penstock/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
# An empty folder: what runs here imports `models` and `serving`, and finds no other by these names.
WORKDIR /srv
USER 10001:10001
CMD ["penstock", "version"]
