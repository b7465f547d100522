from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from k3s_daas.chain import (
    ChainUnreachable,
    InsufficientGas,
    MoveAbort,
    ObjectNotFound,
    OutcomeUnknown,
    RpcFailed,
    SuiClient,
    TransactionFailed,
    answers,
    execute,
    txbytes,
)
from k3s_daas.chain.messages import rpc
from k3s_daas_localnet.ledger import wire
from k3s_daas_localnet.ledger.transaction import MergeCoins

pytestmark = pytest.mark.asyncio(loop_scope="session")
SUI = 1_000_000_000
SOMEBODY = "0x" + "5b" * 32


def pay(mist: int, to: str = SOMEBODY) -> Any:
    async def build(tx: Any) -> None:
        tx.transfer(tx.split([mist]), to)

    return build


async def test_pays_exactly_and_reads_its_own_write(new_wallet: Any) -> None:
    chain = await new_wallet(10 * SUI)
    other = (await new_wallet(0, coins=0)).address
    preview = await chain.simulate(pay(3 * SUI, other))
    assert await chain.balance(other) == 0
    receipt = await chain.execute(pay(3 * SUI, other))
    assert await chain.balance(other) == 3 * SUI
    assert await chain.balance(chain.address) == 7 * SUI - receipt.gas_mist
    assert receipt.gas_mist == preview.gas_mist
    assert receipt.checkpoint <= (await chain.latest_checkpoint())[0]
    (coin,) = receipt.created_of("::coin::Coin<0x" + "0" * 63 + "2::sui::SUI>")
    assert (await chain.get_object(coin)).owner == other


async def test_a_transaction_for_somebody_else_to_sign(
    live_net: Any, new_wallet: Any, new_registry: Any
) -> None:
    owner = await new_wallet(10 * SUI)
    async with await SuiClient.connect([live_net.url], "localnet") as keyless:
        unsigned = await keyless.unsigned(pay(3 * SUI), owner.address)
        assert unsigned.sender == owner.address
        assert 0 < unsigned.gas_budget_mist < SUI
        assert await owner.balance(owner.address) == 10 * SUI, "nothing was sent"
        signature = owner._key.sign_transaction(unsigned.encoded)
        done = await owner._executor._submit(unsigned.encoded, signature, unsigned.digest)
        assert answers.failure(done.effects, unsigned.digest) is None
        assert done.effects.transaction_digest == unsigned.digest
        with pytest.raises(InsufficientGas):
            await keyless.unsigned(pay(3 * SUI), SOMEBODY[:-2] + "00")
        registry = await new_registry()
        with pytest.raises(MoveAbort, match="EWorkerNotFound"):
            await keyless.unsigned(registry.leaving(["nobody"], []), owner.address)


async def test_an_abort_is_typed_and_costs_nothing(new_wallet: Any, new_registry: Any) -> None:
    registry = await new_registry()
    chain = registry.chain
    before = await chain.balance(chain.address), (await chain.latest_checkpoint())[0]
    with pytest.raises(MoveAbort) as caught:
        await registry.request_unstake("nobody")
    error = caught.value
    assert (error.module, error.name, error.digest) == ("worker_registry", "EWorkerNotFound", None)
    assert error.message == "No worker with this node id is registered here"
    assert "EWorkerNotFound" in str(error)
    assert str(error).endswith("Nothing was sent.")
    assert (await chain.balance(chain.address), (await chain.latest_checkpoint())[0]) == before


async def test_an_abort_that_only_execution_meets_is_typed_too(
    new_registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between simulation and execution somebody else may be faster."""
    registry = await new_registry()
    chain = registry.chain
    simulated = execute.Executor._simulate

    async def blind(self: Any, tx: Any, refs: Any, gas: Any, merge: Any = ()) -> Any:
        try:
            return await simulated(self, tx, refs, gas, merge)
        except MoveAbort:
            return None, 10_000_000

    monkeypatch.setattr(execute.Executor, "_simulate", blind)
    before = await chain.balance(chain.address)
    with pytest.raises(MoveAbort, match="EWorkerNotFound") as caught:
        await registry.request_unstake("nobody")
    assert caught.value.digest
    assert "its gas is spent" in str(caught.value)
    assert await chain.balance(chain.address) < before


@pytest.mark.parametrize(("mist", "coins"), [(0, 0), (SUI, 1), (SUI, 7)])
async def test_too_little_money_says_how_much_and_where(new_wallet: Any, mist: int, coins: int) -> None:
    chain = await new_wallet(mist, coins=coins)
    held = await chain.balance(chain.address)
    for call in (chain.simulate, chain.execute):
        with pytest.raises(InsufficientGas) as caught:
            await call(pay(SUI))
        error = caught.value
        assert (error.balance_mist, error.address) == (held, chain.address)
        assert SUI < error.needed_mist < 2 * SUI
        assert "Send at least" in str(error)
    assert await chain.balance(chain.address) == held


async def in_small_coins(new_wallet: Any, count: int, mist: int) -> Any:
    """A wallet whose money is `count` coins of `mist` each, and one with what is left."""
    chain = await new_wallet(count * mist + SUI)

    async def build(tx: Any) -> None:
        for start in range(0, count, 400):  # 512 arguments a command
            tx.transfer(tx.split([mist] * min(400, count - start)), chain.address)

    await chain.execute(build)
    return chain


async def test_many_small_coins_pay_together(new_wallet: Any) -> None:
    """More than a payment takes: 256 coins pay, the others are merged into them first."""
    chain = await in_small_coins(new_wallet, 300, SUI // 10)
    held = await chain.balance(chain.address)
    receipt = await chain.execute(pay(30 * SUI))
    assert await chain.balance(chain.address) == held - 30 * SUI - receipt.gas_mist
    left = [coin async for coin in chain.owned_objects(chain.address, execute.SUI_COIN)]
    assert len(left) < 300 - 256


async def test_far_too_many_small_coins_are_refused_with_the_fix(new_wallet: Any) -> None:
    chain = await in_small_coins(new_wallet, 800, SUI)
    with pytest.raises(TransactionFailed, match=r"801 small coins.*Merge some"):
        await chain.execute(pay(790 * SUI))


async def test_a_coin_in_use_does_not_pay(new_wallet: Any) -> None:
    chain = await new_wallet(2 * SUI, coins=2)
    coins = [coin async for coin in chain.owned_objects(chain.address, execute.SUI_COIN)]
    to = (await new_wallet(0, coins=0)).address

    async def build(tx: Any) -> None:
        tx.transfer([tx.object(coins[0].id)], to)

    await chain.execute(build)
    assert await chain.balance(to) == SUI


async def test_an_object_that_is_not_there_is_named(new_wallet: Any) -> None:
    chain = await new_wallet()

    async def build(tx: Any) -> None:
        tx.transfer([tx.object("0xdead")], SOMEBODY)

    with pytest.raises(ObjectNotFound, match="dead on this network"):
        await chain.execute(build)


@pytest.mark.parametrize(
    ("target", "detail"), [("0xdead::a::b", "dead"), ("0x2::coin::nothing", "nothing"), ("0x2::no::f", "no")]
)
async def test_a_function_that_is_not_there_is_refused_unsent(
    new_wallet: Any, target: str, detail: str
) -> None:
    chain = await new_wallet()

    async def build(tx: Any) -> None:
        tx.call(target)

    with pytest.raises(TransactionFailed, match=f"not sent.*{detail}") as caught:
        await chain.execute(build)
    assert caught.value.digest is None


async def test_transactions_of_one_client_queue_up(new_wallet: Any) -> None:
    chain = await new_wallet(100 * SUI)
    to = (await new_wallet(0, coins=0)).address
    receipts = await asyncio.gather(*(chain.execute(pay(SUI, to)) for _ in range(5)))
    assert len({receipt.digest for receipt in receipts}) == 5
    assert await chain.balance(to) == 5 * SUI


async def test_two_clients_of_one_key_do_not_break_each_other(new_wallet: Any, live_net: Any) -> None:
    first = await new_wallet(100 * SUI)
    to = (await new_wallet(0, coins=0)).address
    async with await SuiClient.connect([live_net.url], "localnet", first._key) as second:
        for _ in range(3):
            # Of different amounts: the same bytes signed by the same key are one and the same transaction.
            await asyncio.gather(first.execute(pay(SUI, to)), second.execute(pay(2 * SUI, to)))
    assert await first.balance(to) == 9 * SUI


# -- lost answers ------------------------------------------------------------------------------------------


def lose_answer(proxy: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The node executes what it is sent, and the connection breaks before it can say so."""
    sent: list[str] = []
    submit = execute.Executor._submit

    async def submitting(self: Any, encoded: bytes, signature: bytes, digest: str) -> Any:
        sent.append(digest)
        proxy.swallow_answers = True
        return await submit(self, encoded, signature, digest)

    monkeypatch.setattr(execute.Executor, "_submit", submitting)
    return sent


async def test_a_lost_answer_is_looked_up_and_not_paid_twice(
    new_wallet: Any, live_net: Any, proxy: Callable[[], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lossy = await proxy()
    owner = await new_wallet(10 * SUI)
    to = (await new_wallet(0, coins=0)).address
    async with await SuiClient.connect(
        [lossy.url, live_net.url], "localnet", owner._key, timeout_s=1
    ) as chain:
        sent = lose_answer(lossy, monkeypatch)
        receipt = await chain.execute(pay(SUI, to))
        assert lossy.answers_seen > 0
        assert [receipt.digest] == sent
        assert chain.endpoint == live_net.url
    assert await owner.balance(to) == SUI
    assert await owner.balance(owner.address) == 9 * SUI - receipt.gas_mist


async def test_when_nobody_can_be_asked_the_digest_is_told(
    new_wallet: Any, proxy: Callable[[], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lossy = await proxy()
    owner = await new_wallet(10 * SUI)
    to = (await new_wallet(0, coins=0)).address
    async with await SuiClient.connect([lossy.url], "localnet", owner._key, timeout_s=0.5) as chain:
        sent = lose_answer(lossy, monkeypatch)
        with pytest.raises(OutcomeUnknown) as caught:
            await chain.execute(pay(SUI, to))
        assert [caught.value.digest] == sent
        assert sent[0] in str(caught.value)
    # It did execute, which is why nobody may call this a failure.
    assert await owner.balance(to) == SUI


async def test_an_endpoint_that_dies_before_sending_is_plainly_unreachable(
    new_wallet: Any, proxy: Callable[[], Awaitable[Any]]
) -> None:
    front = await proxy()
    owner = await new_wallet(10 * SUI)
    async with await SuiClient.connect([front.url], "localnet", owner._key, timeout_s=0.5) as chain:
        await front.stop()
        with pytest.raises(ChainUnreachable) as caught:
            await chain.execute(pay(SUI))
        assert not isinstance(caught.value, OutcomeUnknown)


async def test_waits_for_the_checkpoint_only_so_long(
    new_wallet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = await new_wallet(10 * SUI)
    look_up = execute.Executor._look_up

    async def never_in_a_checkpoint(self: Any, digest: str) -> Any:
        found = await look_up(self, digest)
        found.checkpoint = None
        return found

    monkeypatch.setattr(execute.Executor, "_look_up", never_in_a_checkpoint)
    monkeypatch.setattr(chain._executor, "_wait_s", 0.2)
    started = time.monotonic()
    with pytest.raises(OutcomeUnknown, match=r"in none after 0\.2 s"):
        await chain.execute(pay(SUI))
    assert time.monotonic() - started < 5


# -- bytes and effects -------------------------------------------------------------------------------------


async def test_the_bytes_say_what_was_written() -> None:
    """Read back by the localnet's decoder, which was written from Sui's definition and not from pysui's."""
    from k3s_daas.chain import Transaction

    tx = Transaction(SOMEBODY)
    (coin,) = tx.split([5])
    tx.call(
        "0x2::m::f", [tx.object("0x6"), coin, tx.string("é"), tx.byte_vectors([b"a", b""])], ["vector<u8>"]
    )
    tx.merge(tx.GAS, [coin])
    tx.transfer([tx.publish([b"\1\2"], ["0x1"])], "0x7")
    digest = "1" * 32
    refs = {"0x" + "0" * 63 + "6": txbytes.ObjectRef("0x6", 1, digest, 1)}
    gas = txbytes.Gas(1000, 77, [txbytes.ObjectRef("0x9", 3, digest, None)])
    merged = [txbytes.ObjectRef("0xa", 4, digest, None)]
    plain = wire.parse(txbytes.transaction_bytes(tx, refs, gas))
    assert (plain.price, plain.budget, plain.sender.hex()) == (1000, 77, "5b" * 32)
    assert [ref.version for ref in plain.payment] == [3]
    assert tx.drawn_mist == 5
    split, call, *_ = plain.commands
    assert (call.module, call.function) == ("m", "f")
    assert call.arguments[1] == ("nested", 0, 0)
    with_merge = wire.parse(txbytes.transaction_bytes(tx, refs, gas, merged))
    assert isinstance(with_merge.commands[0], MergeCoins)
    # Every command moved up by one, and so did what refers to them.
    assert with_merge.commands[1] == split
    assert with_merge.commands[2].arguments[1] == ("nested", 1, 0)
    assert not [i for i in plain.inputs if getattr(i, "mutable", False)]


@pytest.mark.parametrize(
    ("effects", "error"),
    [
        (None, "no status"),
        (rpc.TransactionEffects(), "no status"),
        (rpc.TransactionEffects(status=rpc.ExecutionStatus(success=False)), "no reason"),
        (
            rpc.TransactionEffects(
                status=rpc.ExecutionStatus(
                    success=False,
                    error=rpc.ExecutionError(
                        description="boom", kind=rpc.ExecutionErrorExecutionErrorKind.INSUFFICIENT_GAS
                    ),
                )
            ),
            "INSUFFICIENT_GAS: boom",
        ),
        (
            rpc.TransactionEffects(
                status=rpc.ExecutionStatus(
                    success=False, error=rpc.ExecutionError(abort=rpc.MoveAbort(abort_code=7))
                )
            ),
            "abort code 7",
        ),
    ],
)
async def test_an_answer_without_success_is_no_success(effects: Any, error: str) -> None:
    found = answers.failure(effects, "digest")
    assert found is not None
    assert error in str(found)


async def test_what_was_never_sent_is_not_called_unknown(
    new_wallet: Any, proxy: Callable[[], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    front = await proxy()
    owner = await new_wallet(10 * SUI)
    submit = execute.Executor._submit

    async def too_late(self: Any, encoded: bytes, signature: bytes, digest: str) -> Any:
        await front.stop()
        chain._transport.current.verified = False  # as after any lost connection
        return await submit(self, encoded, signature, digest)

    monkeypatch.setattr(execute.Executor, "_submit", too_late)
    async with await SuiClient.connect([front.url], "localnet", owner._key, timeout_s=0.5) as chain:
        with pytest.raises(ChainUnreachable) as caught:
            await chain.execute(pay(SUI))
    assert not isinstance(caught.value, OutcomeUnknown)
    assert await owner.balance(owner.address) == 10 * SUI


async def test_a_refusal_after_a_lost_answer_may_mean_done_already(
    new_wallet: Any, live_net: Any, proxy: Callable[[], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look-up comes too early; the next endpoint then refuses coins that are spent, by this very
    transaction."""
    lossy = await proxy()
    owner = await new_wallet(10 * SUI)
    urls = [lossy.url, live_net.url]
    async with await SuiClient.connect(urls, "localnet", owner._key, timeout_s=0.5) as chain:
        sent = lose_answer(lossy, monkeypatch)
        look_up, looked = execute.Executor._look_up, 0

        async def early(self: Any, digest: str) -> Any:
            nonlocal looked
            looked += 1
            return None if looked == 1 else await look_up(self, digest)

        once = chain._transport.once

        async def spent(link: Any, name: str, pick: Any, request: Any) -> Any:
            if name == "ExecuteTransaction" and link.endpoint.url == live_net.url:
                raise RpcFailed(name, "INVALID_ARGUMENT", "object is not available for consumption")
            return await once(link, name, pick, request)

        monkeypatch.setattr(execute.Executor, "_look_up", early)
        monkeypatch.setattr(chain._transport, "once", spent)
        receipt = await chain.execute(pay(SUI))
        assert [receipt.digest] == sent
    assert await owner.balance(owner.address) == 9 * SUI - receipt.gas_mist


async def test_a_dead_first_endpoint_does_not_blur_a_plain_refusal(
    new_wallet: Any, live_net: Any, closed_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await new_wallet(10 * SUI)
    async with await SuiClient.connect([closed_url, live_net.url], "localnet", owner._key) as chain:
        sign, submit = type(owner._key).sign_transaction, execute.Executor._submit

        async def dead_first(self: Any, encoded: bytes, signature: bytes, digest: str) -> Any:
            chain._transport.prefer(chain._transport.links[0])
            return await submit(self, encoded, signature, digest)

        monkeypatch.setattr(execute.Executor, "_submit", dead_first)
        monkeypatch.setattr(type(owner._key), "sign_transaction", lambda key, data: sign(key, data + b"x"))
        with pytest.raises(TransactionFailed, match=r"not sent.*[Ss]ignature") as caught:
            await chain.execute(pay(SUI))
        assert caught.value.digest is None
    assert await owner.balance(owner.address) == 10 * SUI
