"""Accounts for the KV cache in blocks, with a prefix cache over them. Pure: no time, no I/O.

A block is *private* while its sequence still fills it, and *sealed* under the hash of all tokens
up to its end once it is full. Sealed blocks are shared by every sequence with the same beginning;
those that nobody holds stay until their room is needed, the longest unused ones going first.
"""

from collections import OrderedDict
from collections.abc import Sequence

Token = str | int


def block_hashes(tokens: Sequence[Token], block_tokens: int) -> list[int]:
    """One hash for each full block of `tokens`; each covers all tokens up to the block's end."""
    hashes: list[int] = []
    for end in range(block_tokens, len(tokens) + 1, block_tokens):
        hashes.append(next_hash(hashes, tokens[end - block_tokens : end]))
    return hashes


def next_hash(hashes: Sequence[int], block: Sequence[Token]) -> int:
    """The hash of the full `block` that follows the blocks of `hashes`."""
    return hash((hashes[-1] if hashes else 0, *block))


class BlockPool:
    """The blocks of one engine.

    Two sequences that compute the same block at the same time are merged when it is sealed; a
    real engine keeps both copies until one is freed.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._holders: dict[int, int] = {}
        self._unheld: OrderedDict[int, None] = OrderedDict()
        self._private = 0

    @property
    def used(self) -> int:
        """Blocks that some sequence holds."""
        return self._private + len(self._holders)

    def match(self, hashes: Sequence[int]) -> int:
        """How many of the leading blocks are in the cache."""
        count = 0
        for block in hashes:
            if block not in self._holders and block not in self._unheld:
                break
            count += 1
        return count

    def hold(self, hashes: Sequence[int]) -> None:
        """Holds sealed blocks that `match` has found."""
        for block in hashes:
            self._unheld.pop(block, None)
            self._holders[block] = self._holders.get(block, 0) + 1

    def grow(self, count: int) -> bool:
        """Takes `count` private blocks; false, and nothing taken, where there is no room."""
        if self.used + count > self.total:
            return False
        self._private += count
        while self.used + len(self._unheld) > self.total:
            self._unheld.popitem(last=False)
        return True

    def seal(self, block: int) -> None:
        """Turns one private block into a sealed one that its sequence holds."""
        self._private -= 1
        self.hold([block])

    def release(self, hashes: Sequence[int], private: int) -> None:
        """Gives back what a sequence holds; of its sealed blocks the last is forgotten first."""
        self._private -= private
        for block in reversed(hashes):
            self._holders[block] -= 1
            if self._holders[block] == 0:
                del self._holders[block]
                self._unheld[block] = None
