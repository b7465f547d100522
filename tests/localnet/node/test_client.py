"""What an unmodified pysui client does with a network: publish, call, read, simulate, follow."""

from __future__ import annotations

import asyncio
from typing import Any

import pysui.sui.sui_common.sui_commands as cmd
import pytest
from grpclib.const import Status
from localnet_wallet import Probe, Rejected, Wallet, arg, created, failed, owned, pure, result, succeeded
from pysui.sui.sui_grpc.pgrpc_requests import SubscribeCheckpoints

from k3s_daas_localnet import Localnet
from k3s_daas_localnet.ledger.transaction import GAS, Publish, PureInput, ReceivingInput, TransferObjects


async def test_publish_runs_init_and_gives_the_upgrade_cap(wallet: Wallet, probe: Probe) -> None:
    package = (await wallet.ask(cmd.GetPackage(package=probe.package))).package
    assert [module.name for module in package.modules] == ["probe"]
    board = await wallet.ask(cmd.GetObject(object_id=probe.board))
    assert board.owner.kind.name == "SHARED"
    assert board.json.to_dict()["count"] == "0"
    capability = await wallet.ask(cmd.GetObject(object_id=probe.capability))
    assert capability.json.to_dict()["package"] == probe.package


async def test_a_call_changes_the_object_and_emits_its_event(wallet: Wallet, probe: Probe) -> None:
    transaction = await wallet.client.transaction()
    await transaction.move_call(target=probe.target("bump"), arguments=[probe.board])
    executed = await wallet.send(transaction)
    effects = succeeded(executed)
    (event,) = executed.events.events
    assert event.event_type == probe.type("Told")
    assert event.json.to_dict() == {"board": probe.board, "count": "1", "who": wallet.address}
    assert event.contents.value.hex().endswith("0100000000000000" + wallet.address[2:])
    board = await wallet.ask(cmd.GetObject(object_id=probe.board))
    assert (board.json.to_dict()["count"], board.version) == ("1", effects.lamport_version)
    assert board.previous_transaction == executed.digest


async def test_results_move_between_commands(wallet: Wallet, probe: Probe) -> None:
    transaction = await wallet.client.transaction()
    coin = await transaction.split_coin(coin=transaction.gas, amounts=[5000])
    made = await transaction.move_call(target=probe.target("thing"), arguments=[7])
    box = await transaction.move_call(
        target=probe.target("wrap"), arguments=[made], type_arguments=[probe.type("Thing")]
    )
    await transaction.transfer_objects(transfers=[box, coin], recipient=wallet.address)
    effects = succeeded(await wallet.send(transaction))
    box_object = await wallet.ask(cmd.GetObject(object_id=created(effects, "::Box")))
    assert box_object.json.to_dict()["content"]["value"] == "7"
    assert sorted(coin.balance for coin in await wallet.coins())[0] == 5000


async def test_wrapping_and_unwrapping_keeps_the_id(wallet: Wallet, probe: Probe) -> None:
    thing = await probe.thing(wallet, 3)
    kind = [probe.type("Thing")]
    transaction = await wallet.client.transaction()
    box = await transaction.move_call(target=probe.target("wrap"), arguments=[thing], type_arguments=kind)
    await transaction.transfer_objects(transfers=[box], recipient=wallet.address)
    effects = succeeded(await wallet.send(transaction))
    wrapped = next(change for change in effects.changed_objects if change.object_id == thing)
    assert wrapped.output_state.name == "DOES_NOT_EXIST"
    assert wrapped.id_operation.name == "NONE"
    with pytest.raises(Rejected) as caught:
        await wallet.ask(cmd.GetObject(object_id=thing))
    assert caught.value.status is Status.NOT_FOUND
    transaction = await wallet.client.transaction()
    box_id = created(effects, "::Box")
    back = await transaction.move_call(target=probe.target("unwrap"), arguments=[box_id], type_arguments=kind)
    await transaction.transfer_objects(transfers=[back], recipient=wallet.address)
    effects = succeeded(await wallet.send(transaction))
    operations = {change.object_id: change.id_operation.name for change in effects.changed_objects}
    assert (operations[thing], operations[box_id]) == ("NONE", "DELETED")
    assert (await wallet.ask(cmd.GetObject(object_id=thing))).json.to_dict()["value"] == "3"


async def test_dynamic_fields_are_listed_by_pages(wallet: Wallet, probe: Probe) -> None:
    thing = await probe.thing(wallet, 9)
    transaction = await wallet.client.transaction()
    await transaction.move_call(target=probe.target("mark"), arguments=[probe.board, 0, 5])
    await transaction.move_call(target=probe.target("attach"), arguments=[probe.board, 77, thing])
    succeeded(await wallet.send(transaction))
    first = await wallet.ask(cmd.GetDynamicFields(object_id=probe.board))
    assert len(first.dynamic_fields) == 6
    by_kind: dict[str, list[Any]] = {}
    for found in first.dynamic_fields:
        by_kind.setdefault(found.kind.name, []).append(found)
    values = {int.from_bytes(f.name.value, "little"): f.value.value[0] for f in by_kind["FIELD"]}
    assert values == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}
    (attached,) = by_kind["OBJECT"]
    assert (attached.child_id, attached.child_object.json.to_dict()["value"]) == (thing, "9")
    assert attached.name.name == "u64"
    seen: list[str] = []
    token = None
    while True:
        request = cmd.GetDynamicFields(object_id=probe.board)
        grpc = request.grpc_request()
        grpc.page_size, grpc.page_token = 4, token
        page = (await wallet.client.execute_grpc_request(request=grpc)).result_data
        seen += [found.field_id for found in page.dynamic_fields]
        token = page.next_page_token
        if not token:
            break
    assert seen == [found.field_id for found in first.dynamic_fields]
    assert len(seen) == len(set(seen))


async def test_a_removed_field_gives_its_object_back(wallet: Wallet, probe: Probe) -> None:
    thing = await probe.thing(wallet, 9)
    transaction = await wallet.client.transaction()
    await transaction.move_call(target=probe.target("attach"), arguments=[probe.board, 1, thing])
    succeeded(await wallet.send(transaction))
    assert (await wallet.ask(cmd.GetObject(object_id=thing))).owner.kind.name == "OBJECT"
    transaction = await wallet.client.transaction()
    back = await transaction.move_call(target=probe.target("detach"), arguments=[probe.board, 1])
    await transaction.transfer_objects(transfers=[back], recipient=wallet.address)
    succeeded(await wallet.send(transaction))
    assert (await wallet.ask(cmd.GetObject(object_id=thing))).owner.address == wallet.address
    assert not (await wallet.ask(cmd.GetDynamicFields(object_id=probe.board))).dynamic_fields


async def test_objects_are_listed_by_type(wallet: Wallet, probe: Probe) -> None:
    things = {await probe.thing(wallet, number) for number in range(3)}
    listed = await wallet.ask(cmd.GetObjectsForType(owner=wallet.address, object_type=probe.type("Thing")))
    assert {found.object_id for found in listed.objects} == things
    souls = await wallet.ask(cmd.GetObjectsForType(owner=wallet.address, object_type=probe.type("Soul")))
    assert [found.object_id for found in souls.objects] == [probe.soul]
    assert [found.has_public_transfer for found in souls.objects] in ([False], [None])


async def test_many_objects_in_one_call_and_missing_ones_by_name(wallet: Wallet, probe: Probe) -> None:
    missing = "0x" + "ab" * 32
    found = await wallet.ask(cmd.GetMultipleObjects(object_ids=[probe.board, missing, probe.soul]))
    assert [item.object.object_id if item.object else None for item in found.objects] == [
        probe.board,
        None,
        probe.soul,
    ]
    assert found.objects[1].error.code == Status.NOT_FOUND.value
    assert missing in found.objects[1].error.message


async def test_past_versions_stay_readable(wallet: Wallet, probe: Probe) -> None:
    before = await wallet.ask(cmd.GetObject(object_id=probe.board))
    await wallet.run([probe.call("bump", arg(0))], [probe.shared()])
    past = await wallet.ask(cmd.GetPastObject(object_id=probe.board, version=before.version))
    assert past.json.to_dict()["count"] == "0"
    assert past.digest == before.digest
    with pytest.raises(Rejected) as caught:
        await wallet.ask(cmd.GetPastObject(object_id=probe.board, version=before.version + 1000))
    assert caught.value.status is Status.NOT_FOUND


async def test_simulation_shows_the_outcome_and_changes_nothing(wallet: Wallet, probe: Probe) -> None:
    tip = (await wallet.ask(cmd.GetLatestCheckpoint())).checkpoint.sequence_number
    data = await wallet.raw(
        [probe.call("bump", arg(0)), probe.call("count", arg(0)), probe.call("divide", arg(1), arg(2))],
        [probe.shared(), pure(9), pure(2)],
    )
    simulated = await wallet.simulate(data)
    succeeded(simulated.transaction)
    assert [event.json.to_dict()["count"] for event in simulated.transaction.events.events] == ["1"]
    outputs = [
        [int.from_bytes(output.value.value, "little") for output in command.return_values]
        for command in simulated.command_outputs
    ]
    assert outputs == [[], [1], [4]]
    board = await wallet.ask(cmd.GetObject(object_id=probe.board))
    assert board.json.to_dict()["count"] == "0"
    assert (await wallet.ask(cmd.GetLatestCheckpoint())).checkpoint.sequence_number == tip


async def test_simulated_cost_is_the_cost(wallet: Wallet, probe: Probe) -> None:
    data = await wallet.raw([probe.call("bump", arg(0))], [probe.shared()])
    simulated = await wallet.simulate(data)
    before = await wallet.balance()
    executed = await wallet.submit(data)
    used = executed.effects.gas_used
    assert used == simulated.transaction.effects.gas_used
    cost = used.computation_cost + used.storage_cost - used.storage_rebate
    assert before - await wallet.balance() == cost
    (change,) = executed.balance_changes
    assert (change.address, int(change.amount)) == (wallet.address, -cost)


async def test_a_simulation_selects_gas_like_the_real_thing(
    net: Localnet, other: Wallet, probe: Probe
) -> None:
    transaction = await other.client.transaction()
    await transaction.move_call(target=probe.target("bump"), arguments=[probe.board])
    await transaction.build()  # resolves the board's version
    kind = transaction.builder.finish_for_inspect()

    async def simulate(sender: str) -> Any:
        command = cmd.SimulateTransactionKind(tx_kind=kind, tx_meta={"sender": sender}, gas_selection=True)
        return (await other.ask(command)).transaction

    simulated = await simulate(other.address)
    succeeded(simulated)
    (coin,) = await other.coins()
    assert [found.object_id for found in simulated.transaction.gas_payment.objects] == [coin.object_id]
    assert simulated.transaction.gas_payment.budget < 10_000_000
    poor = "0x" + "77" * 32
    await net.faucet(poor, 500_000)
    with pytest.raises(Rejected, match="Unable to perform gas selection due to insufficient SUI balance"):
        await simulate(poor)


async def test_a_failing_simulation_reports_the_abort(wallet: Wallet, probe: Probe) -> None:
    simulated = await wallet.simulate(await wallet.raw([probe.call("refuse")]))
    error = failed(simulated.transaction, "MOVE_ABORT")
    assert error.abort.clever_error.constant_name == "ERefused"
    assert error.abort.clever_error.rendered == "the probe was told to refuse"
    assert error.abort.location.function_name == "refuse"
    assert error.abort.location.package == probe.package


async def test_a_simulated_publish_leaves_no_code_behind(
    net: Localnet, wallet: Wallet, probe_code: tuple[list[bytes], list[bytes]]
) -> None:
    known = len(list(net.ledger.code.modules()))
    own = bytes.fromhex(wallet.address[2:])
    commands = [
        Publish(tuple(probe_code[0]), tuple(probe_code[1])),
        TransferObjects((result(0),), arg(0)),
    ]
    data = await wallet.raw(commands, [PureInput(own)])
    simulated = await wallet.simulate(data)
    package = created(succeeded(simulated.transaction), "package")
    assert len(list(net.ledger.code.modules())) == known
    with pytest.raises(Rejected) as caught:
        await wallet.ask(cmd.GetPackage(package=package))
    assert caught.value.status is Status.NOT_FOUND
    succeeded(await wallet.submit(data))
    assert len(list(net.ledger.code.modules())) == known + 1


async def test_a_failed_publish_leaves_no_code_behind(
    net: Localnet, wallet: Wallet, probe_code: tuple[list[bytes], list[bytes]]
) -> None:
    known = len(list(net.ledger.code.modules()))
    # The upgrade capability is left unused, so the whole transaction fails after its init ran.
    executed = await wallet.run([Publish(tuple(probe_code[0]), tuple(probe_code[1]))])
    failed(executed, "UNUSED_VALUE_WITHOUT_DROP")
    assert len(list(net.ledger.code.modules())) == known


async def test_functions_and_types_are_described(wallet: Wallet, probe: Probe) -> None:
    command = cmd.GetFunction(package=probe.package, module_name="probe", function_name="door")
    function = (await wallet.ask(command)).function
    assert function.is_entry is True
    assert function.visibility.name == "PRIVATE"
    assert [p.reference.name for p in function.parameters] == ["MUTABLE"]
    wanted = cmd.GetMoveDataType(package=probe.package, module_name="probe", type_name="Thing")
    thing = (await wallet.ask(wanted)).datatype
    assert [field.name for field in thing.fields] == ["id", "value", "chunks"]
    assert [ability.name for ability in thing.abilities] == ["STORE", "KEY"]


async def test_balances_and_coin_info(wallet: Wallet) -> None:
    balances = await wallet.ask(cmd.GetAddressCoinBalances(owner=wallet.address))
    assert [balance.balance for balance in balances.balances] == [1000 * 10**9]
    info = await wallet.ask(cmd.GetCoinMetaData())
    assert (info.metadata.symbol, info.metadata.decimals) == ("SUI", 9)


async def test_transactions_are_read_back(wallet: Wallet, probe: Probe) -> None:
    executed = await wallet.run([probe.call("bump", arg(0))], [probe.shared()])
    again = await wallet.ask(cmd.GetTransaction(digest=executed.digest))
    assert again.effects == executed.effects
    assert again.checkpoint == executed.checkpoint
    assert again.transaction.sender == wallet.address
    both = await wallet.ask(cmd.GetTransactions(digests=[executed.digest, "1" * 32]))
    assert [item is None for item in both] == [False, True]


async def test_subscription_and_backfill_give_every_event_once(
    net: Localnet, wallet: Wallet, probe: Probe
) -> None:
    await wallet.run([probe.call("bump", arg(0))], [probe.shared()])
    opened = await wallet.client.execute_grpc_request(request=SubscribeCheckpoints(field_mask=["*"]))
    streamed: list[tuple[int, list[str]]] = []

    def counts(checkpoint: Any) -> list[str]:
        return [
            event.json.to_dict()["count"]
            for transaction in checkpoint.transactions
            for event in (transaction.events.events if transaction.events else [])
        ]

    async def follow() -> None:
        async for message in opened.result_data:
            streamed.append((message.cursor, counts(message.checkpoint)))
            if len(streamed) == 3:
                return

    following = asyncio.create_task(follow())
    # The stream begins when the client asks for its first item: let it get there before the next event.
    while not net.ledger.listeners:
        await asyncio.sleep(0.01)
    for _ in range(3):
        await wallet.run([probe.call("bump", arg(0))], [probe.shared()])
    await asyncio.wait_for(following, 10)
    assert [counts_ for _, counts_ in streamed] == [["2"], ["3"], ["4"]]
    first = streamed[0][0]
    missed = []
    for sequence in range(first):
        found = await wallet.ask(cmd.GetCheckpointBySequence(sequence_number=sequence))
        assert found.checkpoint.sequence_number == sequence
        missed += counts(found.checkpoint) if sequence else []
    assert missed == ["1"]


async def test_checkpoints_are_chained(wallet: Wallet) -> None:
    latest = (await wallet.ask(cmd.GetLatestCheckpoint())).checkpoint
    before = (
        await wallet.ask(cmd.GetCheckpointBySequence(sequence_number=latest.sequence_number - 1))
    ).checkpoint
    assert latest.summary.previous_digest == before.digest
    by_digest = (await wallet.ask(cmd.GetCheckpointByDigest(digest=latest.digest))).checkpoint
    assert by_digest.sequence_number == latest.sequence_number


async def test_coins_are_smashed_into_the_first(wallet: Wallet, other: Wallet, net: Localnet) -> None:
    await net.faucet(other.address, 10**9)
    refs = [await other.ref(coin.object_id) for coin in await other.coins()]
    assert len(refs) == 2
    give = TransferObjects((GAS,), arg(0))
    to = PureInput(bytes.fromhex(wallet.address[2:]))
    before = await wallet.balance()
    executed = await other.run([give], [to], payment=tuple(refs))
    used = succeeded(executed).gas_used
    cost = used.computation_cost + used.storage_cost - used.storage_rebate
    assert await other.balance() == 0
    assert await wallet.balance() - before == 11 * 10**9 - cost


async def test_an_object_is_received_by_its_owner_object(wallet: Wallet, probe: Probe) -> None:
    thing = await probe.thing(wallet, 5)
    give = TransferObjects((arg(0),), arg(1))
    board_address = PureInput(bytes.fromhex(probe.board[2:]))
    succeeded(await wallet.run([give], [await owned(wallet, thing), board_address]))
    receiving = ReceivingInput(await wallet.ref(thing))
    own = PureInput(bytes.fromhex(wallet.address[2:]))
    commands = [probe.call("accept", arg(0), arg(1)), TransferObjects((result(0),), arg(2))]
    succeeded(await wallet.run(commands, [probe.shared(), receiving, own]))
    assert (await wallet.ask(cmd.GetObject(object_id=thing))).owner.address == wallet.address
