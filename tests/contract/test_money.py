"""Whatever is called in whatever order: no MIST is lost, made, or paid to anybody but whose it is.

    held = staked + treasury + reward pool + earned rewards + deposits of open requests
    deposited + funded = held + withdrawn + paid out

where deposited is stake and request deposits, funded what sponsors gave, withdrawn stake, and paid out
rewards and refunds.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from contract_game import ACTIONS, RATCHET, VERSIONS, Game
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# 8 x 850 and 15 x 50 steps: more than 5,000
SEEDS, STEPS = (2, 3, 4, 6, 9, 12, 14, 18), 850
EXAMPLES, EXAMPLE_STEPS = 15, 50


@pytest.mark.parametrize("seed", SEEDS)
def test_random_calls_keep_the_money_right(seed: int) -> None:
    game = Game(random.Random(seed))  # noqa: S311 - reproducible on purpose
    game.play(STEPS)
    succeeded = {action for (action, error), _ in game.outcomes.items() if error is None}
    assert succeeded >= {*ACTIONS, RATCHET} - {"wait"}, "the dice never made it: change the seed"
    assert game.by_attested >= 20, "attested masters did next to nothing: change the seed"
    assert game.model.masters.version == VERSIONS, "not all versions were migrated to: change the seed"
    assert game.model.withdrawn, "nothing was ever withdrawn: change the seed"
    assert game.model.paid_out, "nothing was ever paid: change the seed"


@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(dice=st.randoms(use_true_random=False))
def test_no_short_sequence_breaks_it(dice: Any) -> None:
    """As above; what it finds is shrunk to the shortest sequence that shows it."""
    Game(dice).play(EXAMPLE_STEPS)
