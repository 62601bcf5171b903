"""Timing of calls."""

from functools import partial

from keras_matting.benchmarking.timing import take_turns, timed


def test_a_call_is_timed_as_often_as_asked_at_least():
    calls = []
    assert len(timed(lambda: calls.append(1), seconds=0, min_calls=3)) == len(calls) == 3


def test_calls_go_on_for_the_time_that_is_given():
    taken = timed(lambda: None, seconds=0.01, min_calls=1)
    assert len(taken) > 1
    assert all(ms >= 0 for ms in taken)


def test_ways_take_turns_in_an_order_that_changes_and_repeats():
    rounds, results = turns_of("abcd", 3)
    assert all(sorted(one) == list("abcd") for one in rounds)
    assert len(set(rounds)) > 1
    assert results["a"] == [[4 * number + one.index("a")] for number, one in enumerate(rounds)]
    assert turns_of("abcd", 3) == (rounds, results)


def turns_of(names, count):
    """Return (the order of each round, what `take_turns` gives) of ways that tell how many were visited before."""
    visited = []

    def visit(name):
        visited.append(name)
        return [len(visited) - 1]

    results = take_turns({name: partial(visit, name) for name in names}, count)
    return [tuple(visited[start : start + len(names)]) for start in range(0, len(visited), len(names))], results
