"""Models made on the spot are models: their files can be read by those who will."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from tokenizers import Tokenizer

from loadtests.gpu.plan import LLAMA_8B, LLAMA_70B_FP8, TINY
from loadtests.gpu.shapes import write
from models.config_json import read_architecture, weights_of
from models.model_folder import check_folder
from models.precision import Precision


def test_shapes_have_as_many_parameters_as_their_names_say() -> None:
    assert LLAMA_8B.parameters == 8_030_261_248
    assert LLAMA_70B_FP8.parameters == 70_553_706_496
    assert read_architecture(LLAMA_8B.config()).parameters == LLAMA_8B.parameters
    assert weights_of(LLAMA_70B_FP8.config()) is Precision.FP8


def test_written_model_can_be_read(tmp_path: Path) -> None:
    write(TINY, tmp_path, weights=True)
    check_folder(tmp_path, pickle=False)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index) == {name for name, _ in TINY.tensors()}
    (file,) = set(index.values())
    with safe_open(tmp_path / file, "np") as weights:  # type: ignore[no-untyped-call]
        assert weights.get_slice("lm_head.weight").get_shape() == [2048, 128]
    raw = np.fromfile(tmp_path / file, np.uint8)
    assert len(raw) > 2 * TINY.parameters


def test_every_word_is_one_token_and_every_token_a_word(tmp_path: Path) -> None:
    write(TINY, tmp_path, weights=False)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert len(tokenizer.encode("w1 anything w2 at all").ids) == 5
    assert tokenizer.decode([3, 2047]) == "w1 w2045"
    assert tokenizer.get_vocab_size() == 2048


@pytest.mark.parametrize("shape", [LLAMA_70B_FP8])
def test_weights_that_vllm_makes_up_take_no_room(shape, tmp_path: Path) -> None:
    write(shape, tmp_path, weights=False)
    check_folder(tmp_path, pickle=False)
    assert (tmp_path / "model.safetensors").stat().st_size < 1 << 20
