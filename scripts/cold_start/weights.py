"""The models that sleep: five of the demo's size, all different, and one of 100M parameters."""

import json
import shutil
import subprocess
import sys
from functools import cached_property
from pathlib import Path

from models.sources import BUILTINS

GUIDE = BUILTINS["guide"]
MAKE_MODEL = Path(__file__).parents[1] / "make_model.py"
LARGE = "large-100m"
DEMOS = 5


class Models:
    """Makes each model when it is first asked for, below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def demos(self) -> list[Path]:
        """Copies of the demo model with weights of their own, in two shapes."""
        return [make_demo(self._folder / f"demo-{n}", seed=n) for n in range(DEMOS)]

    @cached_property
    def large(self) -> Path:
        """A model of 100M parameters with random weights; its tokenizer is the demo's."""
        command = [sys.executable, MAKE_MODEL, self._folder / LARGE]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self._folder / LARGE


def make_demo(folder: Path, seed: int) -> Path:
    """A copy of the demo model with weights of its own; every second one has a layer less."""
    from safetensors.torch import load_file, save_file  # 2 s, and only here
    from torch import Generator, randn

    shutil.copytree(GUIDE, folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    tensors = load_file(GUIDE / "model.safetensors")
    if seed % 2:
        last = config["num_hidden_layers"] - 1
        config["num_hidden_layers"] = last
        config["layer_types"] = config["layer_types"][:last]
        tensors = {n: t for n, t in tensors.items() if not n.startswith(f"model.layers.{last}.")}
    noise = Generator().manual_seed(seed)
    tensors = {
        name: (t.float() * (1 + 1e-3 * randn(t.shape, generator=noise))).to(t.dtype)
        for name, t in tensors.items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder
