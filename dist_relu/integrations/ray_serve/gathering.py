"""Requests that have come meanwhile travel to a replica together: a call of Ray costs more than a small prediction."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import final

from dist_relu.integrations.ray_serve.bodies import Question, Refused, Reply
from dist_relu.integrations.ray_serve.limits import MOST_QUEUED


@final
class Gatherer:
    """Asks questions in calls of several, of which only so many are made at a time.

    A question that finds no call on its way goes alone and at once; those that come while all calls are on their way go
    with the next one, in their order. Lives in one event loop.
    call: gets questions answered, in their order.  most_calls: at a time.  most_questions: in a call.
    """

    def __init__(
        self, call: Callable[[Sequence[Question]], Awaitable[Sequence[Reply]]], most_calls: int, most_questions: int
    ) -> None:
        self._call, self._most_calls, self._most_questions = call, most_calls, most_questions
        self._waiting: deque[tuple[Question, asyncio.Future[Reply]]] = deque()
        self._calls: set[asyncio.Task[None]] = set()

    async def ask(self, question: Question) -> Reply:
        """Get a question answered.  Raises `Refused` where too many wait, and what the call raises."""
        if len(self._waiting) >= MOST_QUEUED:
            raise Refused(503, "More requests wait than can be answered soon. Try again later.")
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        self._send()
        reply: Reply = await answer
        return reply

    def _send(self) -> None:
        if self._waiting and len(self._calls) < self._most_calls:
            number = min(len(self._waiting), self._most_questions)
            asked = [self._waiting.popleft() for _ in range(number)]
            task = asyncio.create_task(self._answer(asked))
            self._calls.add(task)
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._send()

    async def _answer(self, asked: list[tuple[Question, asyncio.Future[Reply]]]) -> None:
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
