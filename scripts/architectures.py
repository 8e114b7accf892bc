"""Writes `models/architectures.txt` from the installed vLLM; `--check` only compares."""

import sys

from vllm.model_executor.models.registry import ModelRegistry

from models.architectures import FILE


def main() -> int:
    """Returns 0, or with `--check` 1 where the list is another vLLM's."""
    text = "\n".join(sorted(ModelRegistry.get_supported_archs())) + "\n"
    if "--check" in sys.argv[1:]:
        return int(FILE.read_text("utf-8") != text)
    FILE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
