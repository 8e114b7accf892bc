"""Which of several controllers to ask: the one that leads, found by asking any of them. Pure.

A standby answers 503 and, to whoever shows the internal token, names the leader in LEADER_HEADER.
Who asked goes there, and comes back to the addresses of its settings when the leader is gone.
"""

LEADER_HEADER = "x-penstock-leader"
"""Base URL of the controller that leads, in a standby's answer."""


class Controllers:
    """The controllers' addresses, and the one that is asked now.

    Args:
        urls: Base URLs with commas between; a name that stands for all of them, as a Service of
            Kubernetes is, needs no other beside it.
    """

    def __init__(self, urls: str) -> None:
        self._known = tuple(url.strip().rstrip("/") for url in urls.split(",") if url.strip())
        self._next = 0
        self.url = self._known[0]

    def led_by(self, url: str | None) -> bool:
        """A standby was asked and named the leader, or knew none; whether to ask again at once."""
        if not url or url.rstrip("/") == self.url:
            self._turn()
            return False
        self.url = url.rstrip("/")
        return True

    def is_away(self, url: str) -> None:
        """The controller at `url` did not answer: another one is asked next.

        No effect where somebody noticed before: conversations go on side by side.
        """
        if url == self.url:
            self._turn()

    def _turn(self) -> None:
        """The next of the settings' addresses; also from a leader that one of them had named."""
        if self.url in self._known:
            self._next = (self._known.index(self.url) + 1) % len(self._known)
        self.url = self._known[self._next]
