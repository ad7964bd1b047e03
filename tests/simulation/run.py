"""A randomised life of the whole suite against a model of it."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.simulation.machine import Life
from tests.simulation.world import open_world

STEPS = int(os.environ.get("OSPAY_SIMULATION_STEPS", "2000"))
STEPS_OF_A_LIFE = 100


@pytest.mark.timeout(60 + STEPS)
def test_whatever_happens_nothing_is_credited_wrongly_and_all_comes_to_its_end(tmp_path: Path) -> None:
    """Orders, payments, claims, reorganisations, lying endpoints, kills: safety always, liveness at the end."""
    chosen = int(os.environ.get("OSPAY_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"OSPAY_TEST_SEED={chosen}")  # noqa: T201  # shown when the test fails
    # Processes and a chain that goes on cannot be wound back: a failure is not shrunk, it is told with its seed.
    chosen_settings = settings(
        max_examples=max(1, STEPS // STEPS_OF_A_LIFE),
        stateful_step_count=STEPS_OF_A_LIFE,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    with open_world(tmp_path) as Life.world:
        run_state_machine_as_test(seed(chosen)(Life), settings=chosen_settings)
