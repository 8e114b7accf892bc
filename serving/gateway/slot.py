"""Room for one request in an engine, held while a block runs."""

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

from serving.gateway.endpoint import Endpoint
from serving.gateway.places import Place

if TYPE_CHECKING:
    from serving.gateway.lane import Lane


class Slot:
    """Taken when the block is entered, given back when it is left. A class: a generator's block
    costs twice as much."""

    __slots__ = ("_again", "_endpoint", "_lane", "_place")

    def __init__(self, lane: "Lane", place: Place, again: bool) -> None:
        self._lane = lane
        self._place = place
        self._again = again
        self._endpoint: Endpoint | None = None

    async def __aenter__(self) -> Endpoint:
        self._endpoint = await self._lane.take(self._place, self._again)
        return self._endpoint

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._place.left = True
        if self._endpoint is not None:
            self._lane.give_back(self._place, self._endpoint)
