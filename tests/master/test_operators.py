"""The holder of the OperatorCap is an operator for the API server, as long as the chain says so."""

from __future__ import annotations

from typing import Any

import pytest

from k3s_daas.chain import ChainUnreachable, MalformedRecord
from k3s_daas.registry import WorkerStatus
from k3s_daas.tenancy import OPERATORS_READONLY_GROUP, READONLY_GROUP
from k3s_daas_master.operators import Operators

REFUSED = {"authenticated": False}
OWNERS, OPERATORS = "k3s-daas:owners", "k3s-daas:operators"


async def groups(bench: Any, token: str) -> list[str]:
    found: list[str] = (await bench.review(token))["user"]["groups"]
    return found


async def test_an_operator_with_workers_is_both(bench: Any) -> None:
    bench.chain.stake("worker-1", bench.owner_a)
    bench.chain.stake("worker-2", bench.owner_b)
    operator, other = bench.chain.mint("", bench.owner_a), bench.chain.mint("", bench.owner_b)
    bench.chain.operator = bench.owner_a
    await bench.catch_up()
    assert await groups(bench, operator) == [OWNERS], "not read yet"
    await bench.state.operators.refresh()
    assert await groups(bench, operator) == [OWNERS, OPERATORS]
    assert await groups(bench, other) == [OWNERS]


async def test_an_operator_without_live_workers_is_no_owner(bench: Any) -> None:
    bench.chain.stake("worker-1", bench.owner_a)
    token = bench.chain.mint("", bench.owner_a)
    bench.chain.operator = bench.owner_a
    bench.chain.set_status("worker-1", WorkerStatus.UNBONDING)
    await bench.catch_up()
    assert await bench.review(token) == REFUSED
    await bench.state.operators.refresh()
    assert await groups(bench, token) == [OPERATORS]
    bench.chain.revoke("", bench.owner_a)
    await bench.catch_up()
    assert await bench.review(token) == REFUSED, "the cap makes no token good"


async def test_whoever_hands_the_cap_on_is_one_no_more(bench: Any) -> None:
    bench.chain.stake("worker-1", bench.owner_a)
    token = bench.chain.mint("", bench.owner_a)
    bench.chain.operator = bench.owner_a
    await bench.catch_up()
    await bench.state.operators.refresh()
    assert OPERATORS in await groups(bench, token)
    for holder in (bench.owner_b, None):
        bench.chain.operator = holder
        await bench.state.operators.refresh()
        assert await groups(bench, token) == [OWNERS]


async def test_a_stale_view_leaves_an_operator_reading_and_a_dark_one_nothing(bench: Any) -> None:
    bench.chain.stake("worker-1", bench.owner_a)
    token = bench.chain.mint("", bench.owner_a)
    bench.chain.operator = bench.owner_a
    await bench.catch_up()
    await bench.state.operators.refresh()
    bench.clock.advance(60)
    assert OPERATORS in await groups(bench, token)
    bench.clock.advance(0.1)
    assert await groups(bench, token) == [READONLY_GROUP, OPERATORS_READONLY_GROUP]
    bench.clock.advance(15 * 60)
    assert not bench.state.operators.includes(bench.owner_a)


async def test_a_holder_that_could_not_be_read_lately_only_reads(bench: Any) -> None:
    bench.chain.stake("worker-1", bench.owner_a)
    token = bench.chain.mint("", bench.owner_a)
    bench.chain.operator = bench.owner_a
    await bench.catch_up()
    await bench.state.operators.refresh()
    bench.clock.advance(60.1)
    bench.chain.checkpoint()
    await bench.catch_up()
    assert await groups(bench, token) == [OWNERS, OPERATORS_READONLY_GROUP]


@pytest.mark.parametrize("error", [ChainUnreachable({}), MalformedRecord("that is something else")])
async def test_the_loop_outlives_errors(bench: Any, error: Exception) -> None:
    answers: list[Any] = [error, "0x5", error, "0x6"]

    class Registry:
        async def cap_holder(self, kind: str, cap_id: str) -> str | None:
            if not answers:
                raise EOFError
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            found: str = answer
            return found

    operators = Operators(Registry(), "0x1", bench.clock)
    with pytest.raises(EOFError):
        await operators.run(every_s=0)
    assert operators.includes("0x6")
    assert not operators.includes("0x5")


async def test_without_a_configured_cap_nobody_is_asked(bench: Any) -> None:
    class Registry:
        async def cap_holder(self, kind: str, cap_id: str) -> str | None:
            raise AssertionError

    operators = Operators(Registry(), None, bench.clock)
    await operators.refresh()
    assert not operators.includes(bench.owner_a)
