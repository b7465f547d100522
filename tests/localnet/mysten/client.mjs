// Mysten's client on a localnet: publishes our contracts, creates a registry, stakes, reads, follows checkpoints.
//
// stdin:  {"url": "http://…", "transport": "web"|"native", "secret": base64, "modules": [base64], "dependencies": ["0x…"]}
// stdout: one JSON object with what it saw; the test judges it
import { readFileSync } from 'node:fs';
import { bcs } from '@mysten/sui/bcs';
import { SuiGrpcClient } from '@mysten/sui/grpc';
import { Ed25519Keypair } from '@mysten/sui/keypairs/ed25519';
import { Transaction } from '@mysten/sui/transactions';

const { url, transport, secret, modules, dependencies } = JSON.parse(readFileSync(0, 'utf8'));
const key = Ed25519Keypair.fromSecretKey(Buffer.from(secret, 'base64'));
const me = key.toSuiAddress();
const client = new SuiGrpcClient({ network: 'localnet', ...(await carrier()) });
const seen = { address: me };

async function carrier() {
  if (transport === 'web') return { baseUrl: url };
  const { GrpcTransport } = await import('@protobuf-ts/grpc-transport');
  const { ChannelCredentials } = await import('@grpc/grpc-js');
  return {
    transport: new GrpcTransport({ host: new URL(url).host, channelCredentials: ChannelCredentials.createInsecure() }),
  };
}

async function send(build) {
  const transaction = new Transaction();
  build(transaction);
  const include = { effects: true, events: true, objectTypes: true, balanceChanges: true };
  const result = await client.signAndExecuteTransaction({ transaction, signer: key, include });
  if (result.$kind !== 'Transaction') throw new Error(JSON.stringify(result.FailedTransaction.status));
  return result.Transaction;
}

const created = ({ effects, objectTypes }, suffix) =>
  effects.changedObjects.find(
    ({ objectId, idOperation }) => idOperation === 'Created' && objectTypes[objectId]?.endsWith(suffix),
  ).objectId;

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return { code: error.code ?? error.cause?.code ?? null, message: error.message };
  }
  throw new Error('this should have failed');
}

// --- follow from before anything happens
const stop = new AbortController();
const stream = client.subscriptionService.subscribeCheckpoints(
  { readMask: { paths: ['sequence_number', 'transactions.digest', 'transactions.events.events.event_type'] } },
  { abort: stop.signal },
);
await stream.headers;
const followed = [];
const following = (async () => {
  for await (const { cursor, checkpoint } of stream.responses) {
    followed.push([Number(cursor), checkpoint.transactions.map(({ digest }) => digest)]);
  }
})().catch(() => {});

// --- publish, create, stake
seen.chain = (await client.core.getChainIdentifier()).chainIdentifier;
seen.balance = (await client.getBalance({ owner: me })).balance.balance;
const published = await send((tx) => {
  tx.transferObjects([tx.publish({ modules, dependencies })], me);
});
const packageId = published.effects.changedObjects.find(({ outputState }) => outputState === 'PackageWrite').objectId;
const founded = await send((tx) => {
  tx.moveCall({
    target: `${packageId}::worker_registry::create_registry`,
    arguments: [
      tx.pure.string('second-client'),
      tx.pure.bool(true),
      tx.pure.u64(1_000_000_000),
      tx.pure.u64(0),
      tx.pure.u64(0),
      tx.pure.u64(5000),
      tx.pure.bool(false),
    ],
  });
});
const registryId = created(founded, '::worker_registry::Registry');
const staked = await send((tx) => {
  const [stake] = tx.splitCoins(tx.gas, [2_000_000_000]);
  tx.moveCall({
    target: `${packageId}::worker_registry::stake_and_register_worker`,
    arguments: [tx.object(registryId), stake, tx.pure.string('worker-1'), tx.pure.address(me), tx.object.clock()],
  });
});
seen.sent = [published, founded, staked].map(({ digest }) => digest);
seen.events = staked.events.map(({ eventType, json }) => [eventType.split('::').at(-1), json]);
seen.spent = staked.balanceChanges.map(({ address, amount }) => [address, amount]);

// --- read
const { object } = await client.getObject({ objectId: registryId, include: { json: true, content: true } });
seen.registry = { type: object.type, owner: object.owner.$kind, staked: object.json.staked, name: object.json.name };
const proofs = await client.listOwnedObjects({
  owner: me,
  type: `${packageId}::worker_registry::StakeProof`,
  include: { content: true },
});
const Proof = bcs.struct('StakeProof', {
  id: bcs.Address,
  registry: bcs.Address,
  node_id: bcs.string(),
  owner: bcs.Address,
});
seen.proofs = proofs.objects.map(({ content }) => Proof.parse(content));
const fields = await client.listDynamicFields({ parentId: object.json.workers.id });
seen.fields = fields.dynamicFields.map(({ name, valueType }) => [bcs.string().parse(name.bcs), valueType]);
const direct = await client.core.getDynamicField({
  parentId: object.json.workers.id,
  name: { type: '0x1::string::String', bcs: bcs.string().serialize('worker-1').toBytes() },
});
seen.worker = direct.dynamicField.value.type;
const coins = await client.listCoins({ owner: me });
const balances = await client.listBalances({ owner: me });
seen.coins = [coins.objects.length, balances.balances.map(({ balance }) => balance)];
seen.sui = (await client.getCoinMetadata({ coinType: '0x2::sui::SUI' })).coinMetadata.symbol;
const { function: declared } = await client.core.getMoveFunction({
  packageId,
  moduleName: 'worker_registry',
  name: 'stake_and_register_worker',
});
seen.parameters = declared.parameters.length;
const view = new Transaction();
view.moveCall({
  target: `${packageId}::worker_registry::is_worker_active`,
  arguments: [view.object(registryId), view.pure.string('worker-1')],
});
view.setSender(me);
const simulated = await client.simulateTransaction({ transaction: view, include: { commandResults: true } });
seen.active = bcs.bool().parse(simulated.commandResults[0].returnValues[0].bcs);
const again = await client.getTransaction({ digest: staked.digest, include: { events: true, effects: true } });
seen.same = again.Transaction.effects.transactionDigest === staked.digest && again.Transaction.events.length;

// --- history, in pages
const listed = [];
for (let after, more = true; more; ) {
  const page = await client.core.listTransactions({ filter: { sender: me }, limit: 2, after });
  listed.push(...page.transactions.map((found) => found.Transaction.digest));
  [after, more] = [page.endCursor, page.hasNextPage];
}
seen.listed = listed;
const backwards = await client.core.listTransactions({ filter: { sender: me }, order: 'descending', limit: 1 });
seen.newest = backwards.transactions[0].Transaction.digest;
const events = await client.core.listEvents({ filter: { eventType: `${packageId}::worker_registry` } });
seen.history = events.events.map(({ eventType, transactionDigest }) => [eventType.split('::').at(-1), transactionDigest]);

// --- failures
const ghost = `0x${'ab'.repeat(32)}`;
seen.missing = await failure(client.getObject({ objectId: ghost }));
seen.refused = await failure(
  send((tx) => {
    const [stake] = tx.splitCoins(tx.gas, [1]);
    tx.moveCall({
      target: `${packageId}::worker_registry::stake_and_register_worker`,
      arguments: [tx.object(registryId), stake, tx.pure.string('worker-2'), tx.pure.address(me), tx.object.clock()],
    });
  }),
);
seen.invalid = await failure(client.ledgerService.getObject({ objectId: 'no address' }).response);

// --- what was followed: wait until the last transaction's checkpoint is there
const reached = () => followed.some(([, digests]) => digests.includes(staked.digest));
for (let tries = 0; !reached() && tries < 200; tries++) await new Promise((done) => setTimeout(done, 25));
stop.abort();
await following;
seen.followed = followed;
seen.registryId = registryId;
seen.packageId = packageId;
process.stdout.write(JSON.stringify(seen));
// The native transport keeps its channel open.
process.exitCode = 0;
setTimeout(() => process.exit(), 0).unref();
