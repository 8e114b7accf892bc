"""The fake engine's routes, and the loop that turns due tokens into bytes."""

import asyncio
import time
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from loadtests.alarm import Alarm
from loadtests.fake.answers import Answer
from loadtests.fake.blocks import Token
from loadtests.fake.embedding import embed
from loadtests.fake.faults import Fault, FaultKind, fault_for, parse_fault
from loadtests.fake.http1 import Connection, Reply, Request
from loadtests.fake.ledger import Ledger
from loadtests.fake.openai import (
    ApiError,
    Generation,
    Renderer,
    parse_chat,
    parse_completion,
    reply_words,
    tokenize,
)
from loadtests.fake.timeline import Emission, Sequence, Timeline


@dataclass(frozen=True, slots=True)
class Identity:
    """What the engine says of itself, and how it answers."""

    model: str = "fake"
    token: str | None = None
    """Bearer token that every route asks for; None asks for none."""
    max_model_len: int = 131_072
    default_tokens: int = 128
    """Length of a reply whose request names none; it ends with `stop`."""
    seed: int = 0
    report_due: bool = False
    """Each chunk tells in `penstock_due_s` when it was due (CLOCK_MONOTONIC, seconds)."""


class FakeEngine:
    """An OpenAI-compatible engine whose tokens cost nothing but time."""

    def __init__(
        self, identity: Identity, timeline: Timeline, faults: tuple[Fault, ...] = (),
        ledger: Ledger | None = None,
    ) -> None:  # fmt: skip
        self.identity = identity
        self._timeline = timeline
        self._faults = faults
        self._ledger = ledger
        self._answers: dict[Sequence, Answer] = {}
        self._connections: set[Connection] = set()
        self._requests = 0
        self._frozen = False
        self._late_s = 0.0  # the largest so far
        self._started = int(time.time())
        self._alarm: Alarm | None = None
        self._server: asyncio.Server | None = None
        self._routes: dict[tuple[str, str], Callable[[Request, Reply], None]] = {
            ("GET", "/health"): lambda _request, reply: reply.send(200, b"", "text/plain"),
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/models"): self._models,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/v1/chat/completions"): lambda request, reply: self._generate(
                parse_chat(request.body), request, reply
            ),
            ("POST", "/v1/completions"): lambda request, reply: self._generate(
                parse_completion(request.body), request, reply
            ),
            ("POST", "/v1/embeddings"): self._embed,
            ("PUT", "/fake/faults"): self._set_faults,
        }

    async def listen(self, host: str, port: int) -> int:
        """Starts to serve; gives back the port, which matters where 0 was asked for."""
        self._alarm = Alarm(self._ring)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._handle, self._connections), host, port, backlog=4096
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stops listening and drops all connections."""
        if self._server is not None:
            self._server.close()
            for connection in list(self._connections):
                connection.close()
            await self._server.wait_closed()
            await asyncio.sleep(0)  # lets the closed connections say so
        if self._alarm is not None:
            self._alarm.close()
            self._alarm = None
        if self._ledger is not None:
            self._ledger.close()

    def _handle(self, request: Request, reply: Reply) -> None:
        try:
            self._authorize(request)
            route = self._routes.get((request.method, request.path))
            if route is None:
                known = any(path == request.path for _method, path in self._routes)
                raise ApiError(*((405, "Method Not Allowed") if known else (404, "Not Found")))
            route(request, reply)
        except ApiError as error:
            reply.send(error.status, error.body())

    def _authorize(self, request: Request) -> None:
        token = self.identity.token
        if token is not None and request.headers.get("authorization") != f"Bearer {token}":
            raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")

    def _generate(self, wanted: Generation, request: Request, reply: Reply) -> None:
        if wanted.model != self.identity.model:
            raise ApiError(
                404, f"The model `{wanted.model}` does not exist.", param="model",
                code="model_not_found",
            )  # fmt: skip
        prompt_tokens = max(len(prompt) for prompt in wanted.prompts)
        room = self.identity.max_model_len - prompt_tokens
        if room < max(1, wanted.max_tokens or 0):
            raise ApiError(
                400,
                f"This model's maximum context length is {self.identity.max_model_len} tokens, "
                f"but {prompt_tokens} in the prompt and {wanted.max_tokens} to generate were "
                "asked for.",
                code="context_length_exceeded",
            )
        self._requests += 1
        fault = fault_for(self._faults, self._requests, self.identity.seed)
        if fault is not None and fault.kind in _STATUSES:
            raise _STATUSES[fault.kind]()
        answer = self._answer(wanted, request, reply, room, fault)
        if fault is not None and fault.kind is FaultKind.SLOW:
            asyncio.get_running_loop().call_later(fault.seconds, self._submit, answer)
        else:
            self._submit(answer)

    def _answer(
        self, wanted: Generation, request: Request, reply: Reply, room: int, fault: Fault | None
    ) -> Answer:
        seed = wanted.seed if wanted.seed is not None else self._requests
        sequences = [
            Sequence(
                prompt=prompt,
                max_tokens=min(wanted.max_tokens or self.identity.default_tokens, room),
                reply=reply_words(self._reply_start(prompt, choice)),
                seed=seed + choice,
            )
            for prompt in wanted.prompts
            for choice in range(wanted.n)
        ]
        request_id = request.headers.get("x-request-id") or uuid.uuid4().hex
        answer_id = ("chatcmpl-" if wanted.chat else "cmpl-") + request_id
        return Answer(
            wanted,
            reply,
            Renderer(chat=wanted.chat, model=wanted.model, answer_id=answer_id),
            sequences,
            request_id=request_id,
            reason="length" if wanted.max_tokens is not None else "stop",
            fault=fault,
            report_due=self.identity.report_due,
            forget=self._forget,
            freeze=self._freeze,
        )

    def _reply_start(self, prompt: list[Token], choice: int) -> int:
        """Equal prompts get equal replies; the last tokens are enough to tell them apart."""
        end = " ".join(str(token) for token in prompt[-64:])
        return zlib.crc32(f"{self.identity.seed} {choice} {end}".encode())

    def _submit(self, answer: Answer) -> None:
        if answer.gone:
            return
        now_s = time.monotonic()
        for sequence in answer.sequences:
            self._answers[sequence] = answer
            self._timeline.submit(sequence, now_s)
            if self._ledger is not None:
                self._ledger.arrived(sequence, answer.request_id, now_s)
        self._set_alarm()

    def _forget(self, answer: Answer) -> None:
        for sequence in answer.sequences:
            self._answers.pop(sequence, None)
            self._timeline.cancel(sequence)
            if self._ledger is not None:
                self._ledger.forget(sequence)

    def _freeze(self) -> None:
        self._frozen = True

    def _set_alarm(self) -> None:
        due_s = self._timeline.next_due_s()
        if due_s is not None and self._alarm is not None and not self._frozen:
            self._alarm.set(due_s)

    def _ring(self) -> None:
        now_s = time.monotonic()
        emissions: list[Emission] = self._timeline.advance(now_s)
        if emissions:
            self._late_s = max(self._late_s, now_s - emissions[0].due_s)
        for emission in emissions:
            answer = self._answers.get(emission.sequence)
            if answer is not None and not self._frozen:
                if emission.last:
                    del self._answers[emission.sequence]
                answer.take(emission)
                if self._ledger is not None:
                    self._ledger.written(emission, time.monotonic())
        self._set_alarm()

    def _set_faults(self, request: Request, reply: Reply) -> None:
        """Replaces the faults: a JSON list of specs. Counting of requests starts anew."""
        try:
            specs = orjson.loads(request.body)
            self._faults = tuple(parse_fault(str(spec)) for spec in specs)
        except (ValueError, TypeError) as error:
            raise ApiError(400, str(error)) from error
        self._requests = 0
        self._frozen = False
        self._set_alarm()
        reply.send(200, b"{}")

    def _tokenize(self, request: Request, reply: Reply) -> None:
        reply.send(200, tokenize(request.body, self.identity.max_model_len))

    def _embed(self, request: Request, reply: Reply) -> None:
        reply.send(200, embed(request.body, self.identity.model))

    def _models(self, _request: Request, reply: Reply) -> None:
        model = {
            "id": self.identity.model,
            "object": "model",
            "created": self._started,
            "owned_by": "penstock",
            "max_model_len": self.identity.max_model_len,
        }
        reply.send(200, orjson.dumps({"object": "list", "data": [model]}))

    def _metrics(self, _request: Request, reply: Reply) -> None:
        counters = self._timeline.counters
        lines: list[str] = []
        for kind, name, value in (
            ("gauge", "num_requests_running", self._timeline.running),
            ("gauge", "num_requests_waiting", self._timeline.waiting),
            ("gauge", "kv_cache_usage_perc", self._timeline.kv_usage),
            ("counter", "prefix_cache_queries_total", counters.cache_queries),
            ("counter", "prefix_cache_hits_total", counters.cache_hits),
            ("counter", "prompt_tokens_total", counters.prompt_tokens),
            ("counter", "generation_tokens_total", counters.generation_tokens),
            ("counter", "num_preemptions_total", counters.preemptions),
        ):
            label = f'{{engine="0",model_name="{self.identity.model}"}}'
            lines += [f"# TYPE vllm:{name} {kind}", f"vllm:{name}{label} {float(value)}"]
        lines += ["# TYPE fake_late_seconds_max gauge", f"fake_late_seconds_max {self._late_s}"]
        reply.send(200, ("\n".join(lines) + "\n").encode(), "text/plain; version=0.0.4")


_STATUSES: dict[FaultKind, Callable[[], ApiError]] = {
    FaultKind.TOO_MANY: lambda: ApiError(
        429, "Too many requests.", kind="rate_limit_error", code="rate_limit_exceeded"
    ),
    FaultKind.INTERNAL: lambda: ApiError(500, "The engine failed.", kind="server_error"),
    FaultKind.UNAVAILABLE: lambda: ApiError(503, "The engine is full.", kind="server_error"),
}
