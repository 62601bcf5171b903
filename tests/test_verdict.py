"""Which engine is chosen, on rounds that are made up: each engine's time in each round."""

import numpy as np
import pytest

from keras_matting.benchmarking.comparison import MIN_ROUNDS, compare, fastest, upper_bound
from keras_matting.benchmarking.selection import Gate, refusal, select
from keras_matting.errors import UsageError

RANDOM = np.random.default_rng


def measured(engine, ms, *, mae=0.0, worst=0.0, finite=True, memory=100, load=1.0, batch4_ms=None):
    """A result of an engine whose rounds took `ms` each, or one number for ten quiet rounds."""
    speeds = [(1, ms)] + ([(4, batch4_ms)] if batch4_ms is not None else [])
    quiet = 1 + 1e-3 * np.cos(np.arange(10) * (1 + len(engine)))
    rounds = {n: np.broadcast_to(t * quiet if np.isscalar(t) else t, np.shape(t) or (10,)) for n, t in speeds}
    return {
        "engine": engine,
        "error": {"finite": finite, "mae": mae, "worst_photo_mae": worst, "max": worst, "photo_maes": [0.0, worst]},
        "speed": [
            {"batch": n, "rounds_ms": [None if np.isnan(ms) else ms for ms in of.tolist()]} for n, of in rounds.items()
        ],
        "peak_memory_mb": memory,
        "load_s": load,
    }


def noisy(ms, seed, rounds=18, sigma=0.02):
    return ms * RANDOM(seed).lognormal(0, sigma, rounds)


def states(times, margin=0.05):
    return {name: compared["state"] for name, compared in compare(times, margin)[1].items()}


def test_the_fastest_that_passes_the_gate_is_chosen():
    results = [
        measured("slow", 50),
        measured("fast", 20),
        measured("wrong", 5, mae=0.01),
        measured("nan", 1, finite=False),
    ]
    verdict = select(results, "latency")
    assert (verdict["engine"], verdict["certain"]) == ("fast", True)
    assert verdict["refused"] == {
        "wrong": "mae 0.0100 is above 0.005",
        "nan": "its output has NaN or infinity",
    }
    assert set(verdict["comparisons"]) == {"slow", "fast"}
    assert verdict["comparisons"]["slow"]["ratio"] == pytest.approx(2.5, rel=0.01)
    assert "slow takes 2.50 times as long (2.50 to 2.50) as fast" in verdict["reason"]


def test_one_bad_photo_is_enough_to_be_refused_and_the_gate_is_settable():
    error = measured("a", 1, mae=0.001, worst=0.03)["error"]
    assert "worst photo mae" in refusal(error, Gate())
    assert refusal(error, Gate(worst_photo_mae=0.05)) is None


def test_the_gate_says_over_how_many_photos_and_can_bound_the_share_of_photos_to_come():
    result = measured("a", 1)
    result["error"]["photo_maes"] = [0.001] * 30
    seen = select([result], "latency")["photos"]["a"]
    assert (seen["above"], seen["photos"], round(seen["share_at_most"], 3)) == (0, 30, 0.095)
    why = refusal(result["error"], Gate(max_share=0.05))
    assert why == "0 of 30 photos above 0.02: at most 9.5 % of such (95 %), which is above 5.0%"
    assert refusal(result["error"], Gate(max_share=0.1)) is None


@pytest.mark.parametrize(
    ("count", "n", "bound"),  # R's binom.test(count, n, alternative="less")
    [(0, 30, 0.0950), (0, 300, 0.00994), (1, 30, 0.1486), (10, 300, 0.0559), (3, 3, 1.0), (0, 1, 0.95)],
)
def test_the_bound_of_a_share_is_the_exact_binomial_one(count, n, bound):
    assert upper_bound(count, n) == pytest.approx(bound, rel=2e-3)


@pytest.mark.parametrize(
    ("fast", "slower", "winner", "why"),
    [
        ({"memory": 9, "load": 1}, {"memory": 5, "load": 9, "mae": 1e-3}, "slower", "memory"),
        ({"memory": 102, "load": 9}, {"memory": 100, "load": 9.5, "mae": 1e-3}, "fast", "error"),
        ({"memory": 102, "load": 1}, {"memory": 100, "load": 9}, "fast", "load time"),
        ({"mae": 1e-3}, {"mae": 0}, "slower", "error"),
        ({"mae": 4e-7}, {"mae": 0}, "fast", "error"),  # float32's rounding is no error
    ],
)
def test_among_equals_memory_then_load_time_then_error_decide(fast, slower, winner, why):
    verdict = select([measured("fast", 20, **fast), measured("slower", 20.6, **slower)], "latency")
    assert (verdict["engine"], verdict["certain"]) == (winner, True)
    assert f"equal for latency within 5%; {winner} has the least {why}" in verdict["reason"]


def test_three_percent_slower_is_equal_and_ten_is_not_and_the_margin_is_settable():
    times = {"best": noisy(100, 1), "near": noisy(103, 2), "far": noisy(110, 3)}
    assert states(times) == {"best": "fastest", "near": "equal", "far": "slower"}
    assert states(times, margin=0.2)["far"] == "equal"
    assert states(times, margin=0.005)["near"] != "equal"


@pytest.mark.parametrize("seed", range(20))
def test_a_drift_of_the_machine_by_two_does_not_hide_or_make_a_difference(seed):
    drift = np.linspace(1, 2, 18)
    times = {"best": drift * noisy(100, 3 * seed), "far": drift * noisy(112, 3 * seed + 1)}
    times["near"] = drift * noisy(100.5, 3 * seed + 2)
    assert states(times)["far"] == "slower"
    assert "slower" not in (states(times)["near"], states(times)["best"])


def test_rounds_that_some_sat_out_on_a_drifting_machine_favour_nobody():
    drift = np.linspace(1, 3, 18)
    sat_out = np.where(np.arange(18) < 9, drift * 105, np.nan)  # has only the fast half of the rounds
    times = {"best": drift * 100, "other": sat_out}
    assert fastest(times) == "best"
    assert compare(times)[1]["other"]["rounds"] == 9


@pytest.mark.parametrize("seed", range(20))
def test_spikes_in_a_fifth_of_the_rounds_change_no_state(seed):
    random = RANDOM(seed)
    times = {name: noisy(ms, seed * 5 + index, 36) for index, (name, ms) in enumerate([("a", 100), ("b", 115)])}
    for own in times.values():
        own[random.choice(36, 7, replace=False)] *= random.uniform(2, 6, 7)
    assert states(times) == {"a": "fastest", "b": "slower"}


@pytest.mark.parametrize("seed", range(50))
def test_an_engine_that_takes_2_7_times_as_long_is_never_chosen_under_heavy_noise(seed):
    random = RANDOM(seed)
    mood = random.lognormal(0, 0.5, 9)  # of the machine, which all share
    results = [
        measured("fast", 93 * mood * random.lognormal(0, 0.3, 9), memory=400, load=3, mae=1e-3),
        measured("slow", 250 * mood * random.lognormal(0, 0.3, 9), memory=100, load=1),
    ]
    assert select(results, "latency")["engine"] == "fast"


def test_true_ties_are_shown_to_be_equal_and_the_same_engine_wins_each_time():
    chosen = []
    for seed in range(20):
        names = {"a": 300, "b": 100, "c": 200}
        results = [
            measured(name, noisy(100, seed * 3 + index, 36), memory=memory)
            for index, (name, memory) in enumerate(names.items())
        ]
        chosen.append(select(results, "latency")["engine"])
    assert set(chosen) == {"b"}


def test_not_shown_to_differ_is_not_equal():
    times = {"a": noisy(100, 1, 9, sigma=0.2), "b": noisy(104, 2, 9, sigma=0.2)}
    best = fastest(times)
    assert sorted(states(times).values()) == ["fastest", "undecided"]
    results = [measured(name, own, memory=100 + 900 * (name == best)) for name, own in times.items()]
    verdict = select(results, "latency")
    assert (verdict["engine"], verdict["certain"]) == (best, False)  # though the other takes less memory
    assert verdict["open"] == [name for name in times if name != best]
    assert "Not certain: " in verdict["reason"]


def test_what_could_not_win_anyway_leaves_no_doubt():
    times = {"a": noisy(100, 1, 9, sigma=0.2), "b": noisy(104, 2, 9, sigma=0.2)}
    best = fastest(times)
    results = [measured(name, own, memory=1000 - 900 * (name == best)) for name, own in times.items()]
    assert select(results, "latency")["certain"]


def test_fewer_rounds_than_an_interval_needs_show_nothing():
    def certain(rounds):
        return select([measured("a", np.full(rounds, 10.0), memory=9), measured("b", np.full(rounds, 90.0))], "latency")

    assert certain(MIN_ROUNDS - 1)["comparisons"]["b"]["state"] != "slower"
    assert certain(MIN_ROUNDS)["comparisons"]["b"]["state"] == "slower"


def test_throughput_looks_at_each_engine_s_best_batch():
    results = [measured("single", 10, batch4_ms=44), measured("batched", 12, batch4_ms=20)]
    assert select(results, "latency")["engine"] == "single"
    verdict = select(results, "throughput")
    assert verdict["engine"] == "batched"
    assert {name: compared["batch"] for name, compared in verdict["comparisons"].items()} == {"single": 1, "batched": 4}
    with pytest.raises(UsageError, match="received 'beauty'"):
        select(results, "beauty")


def test_no_engine_is_chosen_where_none_passes():
    verdict = select([measured("a", 1, mae=1)], "latency")
    assert (verdict["engine"], verdict["reason"]) == (None, "No engine passed the gate.")
