"""The hot path: one request from the tenant's door to an engine, and its bytes back.

Raw ASGI, because each streamed chunk passes here. A request holds a slot of one engine from the
moment it is sent until its answer is complete, broken off or no longer wanted. Until the first
byte of an engine's answer the tenant has seen nothing, so the request can go to another engine:

    could not be reached      the engine is ejected; as often as it takes until the deadline,
                              for the request never got there
    broke off                 once more, beside no other such request; of two engines it is put
                              into quarantine: it may be the request's doing; an engine that
                              somebody killed, as the controller says, does not count
    answered 5xx              at most MAX_BROKEN engines, then 502
    503 (engine's queue full) as often as it takes until the deadline
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from models.errors import BodyTooLargeError, PenstockError, UnavailableError, UpstreamError
from serving.gateway.auth import Keyring, check_model
from serving.gateway.bodies import TenantLeftError, read_body
from serving.gateway.body_budget import BodyBudget, Held
from serving.gateway.calls import Call, Reading, cache_salt
from serving.gateway.connection import TENANT, Tenant, WhileConnected
from serving.gateway.elsewhere import (
    FULL,
    is_elsewhere,
    rest_s,
    tokens_guessed,
    without_tokens,
)
from serving.gateway.endpoint import Endpoint
from serving.gateway.engines import EngineClient
from serving.gateway.errors import Answer, answer_of, answer_of_engine, sse_event
from serving.gateway.keepalive import KeepAlive, keep_alive_after_s
from serving.gateway.lane import Lane
from serving.gateway.lanes import Lanes
from serving.gateway.limits import LimitsToll
from serving.gateway.media import check_addresses
from serving.gateway.places import Place
from serving.gateway.quarantine import QuarantinedError, fingerprint
from serving.gateway.relay import EngineError, Relay
from serving.gateway.replies import EngineBrokeError, EngineGoneError, EngineReply
from serving.gateway.stream import Transcript, WholeLines, split_at_error, status_in_error
from serving.gateway.surface import Body, Operation
from serving.gateway.tasks import check_task
from serving.gateway.telemetry import GatewayMetrics
from serving.gateway.tokens import Tokens, last_usage
from serving.gateway.tolls import Toll, Way
from serving.gateway.visits import CLIENT_LEFT, Visit
from serving.logs import get_logger
from serving.protocol import ModelRoute, QuarantinedRequest

if TYPE_CHECKING:
    from serving.gateway.request_spans import RequestSpans

MAX_BROKEN = 2
"""A request that this many engines broke off, or failed on, is not tried again."""

BUSY_S = 0.25
"""An engine that answered 503 gets no request for this long."""

FAULT_PAUSE_S = 0.5
"""Wait before a request that an engine answered 5xx is tried again: where the engine is dying,
its endpoint is gone by then. The engine is not ejected, or one request could eject them all."""

DATA_URL = b"data:"

Headers = Sequence[tuple[bytes, bytes]]

log = get_logger(__name__)


class Verdict(Enum):
    """How one attempt ended."""

    ANSWERED = auto()  # the tenant has an answer, good or bad
    GONE = auto()  # no connection to the engine
    BROKE = auto()  # the engine took the request and broke off
    FAULT = auto()  # the engine answered that it failed
    BUSY = auto()  # the engine's own queue is full


@dataclass(frozen=True, slots=True)
class Limits:
    """What the settings bound on this path."""

    max_body_bytes: int  # without media
    deadline_s: float
    max_media_bytes: int = 0  # body with media, where it is more
    media_domains: frozenset[str] = frozenset()  # whose URLs an engine may fetch
    slow_client_timeout_s: float = 30.0  # of a tenant who does not read its stream


class Proxy:
    """ASGI endpoint of one operation."""

    def __init__(
        self,
        operation: Operation,
        limits: Limits,
        keyring: Keyring,
        lanes: Lanes,
        engines: EngineClient,
        metrics: GatewayMetrics,
        bodies: BodyBudget,
        tolls: Sequence[Toll] = (),
        caps: LimitsToll | None = None,
        spans: "RequestSpans | None" = None,
    ) -> None:
        self._operation = operation
        self._limits = limits
        self._keyring = keyring
        self._lanes = lanes
        self._engines = engines
        self._metrics = metrics
        self._bodies = bodies
        self._tolls = tolls
        self._caps = caps
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request.

        Raises:
            PenstockError: Before the answer has started; the door answers it.
            TenantLeftError: If the tenant left before the answer was complete.
        """
        visit = Visit(scope["state"]["request_id"], self._operation.path, time.monotonic())
        headers = scope["headers"]
        scope["state"]["headers"] = visit.headers
        if self._spans is not None:
            self._spans.begin(visit, headers)
        waiting: KeepAlive | None = None
        held: Held | None = None
        try:
            key = self._keyring.admit(visit, headers, scope.get("query_string", b""))
            held = Held(self._bodies, visit.org_id)
            reading = await self._read(receive, headers, held)
            check_model(key, reading.model)
            lane = self._lanes.get(reading.model)
            visit.model = reading.model
            check_task(lane.route, self._operation.path)
            if self._caps is not None:
                self._caps.cap_answer(visit, reading)
            call = call_for(lane.route, reading, visit)
            del reading  # it can be many times larger than the body, and the wait is long
            tenant: Tenant = scope[TENANT]
            after_s = keep_alive_after_s(headers, lane.route.keep_alive_s, streams=call.stream)
            waiting = KeepAlive(send, after_s, self._operation.shape)
            async with waiting:
                with WhileConnected(tenant), Way(visit) as way:
                    await way.enter(self._tolls, call)
                    await self._serve(call, lane, visit, way, tenant, waiting.send)
        except TenantLeftError:
            if not visit.complete:
                visit.status = CLIENT_LEFT
                raise
        except PenstockError as error:
            visit.status, visit.code = error.status, error.code or error.type
            if waiting is None or not await waiting.told(error):
                raise
        except asyncio.CancelledError:
            # The server's, when the drain time is over: a tenant's leaving is a TenantLeftError.
            await self._stop(visit, send, opened=waiting is not None and waiting.opened)
        except Exception:
            visit.status = 500
            raise
        finally:
            if held is not None:
                held.release()
            visit.close(self._metrics, time.monotonic())

    async def _read(self, receive: Receive, headers: Headers, held: Held) -> Reading:
        operation, limits = self._operation, self._limits
        text_cap = limits.max_body_bytes
        cap = text_cap if operation.body is Body.TEXT else max(text_cap, limits.max_media_bytes)
        body = await read_body(receive, headers, cap, held)
        if operation.body is Body.MEDIA and len(body) > text_cap and DATA_URL not in body:
            raise BodyTooLargeError(f"text is larger than {text_cap / 2**20:g} MiB")
        kind = content_type_of(headers) if operation.body is Body.FORM else ""
        reading = operation.read(body, kind, limits.media_domains)
        if reading.urls:
            await check_addresses(reading.urls, "messages")
        return reading

    async def _stop(self, visit: Visit, send: Send, *, opened: bool) -> None:
        if visit.complete:
            return
        stopping = UnavailableError("the gateway is being stopped")
        visit.cut = visit.streaming
        if not visit.streaming:
            visit.status = stopping.status
            if not opened:
                raise stopping
        body = sse_event(answer_of(stopping), self._operation.shape)
        await send({"type": "http.response.body", "body": body})

    async def _serve(
        self, call: Call, lane: Lane, visit: Visit, way: Way, tenant: Tenant, send: Send
    ) -> None:
        self._lanes.quarantine.check(call.model, call.body, visit.began_s)
        visit.start_id = visit.usage_id
        place = lane.place(visit, call, self._limits.deadline_s)
        again = False
        while True:
            async with lane.slot(place, again=again) as endpoint:
                visit.engine_id = endpoint.route.engine_id
                visit.revision = endpoint.route.revision
                visit.is_recorded = not endpoint.route.external
                visit.prompt_guess = place.prompt_tokens
                visit.attempts += 1
                visit.dispatched_s = time.monotonic()
                way.dispatched()
                if not again:
                    observe = self._metrics.queue_wait_of(visit.base).observe
                    waited_s = visit.dispatched_s - visit.began_s
                    asyncio.get_running_loop().call_soon(observe, waited_s)
                verdict = await self._attempt(call, lane, endpoint, visit, way, tenant, send)
                if verdict is Verdict.ANSWERED:
                    return
                place.avoid.add(visit.engine_id)
                if verdict is not Verdict.BUSY:
                    lane.note_failure(visit.revision)
                # While the slot is still held: the next in line must not get this engine.
                if verdict in (Verdict.GONE, Verdict.BROKE):
                    lane.eject(endpoint)
                elif verdict is Verdict.BUSY:
                    lane.pause(endpoint, BUSY_S)
            await self._before_next_try(verdict, call, lane, place, visit)
            again = True

    async def _before_next_try(
        self, verdict: Verdict, call: Call, lane: Lane, place: Place, visit: Visit
    ) -> None:
        log.warning("engine_attempt_failed", verdict=verdict.name.lower(), **visit.names())
        if verdict is Verdict.BROKE and not is_elsewhere(lane.route):
            place.died.append(visit.engine_id)
            if len(place.died) >= MAX_BROKEN:
                lane.alarm()  # the controller is asked at once
                place.died = await self._lanes.verdicts.without_killed(place.died)
            if len(place.died) >= MAX_BROKEN:
                raise self._quarantine(call, lane, place, visit)
        if verdict in (Verdict.BROKE, Verdict.FAULT):
            visit.broken.append(visit.engine_id)
            if len(self._lanes.verdicts.known(visit.broken)) >= MAX_BROKEN:
                log.error("request_given_up", engine_ids=visit.broken, **visit.names())
                raise UpstreamError("engines failed on this request twice; it is not tried again")
        self._metrics.retries.labels(visit.base).inc()
        pause_s = FAULT_PAUSE_S if verdict is Verdict.FAULT else 0.0
        if verdict is not Verdict.GONE:  # that one cost the engines nothing
            pause_s = max(pause_s, lane.retries.retry(time.monotonic()))
        left_s = place.deadline_s - time.monotonic()
        if pause_s:
            await asyncio.sleep(max(0.0, min(pause_s, left_s)))

    def _quarantine(self, call: Call, lane: Lane, place: Place, visit: Visit) -> QuarantinedError:
        known_as = fingerprint(call.model, call.body)
        self._lanes.quarantine.add(known_as, time.monotonic())
        lane.quarantined.append(
            QuarantinedRequest(
                model=call.model, fingerprint=known_as, request_id=visit.request_id,
                engine_ids=tuple(place.died),
            )
        )  # fmt: skip
        log.error(
            "request_quarantined", fingerprint=known_as, engine_ids=place.died, **visit.names()
        )
        return QuarantinedError()

    async def _attempt(
        self,
        call: Call,
        lane: Lane,
        endpoint: Endpoint,
        visit: Visit,
        way: Way,
        tenant: Tenant,
        send: Send,
    ) -> Verdict:
        posting = self._engines.post(
            endpoint.route, self._operation.path, call.body, visit.attempt_id, call.content_type,
            visit.trace.traceparent if visit.trace is not None else "",
        )  # fmt: skip
        try:
            async with posting as reply:
                if reply.status >= 300:
                    said = await reply.error_body()
                    if endpoint.route.external and reply.status in FULL:
                        lane.pause(endpoint, rest_s(reply.found))  # the quota is not the tenant's
                        return Verdict.BUSY
                    return await self._refused(reply.status, said, lane, visit, send)
                if reply.streams:
                    return await self._stream(call, reply, lane, visit, way, tenant, send)
                body = await reply.whole_body()
        except EngineGoneError as exc:
            log.warning("engine_not_reached", reason=str(exc), **visit.names())
            return Verdict.GONE
        except EngineBrokeError:
            return Verdict.BROKE
        headers = ((b"content-type", reply.content_type.encode("latin-1")),)
        self._note_first_byte(lane, visit)
        visit.tokens = last_usage(body)
        if visit.tokens is None and endpoint.route.external:
            visit.tokens = tokens_guessed(
                body, reply.content_type, call, visit.prompt_guess, lane.estimates
            )
            visit.estimated = True
        await way.cleared()
        visit.delivered = 1
        await self._answer(Answer(reply.status, body, headers), visit, send)
        return Verdict.ANSWERED

    async def _refused(
        self, status: int, said: bytes, lane: Lane, visit: Visit, send: Send
    ) -> Verdict:
        body = without_tokens(said, lane.route)
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            return Verdict.BUSY
        if status >= 500 and status != HTTPStatus.NOT_IMPLEMENTED:
            message = body[:1000].decode(errors="replace")
            log.error("engine_failed", status=status, message=message, **visit.names())
            return Verdict.FAULT
        answer = answer_of_engine(status, body).shaped(self._operation.shape)
        await self._answer(answer, visit, send)
        return Verdict.ANSWERED

    async def _answer(self, answer: Answer, visit: Visit, send: Send) -> None:
        visit.status = answer.status
        visit.complete = True
        await answer.send(send)

    def _note_first_byte(self, lane: Lane, visit: Visit) -> None:
        visit.first_byte_s = time.monotonic()
        after_s = visit.first_byte_s - visit.began_s
        # What is told of it waits until it has gone out, which is when this task waits next.
        loop = asyncio.get_running_loop()
        loop.call_soon(self._tell_first_byte, lane, visit, time.time(), after_s)

    def _tell_first_byte(self, lane: Lane, visit: Visit, at: float, after_s: float) -> None:
        self._metrics.ttft_of(visit.base).observe(after_s, {"usage_id": visit.usage_id})
        lane.note_first_token(visit.start_id, visit.engine_id, at, after_s)

    async def _stream(
        self,
        call: Call,
        reply: EngineReply,
        lane: Lane,
        visit: Visit,
        way: Way,
        tenant: Tenant,
        send: Send,
    ) -> Verdict:
        """Forwards a stream.

        Raises:
            EngineBrokeError: If the engine broke off before its first byte.
        """
        lines = WholeLines()
        transcript = Transcript(hide_usage=not call.include_usage)
        chunk = b""
        while not chunk:
            if not (arrived := await reply.next_bytes()):
                raise EngineBrokeError("the stream ended before its first event")
            chunk = lines.feed(arrived)
        chunk, error = split_at_error(chunk)
        if error and not chunk:
            return await self._refused(status_in_error(error), error, lane, visit, send)
        self._note_first_byte(lane, visit)
        await way.cleared()
        await self._start_stream(reply, visit, send)
        relay = Relay(reply, tenant, transcript, lines, self._limits.slow_client_timeout_s)
        relay.write(chunk)
        ended = False
        try:
            if error:
                raise EngineError(error)
            end = await relay.run()
            ended = True
        except EngineError as exc:
            error = without_tokens(exc.error, lane.route)
            end = self._cut(visit, error.decode(errors="replace"), error)
            if status_in_error(exc.error) >= 500:
                lane.note_failure(visit.revision)
        except EngineBrokeError as exc:
            visit.broken.append(visit.engine_id)
            end = self._cut(visit, str(exc))
        finally:
            note_tokens(visit, transcript.tokens, transcript.delivered, ended=ended)
        visit.complete = True
        await send({"type": "http.response.body", "body": end})
        return Verdict.ANSWERED

    async def _start_stream(self, reply: EngineReply, visit: Visit, send: Send) -> None:
        visit.status = reply.status
        visit.streaming = True
        headers = [
            (b"content-type", reply.content_type.encode("latin-1")),
            (b"cache-control", b"no-cache"),
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})

    def _cut(self, visit: Visit, reason: str, error: bytes = b"") -> bytes:
        """The event that ends a stream which broke: the engine's own words for a tenant's fault."""
        visit.cut = True
        log.warning("stream_cut", reason=reason[:1000], **visit.names())
        if error and status_in_error(error) < 500:
            answer = answer_of_engine(status_in_error(error), error)
        else:
            answer = answer_of(UpstreamError("the engine broke off during the answer"))
        return sse_event(answer, self._operation.shape)


def note_tokens(visit: Visit, told: Tokens | None, delivered: int, *, ended: bool) -> None:
    """Notes what a stream took. Anthropic's shape tells of the prompt at the beginning, and of no
    token yet: of a stream that broke, or was left, that is not what it took."""
    visit.tokens, visit.delivered = told, delivered
    if told is not None and not ended and told.completion < delivered:
        visit.tokens, visit.prompt_guess = None, told.prompt


def content_type_of(headers: Headers) -> str:
    """What a request says of its body; empty where it says nothing."""
    return next((v.decode("latin-1") for name, v in headers if name == b"content-type"), "")


def call_for(route: ModelRoute, reading: Reading, visit: Visit) -> Call:
    """What goes to the model's engines, or to servers that others run for it."""
    for endpoint in route.endpoints:
        if endpoint.external:
            return reading.call(model=endpoint.model)
    return reading.call(cache_salt(visit.org_id or visit.key_id))
