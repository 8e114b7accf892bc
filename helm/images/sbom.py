"""Writes what is installed here as a CycloneDX 1.6 bill of materials: `python sbom.py FILE`."""

import json
import re
import sys
from importlib import metadata
from pathlib import Path


def component(found: metadata.Distribution) -> dict[str, object]:
    """One installed package, by its package URL."""
    name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
    licence = found.metadata.get("License-Expression") or found.metadata.get("License") or ""
    entry: dict[str, object] = {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{found.version}",
        "name": name,
        "version": found.version,
        "purl": f"pkg:pypi/{name}@{found.version}",
    }
    if licence and len(licence) < 100:
        entry["licenses"] = [{"license": {"name": licence}}]
    return entry


def main() -> int:
    """Returns 0."""
    packages = {d.metadata["Name"].lower(): component(d) for d in metadata.distributions()}
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "penstock"}},
        "components": [packages[name] for name in sorted(packages)],
    }
    Path(sys.argv[1]).write_text(json.dumps(bill, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
