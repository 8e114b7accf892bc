"""Tasks that run beside others, and their end."""

import asyncio
from typing import Any


async def cancel(*tasks: "asyncio.Task[Any] | None") -> None:
    """Cancels tasks and waits for their end, whatever it is; None is one that never began."""
    begun = [task for task in tasks if task is not None]
    for task in begun:
        task.cancel()
    await asyncio.gather(*begun, return_exceptions=True)
