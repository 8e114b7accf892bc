"""The page of the tuned profiles, for `scripts/reference.py`."""

from collections.abc import Sequence

from models.profile import COMMON, FOLDER, Layer, load_profiles


def profiles_page(made: str) -> str:
    """All layers of all profiles, with the reason for each value."""
    lines = [
        "# Profiles",
        made,
        "What `profile: throughput`, `latency` or `balanced` of a manifest sets. Of two rows that "
        "fit, the later one counts: first the rows for all models, then those of the model. What "
        "the manifest gives itself wins over all of them. *estimated*: by the sizing planner or by "
        "reasoning, and measured by nobody; *published*: by the source that is named; *measured*: "
        "by us. `penstock tune` measures on your hardware.",
    ]
    files = [FOLDER / f"{COMMON}.yaml"]
    files += sorted(path for path in FOLDER.glob("*.yaml") if path.stem != COMMON)
    for path in files:
        found = load_profiles(path)
        lines += ["", f"## {found.model or 'All models'}", ""]
        lines += ["| for | argument | value | mark | why |", "| --- | --- | --- | --- | --- |"]
        for layer in found.layers:
            lines += _rows(layer)
    return "\n".join(lines) + "\n"


def _rows(layer: Layer) -> Sequence[str]:
    where = "; ".join(
        ", ".join(part) for part in (layer.goals, layer.accelerators, layer.tasks) if part
    )
    rows = []
    for name, setting in layer.settings.items():
        value = "vLLM's own" if setting.value is None else f"`{_shown(setting.value)}`"
        mark = setting.mark.value + (f": {setting.source}" if setting.source else "")
        rows.append(f"| {where or 'all'} | `{name}` | {value} | {mark} | {setting.why} |")
    return rows


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
