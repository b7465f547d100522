"""What the operator sets about requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from k3s_daas.requests.policy import RESOURCES
from k3s_daas.requests.schema import METHODS, encode

ROLE = Path(__file__).parents[3] / "roles" / "master"


def test_the_roles_defaults_are_all_that_can_be_allowed(config: Any) -> None:
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    assert defaults["master_request_methods"] == list(METHODS) == config.request_methods
    assert defaults["master_request_resources"] == list(RESOURCES) == config.request_resources


@pytest.mark.parametrize(
    "change",
    [
        {"request_methods": ["exec"]},
        {"request_resources": ["secrets"]},
        {"request_timeout_s": 31},
        {"request_results_keep_s": 1},
        {"request_results_max_mb": 0},
    ],
)
def test_nothing_else_is_taken(config: Any, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        type(config).model_validate_json(
            type(config).model_construct(**config.model_dump() | change).model_dump_json(warnings=False)
        )


async def test_requests_can_be_turned_off(bench: Any, owner: Any) -> None:
    raw = encode(method="list", resource="pods")
    bench.state.request_intake._policy = type(bench.state.request_intake._policy)(methods=[])
    number = bench.chain.book.submit(raw)
    await bench.catch_up()
    refused = await owner.post(number, raw)
    assert bench.refusal(refused) == (422, "request_refused")
    assert "turned off" in refused.json()["error"]["wanted"]


async def test_a_policy_that_became_stricter_holds_for_what_was_taken(bench: Any, owner: Any) -> None:
    number = await owner.ask(encode(method="list", resource="pods"))
    bench.state.requests._policy = type(bench.state.requests._policy)(resources=["jobs"])
    await bench.state.requests.sweep()
    answer = (await owner.get(number)).json()
    assert (answer["status"], answer["error"]["code"]) == ("refused", "request_refused")
    assert bench.kube.owners.calls == []
