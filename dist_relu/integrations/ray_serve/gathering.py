"""Requests that have come meanwhile go together: a call of Ray costs more than a small prediction."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar, final

from dist_relu.integrations.ray_serve.bodies import Refused
from dist_relu.integrations.ray_serve.limits import MOST_QUEUED

Question = TypeVar("Question")
Answer = TypeVar("Answer")


@final
class Gatherer(Generic[Question, Answer]):
    """Asks questions in calls of several, of which only so many are made at a time.

    A question that finds no call on its way goes alone and at once; those that come while all calls are on their way go
    with the next one, in their order. Lives in one event loop.
    call: gets questions answered, in their order.  most_calls: at a time.  most_questions: in a call.
    wait_s: so long those that could go wait for others.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]],
        most_calls: int,
        most_questions: int,
        wait_s: float = 0.0,
    ) -> None:
        self._call, self._most_calls, self._most_questions, self._wait_s = call, most_calls, most_questions, wait_s
        self._waiting: deque[tuple[Question, asyncio.Future[Answer]]] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, question: Question) -> Answer:
        """Get a question answered.  Raises `Refused` where too many wait, and what the call raises."""
        (answer,) = await self.ask_all([question])
        return answer

    async def ask_all(self, questions: Sequence[Question]) -> Sequence[Answer]:
        """Get questions answered, which travel together as far as they may.  Raises as `ask` does."""
        if len(self._waiting) >= MOST_QUEUED:
            raise Refused(503, "More requests wait than can be answered soon. Try again later.")
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[Answer]] = [loop.create_future() for _ in questions]
        self._waiting.extend(zip(questions, answers, strict=True))
        self._send(has_waited=not self._wait_s)
        return await asyncio.gather(*answers)

    def _send(self, *, has_waited: bool) -> None:
        while self._waiting and len(self._calls) < self._most_calls:
            if not has_waited and len(self._waiting) < self._most_questions:
                self._timer = self._timer or asyncio.get_running_loop().call_later(self._wait_s, self._stop_waiting)
                return
            number = min(len(self._waiting), self._most_questions)
            asked = [self._waiting.popleft() for _ in range(number)]
            task = asyncio.create_task(self._answer(asked))
            self._calls.add(task)
            task.add_done_callback(self._end)

    def _stop_waiting(self) -> None:
        self._timer = None
        self._send(has_waited=True)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._send(has_waited=not self._wait_s)

    async def _answer(self, asked: list[tuple[Question, asyncio.Future[Answer]]]) -> None:
        asked = [(question, answer) for question, answer in asked if not answer.done()]  # whose client has not left
        if not asked:
            return
        try:
            replies = await self._call([question for question, _ in asked])
        except Exception as error:
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), reply in zip(asked, replies, strict=True):
            if not answer.done():
                answer.set_result(reply)
