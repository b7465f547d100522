// The status page: asks /api/v1/overview every few seconds and shows the answer.
//
// Names, owners, versions and error texts come off a chain and from workers, where anybody may write. They only
// ever become text nodes.
import { bytes, count, milliseconds, percent, rate, short, span, sui } from "./figures.js";

const EVERY_MS = 3000;
const PATIENCE_MS = 8000;
// An answer this old is no longer the present.
const STALE_MS = 12_000;

const HEALTH = {
  healthy: ["✓", "Healthy"],
  degraded: ["▲", "Degraded"],
  down: ["✕", "Not ready"],
};
const SEVERITY = { critical: "✕", warning: "▲", info: "i" };
// A shape and a kind (its colour) for each status: the colour says nothing that the shape and word don't.
const STATUS = {
  active: ["●", "good"],
  busy: ["◉", "good"],
  pending: ["○", "calm"],
  unbonding: ["◌", "calm"],
  offline: ["▲", "warn"],
  jailed: ["■", "bad"],
  slashed: ["✕", "bad"],
};

const at = (id) => document.getElementById(id);

function put(id, text) {
  const element = at(id);
  // Unchanged text is left alone, so that a screen reader isn't told again.
  if (element.textContent !== text) element.textContent = text;
}

function make(name, text, classes) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (classes) element.className = classes;
  return element;
}

// -- the cards ----------------------------------------------------------------------------------------------

function meter(id, value) {
  at(id).value = value ?? 0;
}

function showHealth({ health, alerts }) {
  const [mark, word] = HEALTH[health.state];
  at("health").dataset.state = health.state;
  put("health-mark", mark);
  put("health-word", word);
  put("health-summary", health.summary);
  at("alerts-section").hidden = alerts.length === 0;
  at("alerts").replaceChildren(
    ...alerts.map((alert) => {
      const item = make("li");
      item.dataset.severity = alert.severity;
      const mark = make("span", SEVERITY[alert.severity], "mark");
      mark.setAttribute("aria-hidden", "true");
      item.append(mark, make("span", `${alert.severity}: `, "unseen"), make("strong", alert.what), " ", alert.text);
      return item;
    }),
  );
}

function showTee({ tee, master, nodes, generated_ms }) {
  const simulated = tee.mode === "simulated";
  at("simulated").hidden = !simulated;
  at("stand-in").hidden = !nodes.stand_in;
  put("tee-word", simulated ? "SIMULATED" : tee.attested ? "Attested" : "Not attested");
  at("tee-word").dataset.kind = simulated ? "loud" : tee.attested ? "good" : "bad";
  put("tee-mode", tee.mode);
  put("tee-pcr0", tee.pcr0 === null ? "none" : `${tee.pcr0.slice(0, 12)}…`);
  put("tee-expires", tee.expires_at_ms === null ? "–" : `in ${span(tee.expires_at_ms - generated_ms)}`);
  put("master-announced", master.announced ? "yes" : "not yet");
  put("master-account", short(master.account));
  at("master-account").title = master.account ?? "";
  put("master-epoch", count(master.epoch));
}

function showNodes({ nodes }) {
  put("nodes-ready", count(nodes.ready));
  put("nodes-total", `of ${count(nodes.joined)} joined`);
  at("nodes-meter").max = Math.max(1, nodes.joined);
  meter("nodes-meter", nodes.ready);
  put("nodes-wanted", count(nodes.wanted));
  put("nodes-cordoned", count(nodes.cordoned));
  put("nodes-unregistered", count(nodes.unregistered));
  put("nodes-version", nodes.versions.join(", ") || "–");
}

function showPool({ statistics: { workers, requests } }) {
  put("stake-total", sui(workers.stake_total_mist));
  put("stake-average", `${sui(workers.stake_average_mist)} SUI`);
  put("pool-total", count(workers.total));
  put("pool-active", count(workers.active));
  put("pool-offline", count(workers.offline));
  const others = Object.entries(workers.by_status).filter(
    ([status, n]) => n > 0 && !["active", "busy", "offline"].includes(status),
  );
  put("pool-others", others.map(([status, n]) => `${count(n)} ${status}`).join(", ") || "none");
  put("requests-median", milliseconds(requests.median_ms));
  put("requests-p99", requests.p99_ms === null ? "–" : `${milliseconds(requests.p99_ms)} ms`);
  put("requests-ok", count(requests.succeeded));
  put("requests-refused", count(requests.refused));
  put("requests-failed", count(requests.failed));
  put("requests-chain", `${count(requests.chain_succeeded)}, ${count(requests.chain_failed)}, ${count(requests.chain_missed)}`);
}

function showSlashing({ slashing, tenants }) {
  put("slashing-findings", count(slashing.findings));
  put("slashing-mode", slashing.held_back === null ? slashing.mode : `${slashing.mode}, held back`);
  at("slashing-mode").title = slashing.held_back ?? "";
  put("slashing-disruptions", count(slashing.disruptions));
  put("tenants", count(tenants));
}

function showSeal({ seal }) {
  put("seal-rate", rate(seal.checks_per_s));
  put("seal-refused-rate", `${rate(seal.refused_per_s)} a second`);
  put("seal-checks", count(seal.checks));
  put("seal-refused", count(seal.refused));
  put("seal-tokens", count(seal.tokens));
  put("seal-expiring", seal.expired ? `${count(seal.expiring)}, ${count(seal.expired)} expired` : count(seal.expiring));
}

function showResources({ resources, statistics }) {
  put("resources-reporting", `as reported by ${count(resources.reporting)} of ${count(statistics.workers.total)}`);
  for (const [id, value] of [
    ["cpu", resources.cpu_percent],
    ["memory", resources.memory_percent],
    ["disk", resources.disk_percent],
  ]) {
    put(id, percent(value));
    meter(`${id}-meter`, value);
  }
  put("disk-max", percent(resources.disk_percent_max));
  put("network-bytes", `${bytes(resources.network_received_bytes)}, ${bytes(resources.network_sent_bytes)}`);
  put("pods", count(resources.running_pods));
}

function showChain({ chain, gas, network, registry_id }) {
  put("network", network);
  put("registry", short(registry_id));
  at("registry").title = `Registry ${registry_id}`;
  put("chain-age", span(chain.age_ms));
  at("chain-age").dataset.kind = chain.fresh ? "" : "bad";
  put("chain-checkpoint", count(chain.checkpoint));
  put("chain-events", `${count(chain.events)}, ${count(chain.replay_gaps)}`);
  at("endpoints").replaceChildren(
    ...chain.endpoints.map((endpoint) => {
      const item = make("li");
      item.dataset.kind = endpoint.ok ? "good" : "bad";
      const said = endpoint.ok
        ? `${span(endpoint.age_ms)} old, ${milliseconds(endpoint.latency_ms)} ms`
        : "no answer";
      const mark = make("span", endpoint.ok ? "●" : "✕", "mark");
      mark.setAttribute("aria-hidden", "true");
      item.title = endpoint.error ?? "";
      item.append(mark, make("span", endpoint.name, "name"), make("span", said, "quiet"));
      return item;
    }),
  );
  put("gas-price", count(gas.price_mist));
  put("gas-balance", gas.balance_mist === null ? "–" : `${sui(gas.balance_mist)} SUI${gas.low ? ", low ▲" : ""}`);
  at("gas-balance").dataset.kind = gas.low ? "warn" : "";
}

// -- the workers --------------------------------------------------------------------------------------------

const ORDER = ["slashed", "jailed", "offline", "pending", "unbonding", "busy", "active"];
const VALUE = {
  node_id: (w) => w.node_id,
  status: (w) => ORDER.indexOf(w.status),
  node: (w) => (w.node_ready === null ? -1 : Number(w.node_ready) - Number(w.cordoned) / 2),
  stake: (w) => w.stake_mist,
  reputation: (w) => w.reputation,
  served: (w) => w.requests_succeeded + w.requests_failed,
  missed: (w) => w.requests_missed,
  pods: (w) => w.running_pods ?? -1,
  heartbeat: (w) => -(w.last_heartbeat_ms ?? 0),
  expires: (w) => w.expires_at_ms ?? 0,
  owner: (w) => w.owner,
};
// worker-2 comes before worker-10.
const collator = new Intl.Collator("en", { numeric: true });
const compare = (x, y) => (typeof x === "string" ? collator.compare(x, y) : x - y);
const table = { workers: [], now: 0, key: "node_id", descending: false, rows: new Map(), shown: "" };

function newRow(worker) {
  const row = make("tr");
  const name = make("th", worker.node_id);
  name.scope = "row";
  const cells = Array.from({ length: 10 }, (_, i) => make("td", undefined, i >= 2 && i <= 8 ? "number" : ""));
  row.append(name, ...cells);
  return { row, cells };
}

function fillRow({ cells }, worker, now) {
  const [mark, kind] = STATUS[worker.status] ?? ["?", "calm"];
  const node =
    worker.node_ready === null
      ? ["–", ""]
      : worker.cordoned
        ? ["⊘ cordoned", "warn"]
        : worker.node_ready
          ? ["● ready", "good"]
          : ["✕ not ready", "bad"];
  const age = worker.last_heartbeat_ms === null ? null : now - worker.last_heartbeat_ms;
  const left = worker.expires_at_ms === null ? null : worker.expires_at_ms - now;
  const token =
    left === null ? ["none", ""] : worker.revoked ? ["revoked", "bad"] : left <= 0 ? ["expired", "bad"] : [span(left), ""];
  const texts = [
    [`${mark} ${worker.status}`, kind],
    node,
    [sui(worker.stake_mist), ""],
    [count(worker.reputation), ""],
    [count(VALUE.served(worker)), ""],
    [count(worker.requests_missed), worker.requests_missed ? "warn" : ""],
    [count(worker.running_pods), ""],
    [age === null ? "never" : span(age), age !== null && age > 65_000 ? "warn" : ""],
    token,
    [short(worker.owner), ""],
  ];
  texts.forEach(([text, kind_], i) => {
    if (cells[i].textContent !== text) cells[i].textContent = text;
    if ((cells[i].dataset.kind ?? "") !== kind_) cells[i].dataset.kind = kind_;
  });
  if (cells[9].title !== worker.owner) cells[9].title = worker.owner;
}

function showTable() {
  const find = at("find").value.trim().toLowerCase();
  const only = at("only").value;
  const wanted = table.workers.filter(
    (w) =>
      (only === "" || w.status === only) &&
      (find === "" || w.node_id.includes(find) || w.owner.toLowerCase().includes(find)),
  );
  const value = VALUE[table.key];
  const sign = table.descending ? -1 : 1;
  wanted.sort((a, b) => sign * compare(value(a), value(b)) || compare(a.node_id, b.node_id));
  const known = new Set(table.workers.map((w) => w.node_id));
  for (const name of table.rows.keys()) if (!known.has(name)) table.rows.delete(name);
  for (const worker of wanted) {
    if (!table.rows.has(worker.node_id)) table.rows.set(worker.node_id, newRow(worker));
    fillRow(table.rows.get(worker.node_id), worker, table.now);
  }
  const shown = wanted.map((w) => w.node_id).join(" ");
  if (shown !== table.shown) {
    // Only when the order changed: moving rows would lose the reader's selection.
    at("rows").replaceChildren(...wanted.map((w) => table.rows.get(w.node_id).row));
    table.shown = shown;
  }
  const all = table.workers.length;
  put("workers-count", wanted.length === all ? count(all) : `${count(wanted.length)} of ${count(all)}`);
  at("empty").hidden = wanted.length > 0;
  put("empty", all === 0 ? "No worker has staked yet. Run playbooks/workers.yml." : "No worker fits.");
}

function showWorkers({ workers, generated_ms }) {
  table.workers = workers;
  table.now = generated_ms;
  showTable();
}

function sortBy(event) {
  const button = event.target.closest("button");
  if (!button) return;
  table.descending = button.dataset.key === table.key && !table.descending;
  table.key = button.dataset.key;
  for (const cell of at("head").children) {
    if (cell.contains(button)) cell.setAttribute("aria-sort", table.descending ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  }
  showTable();
}

// -- asking -------------------------------------------------------------------------------------------------

const last = { answered: null, generated: null, trouble: "" };

function show(overview) {
  for (const part of [showHealth, showTee, showNodes, showPool, showSlashing, showSeal, showResources, showChain, showWorkers]) {
    part(overview);
  }
  put("version", overview.version);
  put("uptime", span(overview.generated_ms - overview.started_ms));
  document.title = `${HEALTH[overview.health.state][0]} K3s-DaaS, ${overview.network}`;
}

function showFreshness() {
  const age = last.answered === null ? performance.now() : performance.now() - last.answered;
  const stale = age > STALE_MS;
  document.body.dataset.stale = stale;
  if (last.answered !== null) put("freshness", age < 2000 ? "Up to date" : `Updated ${span(age)} ago`);
  at("no-contact").hidden = !stale;
  if (stale) {
    const shown =
      last.generated === null
        ? "It has not answered yet."
        : `Below is what it said at ${new Date(last.generated).toLocaleTimeString()}.`;
    put("no-contact", `NO CONTACT The master gives no usable answer (${last.trouble || "no answer yet"}). ${shown}`);
    at("health").dataset.state = "unknown";
    put("health-mark", "?");
    put("health-word", "Unknown");
    put("health-summary", "The master's present state is not known.");
  }
}

async function ask() {
  try {
    const answer = await fetch("/api/v1/overview", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const overview = await answer.json();
    show(overview);
    last.answered = performance.now();
    last.generated = overview.generated_ms;
    last.trouble = "";
  } catch (error) {
    last.trouble = error.message;
  }
  showFreshness();
}

async function keepAsking() {
  // A page that nobody sees asks nothing.
  if (!document.hidden) await ask();
  setTimeout(keepAsking, EVERY_MS);
}

for (const status of Object.keys(STATUS)) at("only").append(make("option", status));
at("find").addEventListener("input", showTable);
at("only").addEventListener("change", showTable);
at("head").addEventListener("click", sortBy);
document.addEventListener("visibilitychange", () => document.hidden || ask());
setInterval(showFreshness, 1000);
keepAsking();
