// A small stand-in for a primary, to look at the dashboard without one: serves dist with the real
// Content-Security-Policy and answers GET /api/instances/stats with a made-up fleet whose figures move.
//
//   node dev/mock.mjs [--scenario fine|mixed|failing|down|empty|big] [--port 8899] [--signed-in]

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const dist = fileURLToPath(new URL("../dist/", import.meta.url));
const types = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
const outcomes = ["blocked", "cached", "stale", "upstream", "local", "rewritten", "safe_search",
  "servfail", "upstream_error", "refused", "rate_limited", "invalid", "dropped"];
const started = Date.now();

/** A distribution of total queries; weights in the order of outcomes. */
function distribution(total, weights) {
  const all = weights.reduce((a, b) => a + b, 0);
  const d = Object.fromEntries(outcomes.map((o, i) => [o, Math.floor((total * (weights[i] ?? 0)) / all)]));
  d.upstream += total - Object.values(d).reduce((a, b) => a + b, 0);
  return { ...d, total };
}

const plain = [179, 690, 12, 100, 9, 1, 0, 2, 1, 1, 0, 1, 0];
const broken = [120, 300, 40, 20, 9, 0, 0, 90, 260, 1, 12, 1, 5];
const percent = (part, total) => (total === 0 ? null : (100 * part) / total);
const errorsOf = (d) => d.servfail + d.upstream_error + d.invalid;

function recentOf(qps, weights, p95) {
  const d = distribution(Math.round(qps * 300), weights);
  return {
    seconds: 300, queries_per_second: qps, response_distribution: d, blocked_percent: percent(d.blocked, d.total),
    cached_percent: percent(d.cached + d.stale, d.total), error_percent: percent(errorsOf(d), d.total),
    p50_ms: p95 / 9, p95_ms: p95, p99_ms: p95 * 3.1,
  };
}

function row(o) {
  const now = Date.now();
  const base = {
    instance_id: o.id ?? o.name, token_id: o.role === "primary" ? null : `t${o.id ?? o.name}`, name: o.name, role: o.role ?? "replica",
    dns: o.dns ?? true, status: o.status ?? "ok", age_seconds: null, interval_seconds: null, last_updated: null, source: null,
    release: null, boot_id: "b1", started_at: null, policy_revision: null, policy_drift: null, clock_skew_seconds: null, blocklist: null,
    cache: null, cache_refresh: null, refresh: null, response_distribution: null, response_time: null, recent: null, lifetime: null, queries: null,
  };
  if (base.status === "never") return { ...base, instance_id: null, boot_id: null };
  const interval = 10;
  const age = o.age ?? ((now - started) / 1000 + (o.phase ?? 0)) % interval;
  const total = Math.round(o.total + (o.qps ?? 0) * ((now - started) / 1000 - (o.age === undefined ? age : 0)));
  Object.assign(base, {
    age_seconds: age, last_updated: new Date(now - age * 1000).toISOString(), lifetime: distribution(total * 3, o.weights ?? plain),
  });
  if (base.status === "offline") return base;
  const p95 = o.p95 ?? 14;
  return Object.assign(base, {
    interval_seconds: interval, source: o.source ?? "push", release: o.release ?? "1.2.0", policy_revision: o.revision ?? 41,
    started_at: new Date(started - 3600e3 * 26).toISOString(), policy_drift: o.drift ?? false, clock_skew_seconds: o.skew ?? 0.012,
    blocklist: { blocked: 184212, allow: 3, deny: 12, paused: o.paused ?? false, lists: [] },
    cache: { hits: 90, misses: 10, hit_rate: 90, lru: { entries: o.entries ?? 8123, max_entries: 60000, fresh: 8000, stale: 100, expired: 23 },
      redis_keys: 0, redis_max_keys: 0 },
    response_distribution: distribution(total, o.weights ?? plain),
    response_time: { count: total, avg_ms: p95 / 4, p50_ms: p95 / 10, p95_ms: p95 * 1.07, p99_ms: p95 * 3.5 },
    recent: o.noRecent ? null : recentOf(o.qps ?? 0, o.weights ?? plain, p95),
  });
}

const primary = () => row({ name: "home-1", role: "primary", source: "local", total: 81_204, qps: 41.3, p95: 12, age: 0.2 });
const healthy = () => [
  row({ name: "home-2", total: 40_518, qps: 22.8, phase: 3, p95: 15 }),
  row({ name: "kitchen", total: 940, qps: 0.4, phase: 5, entries: 212, p95: 9 }),
  row({ name: "office", total: 3_125_992, qps: 162.1, phase: 7, entries: 41_020, p95: 21 }),
];
const hostile = () => [
  row({ name: `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`, id: "xss", total: 120, qps: 1.2, phase: 1 }),
  row({ name: "evil\u202egnp.exe \u0627\u0644\u0639\u0631\u0628\u064a\u0629", id: "bidi", total: 50, qps: 0.1, phase: 8 }),
  row({ name: "👩‍👩‍👧 " + "long-name-".repeat(11), id: "long", total: 7, qps: 0.02, phase: 2, p95: 0.3 }),
];

const scenarios = {
  fine: { primary, replicas: healthy },
  mixed: {
    primary,
    replicas: () => [
      row({ name: "cabin", status: "stale", age: 41 + (Date.now() - started) / 1000, total: 9_312, qps: 3.1, p95: 61, revision: 40, drift: true, release: "1.1.3", skew: -14.2 }),
      ...healthy(),
      row({ name: "home-2", id: "home-2-old", status: "offline", age: 7200, total: 512 }),
      row({ name: "spare", status: "never" }),
      row({ name: "lost-phone", status: "revoked", age: 86400 * 3, total: 4_010, paused: true }),
      ...hostile(),
    ],
    errors: [{ part: "queries", error: "the query log is off" }],
  },
  failing: { primary: () => row({ name: "home-1", role: "primary", source: "local", total: 81_204, qps: 41.3, p95: 2100, age: 0.2, weights: broken, paused: true }),
    replicas: () => healthy().map((r) => ({ ...r, recent: recentOf(r.recent.queries_per_second, broken, 2400) })) },
  down: { primary: () => row({ name: "front", role: "primary", source: "local", dns: false, total: 0, age: 0.2, noRecent: true, entries: 0 }),
    replicas: () => ["a", "b"].map((n) => row({ name: n, status: "offline", age: 900, total: 88 })) },
  empty: { primary: () => row({ name: "home-1", role: "primary", source: "local", total: 12, qps: 0, noRecent: true, age: 0.2 }), replicas: () => [] },
  big: { primary, replicas: () => Array.from({ length: 1200 }, (_, i) => row({ name: `box-${i}`, total: 1000 + i, qps: i / 100, phase: i % 10 })) },
};

function sum(rows) {
  const add = (ds) => ds.reduce((t, d) => Object.fromEntries(Object.keys(t).map((k) => [k, t[k] + d[k]])), distribution(0, plain));
  const live = rows.filter((r) => r.status === "ok" || r.status === "stale");
  const all = add(live.map((r) => r.response_distribution));
  const recents = live.map((r) => r.recent).filter((r) => r !== null);
  const d = add(recents.map((r) => r.response_distribution));
  const p95 = Math.max(0, ...recents.map((r) => r.p95_ms));
  return {
    response_distribution: all, cache: live[0]?.cache, blocked_percent: percent(all.blocked, all.total),
    cached_percent: percent(all.cached + all.stale, all.total), error_percent: percent(errorsOf(all), all.total),
    recent: recents.length === 0 ? null : { seconds: 300, queries_per_second: recents.reduce((t, r) => t + r.queries_per_second, 0), response_distribution: d,
      blocked_percent: percent(d.blocked, d.total), cached_percent: percent(d.cached + d.stale, d.total), error_percent: percent(errorsOf(d), d.total),
      p50_ms: p95 / 9, p95_ms: p95, p99_ms: p95 * 3 },
    unique_clients: null, lists: { blocked_min: 184212, blocked_max: 184212 }, lifetime: add(rows.map((r) => r.lifetime).filter((l) => l !== null)),
  };
}

function view(scenario, limit, cursor) {
  const first = scenario.primary();
  const replicas = scenario.replicas().sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  const rows = [first, ...replicas];
  const counted = rows.filter((r) => r.dns && r.instance_id !== null && r.status !== "revoked");
  const ok = counted.filter((r) => r.status === "ok");
  return {
    generated_at: new Date().toISOString(),
    coverage: {
      reporting: ok.length, total: counted.length, oldest_age_seconds: ok.length === 0 ? null : Math.max(...ok.map((r) => r.age_seconds)),
      missing: counted.filter((r) => r.status !== "ok").map(({ instance_id, name, status, last_updated }) => ({ instance_id, name, status, last_updated })),
    },
    totals: sum(rows), primary: first, primaries: [first], replicas: replicas.slice(cursor, cursor + limit),
    next: cursor + limit < replicas.length ? String(cursor + limit) : null, errors: scenario.errors ?? [],
  };
}

/** Starts the mock; its name can be changed while it runs. */
export async function startMock({ scenario = "mixed", port = 0, signedIn = false } = {}) {
  const mock = { scenario, url: "", stop: () => {} };
  const server = createServer(async (req, res) => {
    const url = new URL(req.url, "http://mock");
    res.setHeader("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'");
    res.setHeader("X-Content-Type-Options", "nosniff");
    if (url.pathname === "/api/auth/session") return json(req, res, { authenticated: true, open: !signedIn });
    if (url.pathname === "/api/instances/stats") {
      return json(req, res, view(scenarios[mock.scenario], Number(url.searchParams.get("limit") ?? 500), Number(url.searchParams.get("cursor") ?? 0)));
    }
    const path = url.pathname === "/" ? "index.html" : normalize(url.pathname).slice(1);
    try {
      const body = await readFile(join(dist, path));
      res.writeHead(200, { "Content-Type": types[extname(path)] ?? "application/octet-stream" }).end(body);
    } catch {
      res.writeHead(404).end("not found");
    }
  });
  await new Promise((resolve, reject) => server.on("error", reject).listen(port, "127.0.0.1", resolve));
  mock.url = `http://127.0.0.1:${server.address().port}`;
  mock.stop = () => {
    server.closeAllConnections();
    server.close();
  };
  return mock;
}

function json(req, res, body) {
  const stable = JSON.stringify(body, (k, v) => (k === "generated_at" || k.endsWith("age_seconds") ? undefined : v));
  const etag = `"${createHash("sha256").update(stable).digest("base64url")}"`;
  if (req.headers["if-none-match"] === etag) return res.writeHead(304, { ETag: etag }).end();
  res.writeHead(200, { "Content-Type": "application/json", "Cache-Control": "no-store", ETag: etag }).end(JSON.stringify(body));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: { scenario: { type: "string", default: "mixed" }, port: { type: "string", default: "8899" }, "signed-in": { type: "boolean", default: false } },
  });
  const mock = await startMock({ scenario: values.scenario, port: Number(values.port), signedIn: values["signed-in"] });
  console.log(mock.url);
}
