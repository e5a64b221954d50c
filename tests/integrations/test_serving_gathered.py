"""Requests that come meanwhile travel together, and each gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from dist_relu.integrations.ray_serve.bodies import Question, Refused, Reply
from dist_relu.integrations.ray_serve.gathering import Gatherer
from dist_relu.integrations.ray_serve.limits import MOST_QUEUED


class Replica:
    """Answers each question with its own content, when it is told to."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.may_answer = asyncio.Event()

    async def call(self, questions: Sequence[Question]) -> Sequence[Reply]:
        self.calls.append(len(questions))
        await self.may_answer.wait()
        if any(question.content == b"wrong" for question in questions):
            raise ValueError("wrong")
        return [Reply(status=200, content=question.content) for question in questions]


def question(content: str) -> Question:
    return Question(content=content.encode(), media_type="", accept="", is_v2=False)


async def ask(gatherer: Gatherer[Question, Reply], contents: Sequence[str]) -> list[asyncio.Task[Reply]]:
    """Ask all of it at once, as far as that a call is on its way or nothing can be."""
    tasks = [asyncio.create_task(gatherer.ask(question(content))) for content in contents]
    await asyncio.sleep(0.01)
    return tasks


def test_the_first_goes_at_once_and_others_together_when_it_is_back() -> None:
    async def scenario() -> tuple[list[int], list[bytes]]:
        replica = Replica()
        gatherer = Gatherer(replica.call, most_calls=1, most_questions=4)
        tasks = await ask(gatherer, [str(number) for number in range(10)])
        assert replica.calls == [1]
        replica.may_answer.set()
        return replica.calls, [(await task).content for task in tasks]

    calls, answers = asyncio.run(scenario())
    assert calls == [1, 4, 4, 1]
    assert answers == [str(number).encode() for number in range(10)]


def test_what_goes_wrong_with_a_call_is_told_to_those_who_were_in_it() -> None:
    async def scenario() -> list[Reply | BaseException]:
        replica = Replica()
        tasks = await ask(Gatherer(replica.call, most_calls=1, most_questions=2), ["alone", "wrong", "beside", "later"])
        replica.may_answer.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    alone, wrong, beside, later = asyncio.run(scenario())
    assert isinstance(alone, Reply)
    assert (str(wrong), str(beside)) == ("wrong", "wrong")
    assert isinstance(later, Reply)


def test_those_who_have_left_are_not_asked_for() -> None:
    async def scenario() -> list[int]:
        replica = Replica()
        _, leaves, stays = tasks = await ask(Gatherer(replica.call, most_calls=1, most_questions=9), ["a", "b", "c"])
        leaves.cancel()
        replica.may_answer.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert stays.result().content == b"c"
        return replica.calls

    assert asyncio.run(scenario()) == [1, 1]


def test_when_too_many_wait_others_are_refused_at_once() -> None:
    async def scenario() -> None:
        replica = Replica()
        gatherer = Gatherer(replica.call, most_calls=1, most_questions=100)
        tasks = await ask(gatherer, ["x"] * (MOST_QUEUED + 1))
        with pytest.raises(Refused) as refused:
            await gatherer.ask(question("one too many"))
        assert refused.value.status == 503
        replica.may_answer.set()
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_those_that_are_asked_together_travel_together_and_wait_for_others_if_they_shall() -> None:
    async def scenario(wait_s: float) -> list[int]:
        replica = Replica()
        replica.may_answer.set()
        gatherer = Gatherer(replica.call, most_calls=1, most_questions=4, wait_s=wait_s)
        (alone,) = await ask(gatherer, ["c"])
        answers = await gatherer.ask_all([question("a"), question("b")])
        assert [answer.content for answer in (*answers, await alone)] == [b"a", b"b", b"c"]
        return replica.calls

    assert asyncio.run(scenario(0.0)) == [1, 2]
    assert asyncio.run(scenario(1.0)) == [3]
