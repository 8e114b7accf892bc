"""Parts of a bench that end alone: what each took, and what of it could not be measured."""

import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(kw_only=True)
class PartedReport:
    """What every bench in parts tells beside its figures."""

    expected: ClassVar[tuple[type[Exception], ...]] = ()
    """What ends a part, and no other one."""

    parts_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    left_out: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    load_before: float = field(default_factory=lambda: os.getloadavg()[0])

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Notes how long a part takes, and what of it cannot be measured."""
        began_s = time.monotonic()
        try:
            yield
        except self.expected as error:
            self.problems.append(f"{name}: {error}")
            sys.stderr.write(f"error: {self.problems[-1]}\n")
        finally:
            self.parts_s[name] += time.monotonic() - began_s
