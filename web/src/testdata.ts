// Rows and views for tests.

import { OUTCOMES, type Distribution, type Recent, type Row, type View } from "./api";
import type { Instance } from "./store/fleet";

export function distribution(counts: Partial<Distribution> = {}): Distribution {
  const d = Object.fromEntries([...OUTCOMES, "total"].map((o) => [o, 0])) as Distribution;
  Object.assign(d, counts);
  d.total = OUTCOMES.reduce((sum, o) => sum + d[o], 0);
  return d;
}

export function recent(change: Partial<Recent> = {}): Recent {
  return {
    seconds: 300,
    queries_per_second: 1,
    response_distribution: distribution({ cached: 300 }),
    blocked_percent: 0,
    cached_percent: 100,
    error_percent: 0,
    p50_ms: 1,
    p95_ms: 2,
    p99_ms: 3,
    ...change,
  };
}

export function row(name: string, change: Partial<Row> = {}): Row {
  return {
    instance_id: name,
    token_id: null,
    name,
    role: "replica",
    dns: true,
    status: "ok",
    age_seconds: 3,
    interval_seconds: 10,
    last_updated: "2026-11-24T14:02:08Z",
    source: "push",
    release: "1.0.0",
    boot_id: "b",
    started_at: "2026-11-24T13:00:00Z",
    policy_revision: 1,
    policy_drift: false,
    clock_skew_seconds: 0,
    blocklist: null,
    cache: null,
    response_distribution: distribution(),
    response_time: null,
    recent: null,
    lifetime: distribution(),
    ...change,
  };
}

export function instance(name: string, change: Partial<Instance> = {}): Instance {
  return { ...row(name, change), key: name, seenAt: 0, ...change };
}

export function view(change: Partial<View> = {}): View {
  return {
    generated_at: "2026-11-24T14:02:11Z",
    coverage: { reporting: 1, total: 1, oldest_age_seconds: 3, missing: [] },
    totals: {
      response_distribution: distribution(),
      cache: {
        hits: 0,
        misses: 0,
        hit_rate: null,
        lru: { entries: 0, max_entries: 0, fresh: 0, stale: 0, expired: 0 },
        redis_keys: 0,
        redis_max_keys: 0,
      },
      blocked_percent: null,
      cached_percent: null,
      error_percent: null,
      recent: null,
      unique_clients: null,
      lists: { blocked_min: null, blocked_max: null },
      lifetime: distribution(),
    },
    primary: row("home", { role: "primary", source: "local" }),
    primaries: [row("home", { role: "primary", source: "local" })],
    replicas: [],
    next: null,
    errors: [],
    ...change,
  };
}
