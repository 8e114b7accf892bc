"""What may be used of which vLLM."""

import pytest

from serving.engine.versions import PUBLIC_ONLY, TABLE, Build, installed


@pytest.mark.parametrize("version", ["0.32.0", "0.32.1.dev4+g1234", "0.32"])
def test_known_version_is_run_in_process(version: str) -> None:
    assert Build(version).reach == TABLE[0, 32]
    assert Build(version).reach.in_process


def test_second_build_is_executed_by_its_public_entry_point_and_recorded() -> None:
    reach = Build("0.26.0").reach
    assert not reach.in_process
    assert reach.recorder


@pytest.mark.parametrize("version", ["0.33.0", "0.3.2", "1.32.0", "0.320.0", "dev", ""])
def test_nothing_inner_is_used_where_the_table_ends(version: str) -> None:
    assert Build(version).reach == PUBLIC_ONLY


def test_installed_build_is_told_as_launchers_tell_it() -> None:
    build = installed()
    assert build is None or str(build) == f"vllm {build.version}"
