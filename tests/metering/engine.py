"""A fake engine with the real guard and the real recorder, and a tally of its own beside them.

    python -m tests.metering.engine PORT TALLY SEED

It makes as many tokens as `max_tokens` says, one for each chunk. Before a token leaves, it is
counted by the recorder, and then in the tally: a file of lines that nobody else writes.
Now and then it fails: an error before the first byte, a connection that breaks amid the answer.
"""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from serving import logs
from serving.engine import recorder
from serving.engine.guard import TokenGuard

SOUND_VARIABLE = "METERING_ENGINES_ARE_SOUND"
"""Environment variable: set, engines do not fail by themselves."""

FAILS = 0.02
BREAKS = 0.02
TOKEN_S = (0.0005, 0.006)


class Tally:
    """What this engine did, line by line: `+ attempt prompt`, then `.` for each token."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def began(self, attempt_id: str, prompt: int) -> None:
        os.write(self._fd, f"+ {attempt_id} {prompt}\n".encode())

    def made(self, attempt_id: str) -> None:
        os.write(self._fd, f". {attempt_id}\n".encode())


class Broken(Exception):
    """The connection breaks here."""


def create_app(tally: Tally, chance: random.Random) -> FastAPI:
    app = FastAPI()
    counts = recorder.of_this_process()
    assert counts is not None
    fails, breaks = (0.0, 0.0) if os.environ.get(SOUND_VARIABLE) else (FAILS, BREAKS)

    async def tokens(attempt_id: str, prompt: int, number: int) -> AsyncIterator[int]:
        counts.admit(attempt_id, f"chatcmpl-{attempt_id}")
        await asyncio.sleep(chance.uniform(*TOKEN_S))
        counts.prefill(attempt_id, prompt, 0)
        tally.began(attempt_id, prompt)
        breaks_at = chance.randrange(number) if chance.random() < breaks else None
        for done in range(1, number + 1):
            if done - 1 == breaks_at:
                raise Broken
            await asyncio.sleep(chance.uniform(*TOKEN_S))
            counts.produce(attempt_id, 1)
            tally.made(attempt_id)
            yield done

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(request: Request) -> Response | dict[str, object]:
        attempt_id = request.headers["x-request-id"]
        fields = orjson.loads(await request.body())
        prompt, number = len(fields["messages"][0]["content"]), int(fields["max_tokens"])
        if chance.random() < fails:
            return Response(b'{"error":{"message":"out of luck","code":500}}', 500)
        head = {"id": f"chatcmpl-{attempt_id}", "model": fields["model"], "created": 1}
        usage = {"prompt_tokens": prompt, "completion_tokens": number,
                 "total_tokens": prompt + number}  # fmt: skip
        if not fields.get("stream"):
            async for _ in tokens(attempt_id, prompt, number):
                pass
            message = {"role": "assistant", "content": "x" * number}
            choice = {"index": 0, "message": message, "finish_reason": "length",
                      "token_ids": [1] * number}  # fmt: skip
            return {**head, "object": "chat.completion", "choices": [choice], "usage": usage}

        async def events() -> AsyncIterator[bytes]:
            chunk = {**head, "object": "chat.completion.chunk"}
            yield _event(chunk, {"role": "assistant", "content": ""})
            async for _ in tokens(attempt_id, prompt, number):
                yield _event(chunk, {"content": "x"})
            yield b"data: " + orjson.dumps({**chunk, "choices": [], "usage": usage}) + b"\n\n"
            yield b"data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    app.add_middleware(TokenGuard)
    return app


def _event(chunk: dict[str, object], delta: dict[str, str]) -> bytes:
    tokens = [1] if delta["content"] else None
    choice = {"index": 0, "delta": delta, "finish_reason": None, "token_ids": tokens}
    return b"data: " + orjson.dumps({**chunk, "choices": [choice]}) + b"\n\n"


def main() -> None:
    logs.configure("engine")
    port, tally, seed = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    app = create_app(Tally(tally), random.Random(seed))
    config = uvicorn.Config(app, port=port, log_config=None, access_log=False, loop="uvloop",
                            timeout_keep_alive=120, timeout_graceful_shutdown=1)  # fmt: skip
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
