"""What a model is for, as its config.json and its arguments say."""

from typing import Any

import pytest

from models.tasks import Task, task_of


@pytest.mark.parametrize(
    ("architecture", "args", "files", "task"),
    [
        ("Qwen3ForCausalLM", {}, (), Task.GENERATE),
        ("Gemma3ForConditionalGeneration", {}, (), Task.GENERATE),
        ("Qwen3ForCausalLM", {"runner": "pooling"}, (), Task.EMBED),
        ("Qwen3ForCausalLM", {"--convert": "classify"}, (), Task.CLASSIFY),
        ("Qwen3ForCausalLM", {}, ("modules.json",), Task.EMBED),
        ("XLMRobertaModel", {}, (), Task.EMBED),
        ("XLMRobertaForSequenceClassification", {"runner": "pooling"}, (), Task.CLASSIFY),
        # Only the engine knows: another architecture is run, or the name says nothing.
        ("Qwen3ForCausalLM", {"hf_overrides": "{}"}, (), None),
        ("UltravoxModel", {}, (), None),
        ("BertForTokenClassification", {}, (), None),
        ("Qwen2ForRewardModel", {"runner": "pooling"}, (), None),
    ],
)
def test_task_is_told_by_the_architecture_and_the_arguments(
    architecture: str, args: dict[str, Any], files: tuple[str, ...], task: Task | None
) -> None:
    assert task_of({"architectures": [architecture]}, files, args) is task


def test_config_that_names_no_architecture_tells_nothing() -> None:
    assert task_of({}, (), {}) is None
