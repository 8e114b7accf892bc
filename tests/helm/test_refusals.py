"""Values that make no sense are refused before anything is installed, with a sentence."""

from typing import Any

import pytest
from helm_python import HelmError

from tests.helm.chart import render

H200 = {
    "name": "h200", "pool": "h200x8", "gpusPerNode": 8, "gpusPerPod": 8,
    "resources": {"cpu": "96", "memory": "1500Gi"},
}  # fmt: skip
GB200 = {**H200, "name": "gb200", "pool": "gb200x4", "gpusPerNode": 4, "gpusPerPod": 4}


GANG = {
    "name": "m", "source": "file:///m",
    "resources": {
        "accelerator": "h200", "gpus": 16, "tensor_parallel": 8, "pipeline_parallel": 2, "hosts": 2,
    },
}  # fmt: skip


def groups(*items: dict[str, Any]) -> dict[str, Any]:
    return {"ray": {"workerGroups": list(items)}}


def model(**resources: Any) -> dict[str, Any]:
    return {"models": [{"name": "m", "source": "file:///m", "resources": resources}]}


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "GB200 on x86": (groups(GB200), "Arm machines; set architecture: arm64"),
    "H200 on Arm": (groups({**H200, "architecture": "arm64"}), "x86_64 machines"),
    "TP above GPUs": (
        groups(H200) | model(accelerator="h200", gpus=8, tensor_parallel=16),
        "tensor_parallel x pipeline_parallel is 16, above the 8 accelerators",
    ),
    "no such pool": (groups(H200) | model(accelerator="h200", gpus=4), "no worker group has pool"),
    "host above node": (groups({**H200, "pool": "h200x16"}), "a node has 8"),
    "pod above node": (groups({**H200, "gpusPerPod": 16}), "above gpusPerNode"),
    "pod not whole hosts": (groups({**H200, "gpusPerPod": 4}), "must be a multiple"),
    "hosts share a pod": (groups({**H200, "pool": "h200x1"}), "take all of them along"),
    "more engines than hosts": (
        groups(H200) | {"models": [{
            "name": "m", "source": "file:///m",
            "resources": {"accelerator": "h200", "gpus": 8}, "scaling": {"max": 3},
        }]},
        "scaling.max is 3, but pool h200x8 has 1 hosts",
    ),
    "gang above its pool": (
        groups({**H200, "pods": 3}) | {"models": [{**GANG, "scaling": {"max": 2}}]},
        "scaling.max is 2 engines of 2 hosts each, but pool h200x8 has 3 hosts",
    ),
    "more engines than hosts at some hours": (
        groups(H200) | {"models": [{
            "name": "m", "source": "file:///m", "resources": {"accelerator": "h200", "gpus": 8},
            "scaling": {"schedule": [{"start": "08:00", "max": 2}]},
        }]},
        "scaling.max is 2, but pool h200x8 has 1 hosts",
    ),
    "shares that are uneven": (
        groups(H200) | model(accelerator="h200", gpus=15, hosts=2),
        "15 accelerators and 1 ranks cannot be shared evenly by 2 hosts",
    ),
    "a source's secret that is nowhere": (
        {"models": [{
            "name": "m", "endpoints": [{"url": "https://a.example", "token": "${secret:TOKEN}"}],
        }]},
        "it names ${secret:TOKEN}, and secrets.sources is empty",
    ),
    "a secret that is the hub's token only": (
        {
            "secrets": {"huggingFace": "hub"},
            "models": [{
                "name": "m", "source": "hf://a/b", "weights": {"token": "${secret:HF_TOKEN}"},
            }],
        },
        "it names ${secret:HF_TOKEN}, and secrets.sources is empty",
    ),
    "neither source nor endpoints": ({"models": [{"name": "m"}]}, "source"),
    "fewest above most": (groups({**H200, "minPods": 3}), "minPods 3 is above pods 1"),
    "unknown setting": ({"gateway": {"settings": {"max_queue": 3}}}, "max_queue"),
    "a setting that the chart sets": (
        {"gateway": {"settings": {"drain_timeout_s": 3}}}, "drain_timeout_s",
    ),
    "a setting of another process": ({"gateway": {"settings": {"pools": "{}"}}}, "pools"),
    "two databases": (
        {"database": {"external": {"secretName": "db"}, "trial": {"enabled": True}}},
        "choose one database",
    ),
    "missing secret": ({"secrets": {"internal": ""}}, "secrets.internal is empty"),
    "trial without secret": (
        {"database": {"trial": {"enabled": True, "secretName": ""}}}, "needs a Secret",
    ),
    "host path unsaid": (
        groups({**H200, "cache": {"kind": "hostPath", "hostPath": "/mnt"}}), "beyondRestricted",
    ),
    "host path without path": (
        groups({**H200, "cache": {"kind": "hostPath"}, "beyondRestricted": True}),
        "needs cache.hostPath",
    ),
    "RDMA unsaid": (groups({**H200, "rdma": {"resource": "rdma/a"}}), "IPC_LOCK"),
    "ComputeDomain on H200": (
        groups({**H200, "computeDomain": {"enabled": True}}), "GB200 and GB300 racks",
    ),
    "pool twice": (groups(H200, {**H200, "name": "again"}), "in two groups"),
    "name twice": (groups(H200, {**H200, "pool": "h200x4"}), "two groups have this name"),
    "GPUs on cpu": (
        groups({**H200, "pool": "cpu", "image": "engineCpu"}), "pool cpu has no accelerators",
    ),
    "no groups": (groups(), "nothing to run engines on"),
    "air-gapped from the internet": (
        {"airGapped": True, "models": [{"name": "m", "source": "hf://a/b"}]}, "airGapped is set",
    ),
    "two controllers on SQLite": (
        {"controller": {"replicas": 2}}, "several controllers need PostgreSQL",
    ),
    "budget of all": ({"gateway": {"replicas": 2, "minAvailable": 2}}, "no node could ever"),
    "ingress without host": ({"ingress": {"enabled": True}}, "needs ingress.host"),
    "route without gateway": ({"gatewayApi": {"enabled": True}}, "gatewayApi.parentName"),
    "min above max": (
        {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}}},
        "above maxReplicas",
    ),
    # By the schema.
    "unknown value": ({"gatway": {}}, "gatway"),
    "unknown value inside": ({"gateway": {"replica": 3}}, "replica"),
    "unknown field of a group": (groups({**H200, "gpus": 8}), "gpus"),
    "unknown field of a manifest": (
        {"models": [{"name": "m", "source": "file:///m", "replicas": 2}]}, "replicas",
    ),
    "no controller": ({"controller": {"replicas": 0}}, "controller/replicas"),
    "wrong type": ({"gateway": {"replicas": "two"}}, "replicas"),
    "not a shape": (groups({**H200, "pool": "h200"}), "pool"),
    "not a digest": ({"images": {"platform": {"digest": "latest"}}}, "digest"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_values_are_refused(case: str) -> None:
    values, sentence = CASES[case]
    with pytest.raises(HelmError) as caught:
        render(values)
    assert sentence in str(caught.value).replace(".", "/").replace("'", "") or sentence in str(
        caught.value
    )


TAKEN: dict[str, dict[str, Any]] = {
    "a hub token of its own": {
        "secrets": {"sources": "tokens", "huggingFace": "hub"},
        "models": [{"name": "m", "source": "hf://a/b", "weights": {"token": "${secret:HUB}"}}],
    },
    "a gang": groups({**H200, "pods": 4}) | {"models": [{**GANG, "scaling": {"max": 2}}]},
    "other servers": {"models": [{"name": "m", "endpoints": [{"url": "https://a.example"}]}]},
    "secrets that are there": {
        "secrets": {"sources": "tokens"},
        "models": [{"name": "m", "source": "s3://b/m", "weights": {"token": "${secret:TOKEN}"}}],
    },
}


@pytest.mark.parametrize("case", TAKEN)
def test_values_are_taken(case: str) -> None:
    assert any(path.endswith("models/configmap.yaml") for path in render(TAKEN[case]))
