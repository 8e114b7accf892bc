"""What engines of each version in the table are called by and given, held against its source.

The names of vLLM 0.26.0 were read from its wheel and are kept beside this file; those of the
installed version are read from what is installed. This shows that names and signatures are there,
not that they do the same.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from models.manifest import Manifest, parse_manifest
from models.profile import FOLDER, load_profiles
from serving.controller.federation import FAMILIES
from serving.engine.arguments import vllm_arguments, vllm_environment
from serving.engine.gang import gang_arguments
from serving.engine.versions import TABLE, installed
from serving.engine.vllm_adapter import ENVIRONMENT, EXEC_MODULE
from serving.protocol import GangPlace
from serving.tuning.space import CPU, GPU
from tests.serving.engine.vllm_surface import Surface, surface

KEPT = Path(__file__).with_name("vllm-0.26.0.json")
RECORDED = {
    "OutputProcessor": {
        "add_request(self, request, prompt, parent_req, request_index, queue)",
        "request_states",
    },
    "RequestState": {"is_prefilling", "prompt_len", "num_cached_tokens", "request_index"},
    "EngineCoreRequest": {"request_id", "external_req_id", "prompt_token_ids",
                          "reasoning_ended", "reasoning_parser_kwargs"},
    "EngineCoreOutput": {"request_id", "new_token_ids"},
    "IterationStats": {"num_prompt_tokens", "num_generation_tokens"},
    "ReasoningParserManager": {"get_reasoning_parser(cls, name)"},
    "ServeSubcommand": {"cmd(args)", "subparser_init(self, subparsers)", "validate(self, args)"},
}  # fmt: skip
"""What `recording` and `execute_share` use."""
ASKED = {"/health", "/sleep", "/wake_up", "/v1/models", "/v1/load_lora_adapter",
         "/v1/unload_lora_adapter"}  # fmt: skip
"""Routes that a host calls."""
NOT_VLLMS = {"DO_NOT_TRACK", "HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES"}
"""Read by vLLM, or by what it uses, without a place in its list of variables."""


def kept() -> Surface:
    return Surface(**json.loads(KEPT.read_text()))


def of_the_installed() -> Surface:
    found, build = find_spec("vllm"), installed()
    if found is None or not found.submodule_search_locations or build is None:
        pytest.skip("vLLM is not installed")
    if build.reach.in_process is False and not build.reach.recorder:
        pytest.skip(f"{build} is not in the table")
    return surface(Path(found.submodule_search_locations[0]), build.version)


@pytest.fixture(scope="module", params=["0.26", "installed"])
def vllm(request: pytest.FixtureRequest) -> Surface:
    return kept() if request.param == "0.26" else of_the_installed()


def manifests() -> Iterator[Manifest]:
    """Between them each branch of `vllm_arguments`."""
    engine = {
        "dtype": "bfloat16", "max_model_len": 4096, "max_num_seqs": 8, "quantization": "fp8",
        "load_format": "dummy", "kv_cache_gib": 1.0, "enforce_eager": False,
        "tool_parser": "hermes", "reasoning_parser": "qwen3", "trust_remote_code": True,
        "lora": {"max_rank": 16, "at_once": 1, "in_memory": 2},
    }  # fmt: skip
    gpus = {"accelerator": "h200", "gpus": 4, "tensor_parallel": 2, "pipeline_parallel": 2}
    yield model()
    yield model(engine=engine, resources=gpus)
    yield model(resources={"accelerator": "h200", "gpus": 1}, scaling={"idle": "sleep-host"})
    yield model(resources={"tensor_parallel": 2})
    yield model(engine={"args": {"runner": "pooling"}})


def model(**fields: object) -> Manifest:
    return parse_manifest({"name": "m", "source": "file:///w", **fields})


def unknown(flags: Iterator[str], known: Surface) -> set[str]:
    """Flags that a version does not have; `--no-x` is the other side of `--x`."""
    names = {flag.partition("=")[0] for flag in flags}
    return {n for n in names
            if n not in known.flags and n.replace("--no-", "--", 1) not in known.flags}  # fmt: skip


def flags_of(settings: Iterator[str]) -> Iterator[str]:
    return ("--" + name.lstrip("-").replace("_", "-") for name in settings)


def test_kept_names_are_those_of_a_version_in_the_table() -> None:
    major, minor, *_ = kept().version.split(".")
    assert (int(major), int(minor)) in TABLE


def test_each_argument_that_a_manifest_becomes_is_one_of_the_versions(vllm: Surface) -> None:
    place = GangPlace(leader="e", rank=1, size=2, address="127.0.0.1", port=1)
    given = {flag for one in manifests() for flag in vllm_arguments(one, Path("/w"))}
    given |= set(gang_arguments(place)) | {"--host=127.0.0.1", "--port=1"}
    assert unknown(iter(given), vllm) == set()


def test_each_argument_of_profiles_and_tuning_is_one_of_the_versions(vllm: Surface) -> None:
    names = {name for path in FOLDER.glob("*.yaml") for layer in load_profiles(path).layers
             for name in layer.settings}  # fmt: skip
    assert unknown(flags_of(iter({*names, *CPU, *GPU})), vllm) == set()


def test_each_variable_is_one_of_the_versions(vllm: Surface) -> None:
    given = {*ENVIRONMENT, "VLLM_HOST_IP", "VLLM_CACHE_ROOT", "VLLM_WORKER_MULTIPROC_METHOD"}
    for one in manifests():
        other_build = one.model_copy(update={"engine": one.engine.model_copy(
            update={"build": "other"})})  # fmt: skip
        given |= set(vllm_environment(other_build, ("0",)))
    assert given - NOT_VLLMS - set(vllm.environment) == set()


def test_entry_points_and_the_recorders_names_are_there(vllm: Surface) -> None:
    assert EXEC_MODULE in vllm.modules
    missing = {name: members - set(vllm.classes[name]) for name, members in RECORDED.items()}
    assert {name: members for name, members in missing.items() if members} == {}
    by_position = (
        "process_outputs(self, engine_core_outputs, engine_core_timestamp, iteration_stats"
    )
    assert any(member.startswith(by_position) for member in vllm.classes["OutputProcessor"])


def test_routes_and_metrics_that_hosts_and_controller_ask_for_are_there(vllm: Surface) -> None:
    assert set(vllm.routes) >= ASKED
    told = {*vllm.metrics, *(f"{name}_total" for name in vllm.metrics)}  # a counter's ending
    assert told >= FAMILIES


def test_kept_names_are_what_the_wheel_says() -> None:
    """Where TEST_VLLM_FOLDER names the folder `vllm` of an unpacked wheel of that version."""
    if not (folder := os.environ.get("TEST_VLLM_FOLDER")):
        pytest.skip("TEST_VLLM_FOLDER does not name a folder of vLLM 0.26.0")
    assert json.loads(json.dumps(asdict(surface(Path(folder), "0.26.0")))) == asdict(kept())
