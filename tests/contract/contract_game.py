"""The game that test_money plays: any of the contracts' calls in any order, against the model.

It goes on through upgrades of the package, and past the point from which on only attested masters count.
"""

from __future__ import annotations

import base64
import copy
import random
from collections import Counter
from typing import Any

from contract_ledger import (
    CLOCK,
    DAY_MS,
    NOON_MS,
    SUI,
    Aborted,
    Arg,
    Chain,
    Pay,
    Registry,
    Result,
    compiled,
    compiled_version,
    created,
    new_package,
    sha,
    strings,
    u8,
    u64,
    u64s,
)
from contract_masters import MAX_AGE_MS, Image, user_data
from contract_model import HOUR_MS, IN_SERVICE, REQUEST_MS, Model, Terms

from k3s_daas.chain import bcs
from k3s_daas_localnet.nsm import NsmEmulator

NODE_IDS = [f"w-{number}" for number in range(7)]
COLD = ["0x" + "c0" * 31 + f"{number:02x}" for number in range(2)]
ACTIONS = (
    ["stake"] * 5
    + ["status"] * 6
    + ["submit"] * 8
    + ["claim"] * 6
    + ["complete"] * 6
    + ["wait"] * 5
    + ["withdraw", "time_out", "unstake", "propose", "execute", "report_ready", "token"] * 3
    + ["batch", "add_stake", "cancel", "lapse", "fund", "move_treasury", "claim_rewards"] * 2
    + ["batch"] * 2
    + ["anchor", "anchor", "abandon"]
    + ["rates", "terms", "master", "allow", "gate", "gate", "image", "register"]
    + ["upgrade", "migrate", "registry"]
)
# Not in the list, because there is no way back from it: each game comes to it once.
RATCHET = "ratchet"
OF_MASTERS = {"status", "report_ready", "claim", "complete", "gate", "anchor"}
IMAGES: list[Image] = [(bytes([number]) * 48, b"\x13" * 48) for number in (1, 2, 3)]
VERSIONS = 3
# What may be refused for reasons that the model does not follow, because no money depends on them.
UNMODELLED = {
    "token": {
        "EWorkerNotFound",
        "EUnauthorizedRequest",
        "EWorkerNotEligible",
        "ESealTokenExists",
        "ENoSealToken",
        "ESealTokenRevoked",
        "ENotAnOwner",
    },
    "gate": {"EInvalidEndpoint", "EKeyIsAttested", "EOtherCa"},
    "allow": set(),
}


class Game:
    """A registry and its model, played against each other."""

    def __init__(self, dice: random.Random) -> None:
        # A chain of its own, so that the same dice play the same game.
        self.emulator = NsmEmulator(NOON_MS)
        self.chain, self.dice = Chain(nitro_root=self.emulator.root_pem), dice
        chain, self.model = self.chain, Model()
        self.publisher = chain.actor("publisher")
        publishing = chain.publishing(self.publisher, compiled())
        self.upgrade_cap = created(publishing, "UpgradeCap")
        # By version, from 1.
        self.packages = [package := new_package(publishing)]
        self.owners = [chain.actor("alice"), chain.actor("bob")]
        self.admin = chain.actor("admin")
        terms = self.model.terms
        self.registry = Registry(
            chain,
            package,
            self.admin,
            min_stake=terms.min_stake,
            slash_window_ms=terms.slash_window_ms,
            unbonding_window_ms=terms.unbonding_window_ms,
            slash_share_bps=terms.slash_share_bps,
        )
        # MasterCaps with whose they are, by epoch from 1.
        self.caps: list[tuple[str, str]] = []
        self.masters = [chain.actor("master"), chain.actor("next master")]
        self.caps.append((self.registry.appoint(self.masters[0]), self.masters[0]))
        self.model.masters.appoint(self.masters[0])
        self.proofs: dict[str, str] = {}  # proof -> who owns it, stale ones too
        self.cold = {address: chain.balance(address) for address in COLD}
        self.log: list[str] = []
        self.outcomes: Counter[tuple[str, str | None]] = Counter()
        self.tokens = 0
        # What a master with an attestation did.
        self.by_attested = 0

    def play(self, steps: int) -> None:
        ratchet = self.dice.randrange(steps // 3, steps // 2)
        for number in range(steps):
            self.step(RATCHET if number == ratchet else self.dice.choice(ACTIONS))
            self.compare_sums()
            if number % 4 == 3:
                self.compare_all()
        self.compare_all()

    def step(self, action: str) -> None:
        dice, model, chain = self.dice, self.model, self.chain
        burnt = sum(worker.status == "Slashed" for worker in model.workers.values())
        names = [*NODE_IDS, *(f"x-{number}" for number in range(burnt))]
        node_id, sender = dice.choice(names), dice.choice(self.owners)
        masters = model.masters
        if action in OF_MASTERS and masters.refusal(masters.epoch, chain.now_ms) and dice.random() < 0.8:
            # Or the game would stand still.
            action = "master" if not masters.required else "register" if masters.images else "image"
        if action in ("upgrade", "registry"):
            self._publish(action)
            return
        # Who calls another version than the registry's is refused, whatever the call.
        called = masters.version
        if action not in ("migrate", RATCHET) and len(self.packages) > 1 and dice.random() < 0.05:
            called = dice.choice([v + 1 for v in range(len(self.packages)) if v + 1 != called])
            model = copy.deepcopy(model)
            masters = model.masters
        jailed = [name for name, worker in model.workers.items() if worker.status == "Jailed"]
        if jailed and action in ("cancel", "lapse", "execute") and dice.random() < 0.8:
            node_id = dice.choice(jailed)
            if action == "lapse" and dice.random() < 0.6:
                chain.clock.advance(8 * DAY_MS)
        # Who leaves with work under way is the case that could let counts drift.
        wanted = {
            "unstake": [name for name, worker in model.workers.items() if worker.workload],
            "withdraw": [name for name, worker in model.workers.items() if worker.status == "Unbonding"],
        }.get(action)
        if wanted and dice.random() < 0.4:
            node_id = dice.choice(wanted)
        if node_id in model.workers and dice.random() < 0.7:
            sender = model.workers[node_id].owner
        now_ms, epoch, name = chain.now_ms, chain.epoch, bcs.string(node_id)
        request_id = self._request(action)
        expected: str | None = None
        args: list[Arg]
        match action:
            case "wait":
                steps = [1, 60_000, REQUEST_MS, HOUR_MS, 2 * HOUR_MS, DAY_MS, 8 * DAY_MS, 181 * DAY_MS]
                chain.clock.advance(dice.choices(steps, [9, 9, 4, 4, 4, 3, 2, 1])[0])
                return
            case "stake":
                amount, to = model.terms.min_stake + dice.randrange(-1, 2 * SUI), dice.choice(COLD)
                expected = model.stake(sender, to, {node_id: amount}, now_ms)
                function = "worker_registry::stake_and_register_worker"
                args = [Pay(amount), name, bcs.address(to), CLOCK]
            case "batch":
                batch = {each: model.terms.min_stake + dice.randrange(9) for each in self._pair(names)}
                to = dice.choice(COLD)
                expected = model.stake(sender, to, batch, now_ms)
                function = "worker_registry::stake_and_register_workers"
                amounts = u64s(list(batch.values()))
                args = [Pay(sum(batch.values())), strings(list(batch)), amounts, bcs.address(to), CLOCK]
            case "add_stake":
                amount = dice.choice([0, 1, SUI // 2, SUI])
                expected = model.add_stake(sender, node_id, amount)
                function, args = "worker_registry::add_stake", [Pay(amount), name, CLOCK]
            case "unstake":
                expected = model.unstake(sender, node_id, now_ms)
                function, args = "worker_registry::request_unstake", [name, CLOCK]
            case "withdraw":
                expected = model.withdraw(sender, node_id, now_ms)
                function, args = "worker_registry::withdraw", [name, CLOCK]
            case "status":
                status = dice.choice(["active", "active", "active", "busy", "offline"])
                cap, sender, refusal = self._master()
                expected = refusal or model.set_status(node_id, status)
                function = "worker_registry::set_worker_statuses"
                args = [cap, strings([node_id]), strings([status]), CLOCK]
            case "terms":
                terms = Terms(
                    dice.choice([SUI, 2 * SUI]),
                    dice.choice([0, HOUR_MS]),
                    dice.choice([0, 2 * HOUR_MS]),
                    dice.choice([0, 3_333, 5_000]),
                )
                sender, model.terms = self.admin, terms
                function = "worker_registry::set_terms"
                values = [terms.min_stake, terms.slash_window_ms, terms.unbonding_window_ms]
                args = [self.registry.admin_cap, *map(u64, values), u64(terms.slash_share_bps)]
            case "propose":
                sender, expected = self.admin, model.propose(node_id, epoch, now_ms)
                function = "slashing::propose_slash"
                args = [self.registry.slasher_cap, name, u8(1), bcs.data(sha("evidence")), CLOCK]
            case "cancel":
                sender, expected = self.admin, model.cancel(node_id)
                function, args = "slashing::cancel_slash", [self.registry.arbiter_cap, name, CLOCK]
            case "lapse":
                expected = model.lapse(node_id, now_ms)
                function, args = "slashing::lapse_slash", [name, CLOCK]
            case "execute":
                expected = model.execute(node_id, now_ms)
                function, args = "slashing::execute_slash", [name, CLOCK]
            case "fund":
                amount = dice.choice([0, 7, SUI // 100, SUI])
                expected = model.fund(amount)
                function, args = "rewards::fund_rewards", [Pay(amount)]
            case "move_treasury":
                share = dice.choice([0, 1, 2_500, 10_000, 10_001])
                sender, expected = self.admin, model.move_treasury(share)
                function, args = "rewards::move_treasury", [self.registry.admin_cap, u64(share)]
            case "rates":
                model.rates = (
                    dice.choice([0, 1_000]),
                    dice.choice([0, 12_345_678]),
                    dice.choice([0, SUI // 50]),
                )
                sender, function = self.admin, "rewards::set_reward_rates"
                args = [self.registry.admin_cap, *map(u64, model.rates)]
            case "report_ready":
                reports = {each: dice.choice([0, 60_000, 90 * DAY_MS]) for each in dice.sample(names, 3)}
                cap, sender, refusal = self._master()
                expected = refusal or model.report_ready(reports, epoch, now_ms)
                function = "rewards::report_ready"
                times = u64s(list(reports.values()))
                args = [cap, strings(list(reports)), times, CLOCK]
            case "claim_rewards":
                expected = model.claim_rewards(node_id)
                function, args = "rewards::claim_rewards", [name, CLOCK]
            case "submit":
                if not self.proofs:
                    return
                live = [worker.proof for worker in model.workers.values()]
                proof = dice.choice(live if live and dice.random() < 0.9 else list(self.proofs))
                sender = self.proofs[proof]
                candidates = self._candidates(names)
                deposit, priority = (
                    dice.choice([999_999, 1_000_000, 2_000_000, 3_000_000]),
                    dice.choice([0, 8]),
                )
                expected = model.submit(sender, proof, candidates, deposit, priority, now_ms)
                function = "k8s_scheduler::submit_k8s_request"
                payload = bcs.data(sha("payload"))
                args = [proof, Pay(deposit), payload, u8(priority), strings(candidates), CLOCK]
            case "claim":
                cap, sender, refusal = self._master()
                expected = refusal or model.claim(request_id, now_ms)
                function = "k8s_scheduler::claim_request"
                args = [cap, u64(request_id), CLOCK]
            case "complete":
                cap, sender, refusal = self._master()
                expected = refusal or model.complete(request_id, epoch, now_ms)
                function = "k8s_scheduler::complete_request"
                args = [cap, u64(request_id), bcs.data(sha("result")), CLOCK]
            case "time_out":
                expected = model.time_out(request_id, now_ms)
                function, args = "k8s_scheduler::time_out_request", [u64(request_id), CLOCK]
            case "anchor":
                cap, sender, refusal = self._master()
                counter, previous, hash_ = self._snapshot(masters.anchored)
                expected = refusal or masters.anchor(counter, previous, hash_)
                function = "snapshots::anchor_snapshot"
                args = [cap, u64(counter), bcs.data(previous), bcs.data(hash_), CLOCK]
            case "abandon":
                sender, expected = self.admin, masters.abandon()
                function, args = "snapshots::abandon_snapshots", [self.registry.operator_cap]
            case "migrate":
                called = dice.randrange(len(self.packages)) + 1
                sender, expected = self.admin, masters.migrate(called)
                function, args = "worker_registry::migrate", [self.registry.admin_cap]
            case "master":
                account = dice.choice(self.masters)
                sender, expected = self.admin, masters.appoint(account)
                function = "nautilus::appoint_master"
                args = [self.registry.operator_cap, bcs.address(account), CLOCK]
            case "ratchet":
                masters.require()
                sender = self.admin
                function, args = "nautilus::enable_attestation", [self.registry.admin_cap]
            case "image":
                image = dice.choice(IMAGES)
                verb = dice.choice(["allow", "allow", "disallow"])
                masters.allow(image) if verb == "allow" else masters.disallow(image)
                sender, function = self.admin, f"nautilus::{verb}_image"
                args = [self.registry.operator_cap, *map(bcs.data, image)]
            case "register":
                document, account, expected = self._document(model)
                function, args = "nautilus::register_master", [Result(0), CLOCK]
            case _:
                sender, function, args, expected = self._unmodelled(action, sender, name)
        if called != self.model.masters.version and action != "migrate":
            expected = "EWrongVersion"
        calls = [(f"{self.packages[called - 1]}::{function}", [self.registry.id, *args])]
        if action == "register":
            calls.insert(0, ("0x2::nitro_attestation::load_nitro_attestation", [bcs.data(document), CLOCK]))
        found, done = None, None
        try:
            done = self.chain.send(sender, *calls)
        except Aborted as error:
            found = error.name
        self._log(action, found, f"{action} {node_id} {request_id}: {found}")
        if action in UNMODELLED and expected is None:
            assert found is None or found in UNMODELLED[action], self.log[-40:]
        else:
            assert found == expected, (expected, self.log[-40:])
        if done is not None and action in ("master", "register") and len(self.caps) < masters.epoch:
            self.caps.append((created(done, "MasterCap"), account))
        if found is None and action in ("stake", "batch"):
            for each, worker in self.registry.workers().items():
                mine = model.workers[each]
                if not mine.proof:
                    mine.proof = worker["proof"]
                    self.proofs[mine.proof] = mine.owner

    def _pair(self, names: list[str]) -> list[str]:
        """Mostly two free names."""
        free = [name for name in names if name not in self.model.workers]
        return self.dice.sample(free if len(free) > 1 and self.dice.random() < 0.8 else names, 2)

    def _request(self, action: str) -> int:
        """Mostly an open request, at the stage that the action wants."""
        requests = self.model.requests
        staged = [key for key, request in requests.items() if request.claimed == (action == "complete")]
        if action in ("claim", "complete") and staged and self.dice.random() < 0.8:
            return self.dice.choice(staged)
        if requests and self.dice.random() < 0.9:
            return self.dice.choice(sorted(requests))
        return self.dice.randrange(self.model.last_request + 2)

    def _candidates(self, names: list[str]) -> list[str]:
        """Three workers, mostly with one that works."""
        working = [
            name for name, worker in self.model.workers.items() if worker.score(urgent=True) is not None
        ]
        found = self.dice.sample(names, 3)
        return [*found[:2], self.dice.choice(working)] if working and self.dice.random() < 0.8 else found

    def _master(self) -> tuple[str, str, str | None]:
        """(a MasterCap, whose it is, why it may not act), mostly the newest."""
        epoch = len(self.caps)
        if self.dice.random() < 0.05:
            epoch = self.dice.randrange(epoch) + 1
        return *self.caps[epoch - 1], self.model.masters.refusal(epoch, self.chain.now_ms)

    def _snapshot(self, newest: tuple[int, bytes] | None) -> tuple[int, bytes, bytes]:
        """(number, previous hash, hash) of a snapshot, mostly the next one."""
        self.tokens += 1
        counter, previous = newest or (0, b"")
        hash_ = sha(f"snapshot {self.tokens}")
        match self.dice.choice(["next"] * 6 + ["again", "skipped", "forked", "short"]):
            case "next":
                return counter + 1, previous, hash_
            case "again":
                return counter, previous, hash_
            case "skipped":
                return counter + 2, previous, hash_
            case "forked":
                return counter + 1, sha("another"), hash_
            case _:
                return counter + 1, previous, hash_[:31]

    def _document(self, model: Model) -> tuple[bytes, str, str | None]:
        """(an attestation document, whose account it names, why it is refused), mostly a good one."""
        dice, masters, now_ms = self.dice, model.masters, self.chain.now_ms
        self.tokens += 1
        image, key = dice.choice(sorted(masters.images) or IMAGES), sha(f"enclave {self.tokens}")
        age_ms, account, named = dice.choice([0, 1, MAX_AGE_MS]), dice.choice(self.masters), self.registry.id
        package = self.packages[0]
        binding = (
            sha(f"chain {dice.randrange(2)}"),
            sha(f"ca {dice.randrange(2)}"),
            sha(f"config {self.tokens}"),
        )
        if masters.live is not None and dice.random() < 0.4:  # renewed, or the document of before again
            account, key = masters.live.account, masters.live.key
        ways = ["debug", "image", "old", "keyless", "used", "elsewhere", "another package"]
        match dice.choice(["good"] * 12 + ways):
            case "debug":
                image = bytes(48), bytes(48)
            case "image":
                image = dice.choice(IMAGES)
            case "old":
                age_ms = MAX_AGE_MS + 1
            case "keyless":
                key = b""
            case "used":
                key = dice.choice(sorted(masters.keys) or [key])
            case "elsewhere":
                named = account
            case "another package":
                package = account
        made_ms = now_ms - age_ms
        document = self.emulator.restarted(made_ms).document(
            made_ms,
            pcrs=dict(zip((0, 3), image, strict=True)),
            public_key=key,
            user_data=user_data(package, named, account, *binding),
        )
        wanted = binding if (package, named) == (self.packages[0], self.registry.id) else None
        return document, account, masters.register(account, image, key, made_ms, now_ms, wanted)

    def _publish(self, action: str) -> None:
        """What calls no function of the registry: the next version of the package, or another registry."""
        if action == "registry":
            Registry(self.chain, self.dice.choice(self.packages), self.admin)
        elif len(self.packages) < VERSIONS:
            package = compiled_version(len(self.packages) + 1)
            newest, cap = self.packages[-1], self.upgrade_cap
            self.packages.append(self.chain.upgrade(self.publisher, newest, cap, package))
        self._log(action, None, action)

    def _log(self, action: str, error: str | None, line: str) -> None:
        self.outcomes[action, error] += 1
        self.log.append(line)
        live = self.model.masters.live
        if error is None and action in OF_MASTERS and live is not None and live.attested:
            self.by_attested += 1

    def _unmodelled(self, action: str, sender: str, name: bytes) -> tuple[str, str, list[Arg], str | None]:
        dice, registry = self.dice, self.registry
        self.tokens += 1
        commitment = bcs.data(sha(f"token {registry.id} {self.tokens}"))
        until = u64(self.chain.now_ms + DAY_MS)
        match action:
            case "token":
                scope = dice.choice(["worker", "owner"])
                subject = [name] if scope == "worker" else []
                verb = dice.choice(["create", "rotate", "revoke"])
                rest: list[Arg] = [] if verb == "revoke" else [commitment, until, CLOCK]
                return sender, f"k8s_gateway::{verb}_{scope}_seal_token", [*subject, *rest], None
            case "gate":
                cap, sender, refusal = self._master()
                if dice.random() < 0.5:
                    args = [cap, bcs.data(sha("key")), CLOCK]
                    return sender, "k8s_gateway::announce_master_key", args, refusal
                urls = [bcs.string(dice.choice(["https://a:1", "http://a"])) for _ in range(2)]
                args = [cap, *urls, bcs.data(sha(f"ca {dice.randrange(2)}")), CLOCK]
                return sender, "k8s_gateway::announce_master", args, refusal
            case _:
                verb = dice.choice(["allow_owner", "disallow_owner"])
                args = [registry.admin_cap, bcs.address(sender)]
                return self.admin, f"worker_registry::{verb}", args, None

    def compare_sums(self) -> None:
        model, registry = self.model, self.registry.read()
        found = {key: int(registry[key]) for key in ("staked", "earned", "treasury")}
        wanted = {"staked": model.staked, "earned": model.earned, "treasury": model.treasury}
        assert found == wanted, self.log[-40:]
        assert int(registry["rewards"]["balance"]) == model.pool, self.log[-40:]
        out = sum(model.withdrawn.values()) + sum(model.paid_out.values())
        assert model.deposited + model.funded == model.held + out, self.log[-40:]

    def compare_all(self) -> None:
        """From the records themselves, sums not believed."""
        model, registry, chain = self.model, self.registry, self.chain
        workers, requests, owners = registry.workers(), registry.requests(), registry.owners()
        fields = registry.read()
        self.compare_masters(fields)
        assert {
            node_id: (
                worker["status"]["@variant"],
                int(worker["stake"]),
                int(worker["reputation"]),
                int(worker["workload"]),
                int(worker["rewards"]["balance"]),
                worker["proposal"] is not None,
            )
            for node_id, worker in workers.items()
        } == {
            node_id: (w.status, w.stake, w.reputation, w.workload, w.earned, w.status == "Jailed")
            for node_id, w in model.workers.items()
        }, self.log[-40:]
        # The scheduler's book: no worker's count has drifted, no deposit is loose.
        named = Counter(request["node_id"] for request in requests.values())
        assert {n: int(w["workload"]) for n, w in workers.items() if w["workload"] != "0"} == named
        assert {int(key): (r["node_id"], int(r["deposit"]), r["claimed"]) for key, r in requests.items()} == {
            key: (r.node_id, r.deposit, r.claimed) for key, r in model.requests.items()
        }, self.log[-40:]
        book = registry.book()
        loose = 0 if book is None else int(book["deposits"])
        assert loose == sum(int(request["deposit"]) for request in requests.values())
        if book is not None:
            asked = Counter(request.proof for request in model.requests.values())
            assert chain.fields(book["by_proof"]["id"]) == {key: str(n) for key, n in asked.items()}
        # Every owner's list names what the registry holds stake of, and nothing else.
        listed = {(owner, node_id) for owner, node_ids in owners.items() for node_id in node_ids}
        assert listed == {(w["owner"], n) for n, w in workers.items() if w["stake"] != "0"}, self.log[-40:]
        assert sum(map(len, owners.values())) == len(listed), "a list names a worker twice"
        assert all(owners.values()), "an empty list stayed"
        # Every MIST, counted where it lies.
        stake = sum(int(w["stake"]) for w in workers.values())
        rewards = sum(int(w["rewards"]["balance"]) for w in workers.values())
        pool, treasury = int(fields["rewards"]["balance"]), int(fields["treasury"])
        assert model.held == stake + rewards + pool + treasury + loose, self.log[-40:]
        for address in COLD:
            gone = model.withdrawn.get(address, 0) + model.paid_out.get(address, 0)
            assert chain.balance(address) == self.cold[address] + gone, self.log[-40:]
        for worker in model.workers.values():
            assert worker.status in (*IN_SERVICE, "Jailed", "Slashed", "Unbonding")

    def compare_masters(self, fields: dict[str, Any]) -> None:
        masters = self.model.masters
        assert (int(fields["version"]), fields["require_attestation"]) == (masters.version, masters.required)
        assert int(fields["master_epoch"]) == masters.epoch == len(self.caps)
        anchor = self.registry.anchor()
        found_anchor = anchor and (int(anchor["counter"]), base64.b64decode(anchor["hash"]))
        assert found_anchor == masters.anchored, self.log[-40:]
        found, live = fields["master"], masters.live
        assert (found is None) == (live is None), self.log[-40:]
        if live is not None:
            names = ("epoch", "account", "attested_at_ms", "attestation_expires_at_ms")
            wanted = str(live.epoch), live.account, str(live.attested_ms), str(live.expires_ms)
            assert tuple(found[name] for name in names) == wanted, self.log[-40:]
            said = [base64.b64encode(part).decode() for part in live.binding]
            assert list(found["binding"].values()) == said, self.log[-40:]
