"""How many bytes of bodies a gateway holds at once, all requests together.

A request keeps its body until its answer is complete, for it may have to go to another engine. The
caps of single bodies and the line's bound in requests leave gigabytes: 1,000 bodies of 32 MiB. So
large bodies come out of one budget, before they are read; who finds none left is answered 503 with
Retry-After. No owner holds more than OWNERS_SHARE of it, so that one who sends large bodies slowly
keeps no other out.
"""

from collections import Counter

from models.errors import UnavailableError

SMALL_BYTES = 64 * 2**10
"""Bodies up to this size are not counted: the line bounds their number, so that they are some tens
of MiB; short prompts pass, and pay nothing, while large bodies wait."""

OWNERS_SHARE = 0.5

RETRY_AFTER_S = 2.0


class BodiesFullError(UnavailableError):
    """The bodies of other requests take all the memory that there is for them."""

    code = "bodies_full"


class BodyBudget:
    """The bytes of all large bodies.

    Args:
        limit_bytes: That they may have together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._by_owner: Counter[str] = Counter()
        self.held = 0

    def take(self, owner: str, size: int) -> None:
        """So many bytes more are an owner's.

        Raises:
            BodiesFullError: If there are not as many; then none are taken.
        """
        share = max(int(self._limit * OWNERS_SHARE), 1)
        if self.held + size > self._limit or self._by_owner[owner] + size > share:
            raise BodiesFullError(
                "the large bodies of other requests take all the room there is for them; send this "
                "one again later",
                retry_after_s=RETRY_AFTER_S,
            )
        self.held += size
        self._by_owner[owner] += size

    def give_back(self, owner: str, size: int) -> None:
        """So many bytes of an owner's are free again."""
        self.held -= size
        self._by_owner[owner] -= size
        if not self._by_owner[owner]:
            del self._by_owner[owner]


class Held:
    """What one request holds of a budget.

    Args:
        budget: Of all requests.
        owner: Whose request it is: an organisation.
    """

    __slots__ = ("_budget", "_owner", "_size")

    def __init__(self, budget: BodyBudget, owner: str) -> None:
        self._budget = budget
        self._owner = owner
        self._size = 0

    def grow_to(self, size: int) -> None:
        """The body has so many bytes, or is to have them.

        Raises:
            BodiesFullError: If there are not as many.
        """
        if size > SMALL_BYTES and size > self._size:
            self._budget.take(self._owner, size - self._size)
            self._size = size

    def release(self) -> None:
        """The body is needed no more."""
        if self._size:
            self._budget.give_back(self._owner, self._size)
            self._size = 0
