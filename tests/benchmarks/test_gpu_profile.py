"""The profile's table: kernels by the device's time, and how long the device was busy beside the step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from benchmarks import gpu_profile


def on_card(name, microseconds, device="DeviceType.CUDA"):
    return SimpleNamespace(
        name=name,
        device_type=device,
        time_range=SimpleNamespace(elapsed_us=lambda: microseconds),
        self_cpu_time_total=7.0,
    )


EVENTS = [
    on_card("mix", 200.0),
    on_card("mix", 400.0),
    on_card("pool", 200.0),
    on_card("launch", 999.0, "DeviceType.CPU"),
]


def test_on_a_card_its_kernels_count_and_python_does_not():
    found = gpu_profile.kernels(EVENTS, on_card=True, steps=2)
    assert set(found) == {"mix", "pool"}
    assert found["mix"] == pytest.approx((1.0, 3e-4))
    assert found["pool"] == pytest.approx((0.5, 1e-4))


def test_elsewhere_operators_count_by_their_own_time():
    assert gpu_profile.kernels(EVENTS[-1:], on_card=False, steps=1) == {"launch": (1.0, 7e-6)}


def test_the_table_begins_with_what_takes_most():
    found = {"seconds": [1e-3], "kernels": {"pool": (0.5, 1e-4), "mix": (1.0, 3e-4)}}
    lines = gpu_profile.table("W1", found).splitlines()
    assert lines[0] == "W1: 1.000 ms a step without the profiler, 0.400 ms busy in 2 kernels"
    assert [line.split()[-1] for line in lines[2:4]] == ["mix", "pool"]
    assert lines[2].split()[:2] == ["0.3000", "75.0%"]


def test_a_small_step_is_profiled():
    found = gpu_profile.profiled("batched", "first", "cpu", small=True)()
    assert len(found["seconds"]) == gpu_profile.STEPS
    assert sum(seconds for _, seconds in found["kernels"].values()) > 0
