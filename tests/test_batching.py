import asyncio

import numpy as np
import pytest
from keras_matting_api.batching import Batcher


class Engine:
    """Doubles its input in batches, where told not before `go`; a value of 13 poisons its batch."""

    def __init__(self, waits=False):
        self.sizes, self.begun, self.go = [], asyncio.Event(), asyncio.Event()
        if not waits:
            self.go.set()

    async def run(self, batch):
        self.begun.set()
        await self.go.wait()
        self.sizes.append(len(batch))
        if 13 in batch:
            raise ValueError("13")
        return batch * 2


async def diagnose(error):
    return RuntimeError(f"diagnosed: {error}")


def solve(work, engine, **options):
    async def main():
        batcher = Batcher(engine.run, diagnose, **options)
        try:
            return await work(batcher)
        finally:
            await batcher.close()

    return asyncio.run(main())


def submit_all(values):
    async def work(batcher):
        return await asyncio.gather(*(batcher.submit(np.array(value)) for value in values), return_exceptions=True)

    return work


def test_what_waits_is_run_together_and_each_gets_its_own():
    engine = Engine()
    answers = solve(submit_all(range(10)), engine, max_batch=4)
    assert [int(answer.result) for answer in answers] == [value * 2 for value in range(10)]
    assert engine.sizes == [4, 4, 2]


@pytest.mark.parametrize("poisoned", [(0,), (5,), (1, 2, 6), tuple(range(8))])
def test_a_poisoned_item_fails_alone(poisoned):
    values = [13 if index in poisoned else index + 100 for index in range(8)]
    answers = solve(submit_all(values), Engine(), max_batch=8)
    for value, answer in zip(values, answers, strict=True):
        if value == 13:
            assert str(answer) == "diagnosed: 13"
        else:
            assert int(answer.result) == value * 2


def test_who_left_is_not_computed():
    engine = Engine(waits=True)

    async def work(batcher):
        tasks = [asyncio.create_task(batcher.submit(np.array(value))) for value in range(3)]
        await engine.begun.wait()
        tasks[1].cancel()
        engine.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, cancelled, last = solve(work, engine, max_batch=1)
    assert (int(first.result), int(last.result)) == (0, 4)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert engine.sizes == [1, 1]


def test_a_batch_waits_for_its_delay_to_be_filled():
    engine = Engine()

    async def work(batcher):
        first = asyncio.create_task(batcher.submit(np.array(1)))
        for _ in range(100):  # rounds of the loop, in which it would run
            await asyncio.sleep(0)
        assert not engine.begun.is_set()
        second = asyncio.create_task(batcher.submit(np.array(2)))
        return await asyncio.gather(first, second)

    first, second = solve(work, engine, max_batch=2, max_delay_s=60.0)
    assert engine.sizes == [2]
    assert first.queue_ms > second.queue_ms


def test_a_batch_that_is_not_filled_runs_after_its_delay():
    engine = Engine()
    (answer,) = solve(submit_all([3]), engine, max_batch=8, max_delay_s=0.02)
    assert (int(answer.result), engine.sizes) == (6, [1])


def test_closing_lets_nobody_wait_forever():
    engine = Engine(waits=True)

    async def work(batcher):
        task = asyncio.create_task(batcher.submit(np.array(1)))
        await engine.begun.wait()
        await batcher.close()
        return await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 5)

    (left,) = solve(work, engine, max_batch=1)
    assert isinstance(left, asyncio.CancelledError)
