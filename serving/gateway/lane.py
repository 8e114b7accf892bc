"""A model's lane: grants slots of its engines to requests, and lets the others wait."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from models.adapters_spec import served_name, split_name
from models.errors import DeadlineError, ModelFailedError, PenstockError
from serving.gateway.affinity import keys_of
from serving.gateway.balancer import Balancer
from serving.gateway.bell import Bell
from serving.gateway.calls import Call
from serving.gateway.desk import Desk
from serving.gateway.endpoint import Endpoint
from serving.gateway.estimates import Estimates
from serving.gateway.objectives import misses, tpot_s
from serving.gateway.places import AdapterAwayError, LaneLimits, Place, not_found
from serving.gateway.prefill import PrefillSpeed
from serving.gateway.queue import WaitingLine
from serving.gateway.retries import RetryBudget
from serving.gateway.slot import Slot
from serving.gateway.tally import Tally
from serving.gateway.tickets import tier_of
from serving.gateway.trials import Trials, Turns
from serving.gateway.visits import Visit
from serving.protocol import FirstToken, ModelRoute, ModelState, QuarantinedRequest

NAMED_KEPT = 16
"""Requests of a model, named as the cause of a start, whose first token is waited for."""

TRIAL_S = 1.0
"""An engine that lives for so long with a request on trial that shows no first byte survives it."""

Alarm = Callable[[], None]


class Lane:
    """One model: its route, its engines, and who waits for them."""

    def __init__(self, route: ModelRoute, limits: LaneLimits, alarm: Alarm) -> None:
        self.route = route
        self.line: WaitingLine[Place] = WaitingLine(limits.max_queued, limits.max_queued_tokens)
        self.balancer = Balancer(limits.prefill_tokens)
        self._desk = Desk(self.line, self.balancer)
        self.estimates = Estimates()
        self.retries = RetryBudget()
        self.tally = Tally()
        self.retired = False
        self.reported = False  # whether the last demand report spoke of this model
        self.named: deque[str] = deque(maxlen=NAMED_KEPT)  # start_ids told to the controller
        self.first_tokens: list[FirstToken] = []  # to be told with the next report
        self.quarantined: list[QuarantinedRequest] = []  # to be told with the next report
        self._prefill = PrefillSpeed()
        self._running: dict[str, tuple[Place, Endpoint]] = {}
        self.alarm = alarm
        self.bell = Bell(alarm)
        self.trials = Trials()
        self._turns = Turns()
        self._apart, self._max_apart = 0, limits.max_queued  # who waits for adapters to be loaded
        self._adapters_moved = asyncio.Event()
        self._follow(route)

    def place(self, visit: Visit, call: Call, deadline_s: float) -> Place:
        """A ticket for a request that has just come, with what it is going to take as estimated.

        Args:
            deadline_s: How long it may wait, since it came.
        """
        tenant = visit.org_id or visit.key_id
        adapter = split_name(call.model)[1]
        place = Place(
            visit.start_id,
            visit.began_s,
            visit.began_s + deadline_s,
            tenant=tenant,
            weight=visit.weight,
            tier=tier_of(call.service_tier),
            prompt_tokens=self.estimates.prompt(call.prompt_bytes),
            output_tokens=self.estimates.output(call.max_tokens, call.n),
            adapter=adapter,
            keys=keys_of(tenant, call.session, call.prefix, adapter),
            visit=visit,
            streams=call.stream,
            prompt_bytes=call.prompt_bytes,
            answers=call.n,
            tries_new=self._turns.tries_new(self.route.canary, tenant, call.session),
        )
        self.tally.arrived(place.prompt_tokens, place.output_tokens)
        self.retries.request()
        return place

    def slot(self, place: Place, *, again: bool = False) -> Slot:
        """Room for one request in an engine, for as long as the block runs.

        Args:
            again: The request had a slot before, and waits at the head of the line.

        Raises:
            QueueFullError: If too many requests wait already.
            DeadlineError: If the place's deadline passes first.
            ModelFailedError: If the model's engines do not start.
            ModelNotFoundError: If the model is deleted meanwhile.
        """
        return Slot(self, place, again)

    async def take(self, place: Place, again: bool) -> Endpoint:
        """As `slot`, for whoever gives it back."""
        return await (
            self._take_adapted(place, again) if place.adapter else self._take(place, again)
        )

    def give_back(self, place: Place, endpoint: Endpoint) -> None:
        """The slot is free for the next in line."""
        self._release(place, endpoint)
        self.pump()

    def update(self, route: ModelRoute) -> None:
        """Follows the routing table."""
        self.route = route
        self.retired = False
        self._follow(route)
        if self.failed:
            self._send_away(self.line.clear(), self._failure)
        # Nobody else waits behind those whose adapter no engine has.
        lacking = {a.name for a in route.adapters if self._lacks(a.name)}
        self._send_away(self.line.waiting_for(lacking) if lacking else [], AdapterAwayError)
        self._adapters_moved.set()
        self._adapters_moved = asyncio.Event()
        self.pump()

    def has(self, adapter: str) -> bool:
        """Whether the model has such an adapter, loaded or not."""
        return any(one.name == adapter for one in self.route.adapters)

    def _follow(self, route: ModelRoute) -> None:
        news = () if route.canary is None else route.canary.revisions
        self.balancer.update(route.endpoints, time.monotonic(), news)

    def retire(self) -> None:
        """The model is deleted: nobody new comes in, those who wait are sent away."""
        self.retired = True
        self.balancer.update((), time.monotonic())
        self._send_away(self.line.clear(), lambda: not_found(self.route.name))
        self._adapters_moved.set()

    def eject(self, endpoint: Endpoint, for_s: float | None = None) -> None:
        """Keeps requests from an endpoint that failed, for longer each time, or for `for_s`."""
        now_s = time.monotonic()
        until_s = endpoint.breaker.failed(now_s, for_s)
        asyncio.get_running_loop().call_later(max(0.0, until_s - now_s), self.pump)

    def pause(self, endpoint: Endpoint, for_s: float) -> None:
        """Keeps requests from an endpoint for a moment: it is well, and has its fill."""
        endpoint.breaker.pause(time.monotonic() + for_s)
        asyncio.get_running_loop().call_later(for_s, self.pump)

    def note_first_token(self, start_id: str, engine_id: str, at: float, after_s: float) -> None:
        """The first byte of an answer is here; told at once where it ends a cold start."""
        if (running := self._running.get(start_id)) is not None:
            self._prefilled(*running)
        if start_id in self.named:
            self.named.remove(start_id)
            token = FirstToken(start_id=start_id, engine_id=engine_id, at=at, after_s=after_s)
            self.first_tokens.append(token)
            self.alarm()

    def note_failure(self, revision: int) -> None:
        """An attempt failed, by no fault of its tenant's; a canary's gate wants to know."""
        if self.route.canary is not None:
            self.trials.failed(revision)

    def _note_answer(
        self, place: Place, endpoint: Endpoint, first_byte_s: float, now_s: float, output: int
    ) -> None:
        if self.route.canary is None:
            return
        ttft_s = first_byte_s - place.sent_s if place.streams else None
        pace_s = tpot_s(first_byte_s, now_s, output) if place.streams else None
        self.trials.answered(endpoint.route.revision, ttft_s, pace_s)

    def prefill_excuse_s(self, endpoint: Endpoint) -> float:
        """How long the endpoint may be silent over prompts that no byte has answered yet."""
        unanswered = (
            ticket.prompt_tokens
            for ticket in endpoint.loads
            if isinstance(ticket, Place)
            and (ticket.visit is None or ticket.visit.first_byte_s is None)
        )
        return self._prefill.excuse_s(sum(unanswered))

    def pump(self) -> None:
        """Grants free slots in the order of the line."""
        now_s = time.monotonic()
        for place, endpoint in self._desk.grants(now_s):
            self._sent(place, endpoint, now_s)
            if place.granted is not None and not place.granted.done():
                place.granted.set_result(endpoint)

    @property
    def failed(self) -> bool:
        """Whether nothing can serve the model until an operator has looked."""
        return self.route.state is ModelState.FAILED and not self.route.endpoints

    def _lacks(self, adapter: str) -> bool:
        """Whether there are engines, and none of them has the adapter."""
        return bool(self.route.endpoints) and not self.balancer.has(adapter)

    async def _take_adapted(self, place: Place, again: bool) -> Endpoint:
        """As `_take`, of a request that only engines with its adapter can serve.

        While none of those that are ready has it, as just after it was added, the request waits
        beside the line: it must not keep others from engines that serve them.
        """
        while True:
            if self._lacks(place.adapter):
                await self._until_loaded(place)
            try:
                return await self._take(place, again)
            except AdapterAwayError:
                continue

    async def _until_loaded(self, place: Place) -> None:
        if self._apart >= self._max_apart:
            raise self.line.full(time.monotonic())
        self._apart += 1
        try:
            async with asyncio.timeout(place.deadline_s - time.monotonic()):
                while self._lacks(place.adapter):
                    route = next((a for a in self.route.adapters if a.name == place.adapter), None)
                    served = served_name(self.route.name, place.adapter)
                    if route is None or self.retired:
                        raise not_found(served)
                    if route.failed:
                        raise ModelFailedError(f"{served} has failed: its adapter was not loaded")
                    await self._adapters_moved.wait()
        except TimeoutError:
            waited_s = time.monotonic() - place.arrived_s
            raise DeadlineError(
                f"no engine of {self.route.name} had its adapter within {waited_s:.0f} s"
            ) from None
        finally:
            self._apart -= 1

    async def _take(self, place: Place, again: bool) -> Endpoint:
        now_s = time.monotonic()
        if self.retired:
            raise not_found(self.route.name)
        if self.failed:
            raise self._failure()
        endpoint = (self._desk.come_again if again else self._desk.come)(place, now_s)
        if endpoint is not None:
            self._sent(place, endpoint, now_s)
            return endpoint
        place.granted = asyncio.get_running_loop().create_future()
        if again:
            self.line.rejoin(place)
        else:
            gone = self.line.join(place, now_s)
            self._send_away(gone, lambda: self.line.full(now_s))
            if self.balancer.room(now_s)[0] > 0:  # those before it are not the ones to have it
                self.pump()
        if not self.balancer.can_serve(now_s):
            self.bell.joined(len(self.line), now_s, asyncio.get_running_loop().call_later)
        return await self._wait(place, place.granted)

    async def _wait(self, place: Place, granted: asyncio.Future[Endpoint]) -> Endpoint:
        try:
            async with asyncio.timeout(place.deadline_s - time.monotonic()):
                return await granted
        except TimeoutError:
            self._give_up(place, granted)
            now_s = time.monotonic()
            raise DeadlineError(
                f"no engine of {self.route.name} was free within {now_s - place.arrived_s:.0f} s",
                retry_after_s=self.line.retry_after_s(now_s),
            ) from None
        except BaseException:
            self._give_up(place, granted)
            raise

    def _sent(self, place: Place, endpoint: Endpoint, now_s: float) -> None:
        place.sent_s = now_s
        self._running[place.start_id] = (place, endpoint)
        if not place.streams:
            # Its first byte comes with the last: when its prompt is done has to be guessed.
            guess_s = self._prefill.seconds_for(endpoint.prefill_tokens)
            asyncio.get_running_loop().call_later(guess_s, self._guess_prefilled, place, endpoint)
            if place.on_trial:
                asyncio.get_running_loop().call_later(TRIAL_S, self._acquit, place, endpoint)

    def _guess_prefilled(self, place: Place, endpoint: Endpoint) -> None:
        if place in endpoint.loads:
            endpoint.prefilled(place)
            self.pump()

    def _acquit(self, place: Place, endpoint: Endpoint) -> None:
        endpoint.acquit(place)
        self.pump()

    def _prefilled(self, place: Place, endpoint: Endpoint) -> None:
        if place.streams:
            self._prefill.learn(endpoint.prefill_tokens, time.monotonic() - place.sent_s)
        endpoint.prefilled(place)
        endpoint.acquit(place)
        endpoint.breaker.succeeded()
        if self.line:
            self.pump()

    def _give_up(self, place: Place, granted: asyncio.Future[Endpoint]) -> None:
        """Frees the place, and the slot too where it was granted in the same moment."""
        self.line.leave(place)
        if granted.done() and not granted.cancelled() and granted.exception() is None:
            self._release(place, granted.result())
        self.pump()

    def _release(self, place: Place, endpoint: Endpoint) -> None:
        """The slot is free; what the request took is known, or as good as."""
        self._running.pop(place.start_id, None)
        tokens = self._settle(place, endpoint)
        self._desk.release(place, endpoint, tokens, time.monotonic())
        endpoint.breaker.gave_up()

    def _settle(self, place: Place, endpoint: Endpoint) -> int:
        """Tokens that the tenant pays for in the order of the line."""
        visit, now_s = place.visit, time.monotonic()
        if visit is None:
            return place.tokens
        if visit.cut and endpoint.route.engine_id in visit.broken:
            self.eject(endpoint)
            self.note_failure(endpoint.route.revision)
        prompt, output = place.prompt_tokens, visit.delivered
        if not visit.complete or visit.cut:
            return prompt + output if place.left or visit.streaming else 0
        if visit.status >= 300 or visit.first_byte_s is None:
            return 0
        if visit.tokens is not None:
            prompt, output = visit.tokens.prompt, visit.tokens.completion
            if not visit.estimated:
                self.estimates.learn(place.prompt_bytes, place.answers, visit.tokens)
        missed = misses(
            self.route, streamed=place.streams, began_s=visit.began_s,
            first_byte_s=visit.first_byte_s, ended_s=now_s, output_tokens=output,
        )  # fmt: skip
        self.tally.answered(prompt, output, missed=missed)
        self._note_answer(place, endpoint, visit.first_byte_s, now_s, output)
        if place.streams:
            tpot = tpot_s(visit.first_byte_s, now_s, output)
            endpoint.pace.note(visit.first_byte_s - place.sent_s, tpot)
        return prompt + output

    def _send_away(self, places: list[Place], error: Callable[[], PenstockError]) -> None:
        for place in places:
            if place.granted is not None and not place.granted.done():
                place.granted.set_exception(error())

    def _failure(self) -> ModelFailedError:
        reason = self.route.reason or "its engine does not start"
        return ModelFailedError(f"{self.route.name} has failed: {reason}")
