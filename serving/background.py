"""Tasks that run beside others: their end, and how they wait."""

import asyncio
from typing import Any


async def cancel(*tasks: "asyncio.Task[Any] | None") -> None:
    """Cancels tasks and waits for their end, whatever it is; None is one that never began."""
    begun = [task for task in tasks if task is not None]
    for task in begun:
        task.cancel()
    if begun:
        await asyncio.gather(*begun, return_exceptions=True)


async def set_within(event: asyncio.Event, seconds: float | None) -> bool:
    """Waits for an event, but no longer than so (None: for ever); whether it came.

    Not `wait_for`: in Python 3.11 it swallows a cancelling that comes with the event.
    """
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
