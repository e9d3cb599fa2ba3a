// What the web API answers, as docs and internal/fleet/view.go name it. What is unknown is null, never zero.

export const OUTCOMES = [
  "blocked",
  "cached",
  "stale",
  "upstream",
  "local",
  "rewritten",
  "safe_search",
  "servfail",
  "upstream_error",
  "refused",
  "rate_limited",
  "invalid",
  "dropped",
] as const;

export type Outcome = (typeof OUTCOMES)[number];

/** Counts of every outcome; they add up to total. */
export type Distribution = Record<Outcome | "total", number>;

export type Status = "ok" | "stale" | "offline" | "revoked" | "never";
export type Role = "primary" | "replica";

export interface Quantiles {
  p50_ms: number | null;
  p95_ms: number | null;
  p99_ms: number | null;
}

export interface ResponseTime extends Quantiles {
  count: number;
  avg_ms: number | null;
}

export interface ListStats {
  name: string;
  entries: number;
  ignored: number;
  updated_at?: string;
  checked_at?: string;
  error?: string;
}

export interface BlocklistStats {
  blocked: number;
  allow: number;
  deny: number;
  paused: boolean;
  lists: ListStats[];
}

export interface CacheStats {
  hits: number;
  misses: number;
  hit_rate: number | null;
  lru: { entries: number; max_entries: number; fresh: number; stale: number; expired: number };
  redis_keys: number;
  redis_max_keys: number;
}

/** The last five complete minutes. */
export interface Recent extends Quantiles {
  seconds: number;
  queries_per_second: number | null;
  response_distribution: Distribution;
  blocked_percent: number | null;
  cached_percent: number | null;
  error_percent: number | null;
}

export interface Row {
  instance_id: string | null;
  token_id: string | null;
  name: string;
  role: Role;
  dns: boolean;
  status: Status;
  age_seconds: number | null;
  interval_seconds: number | null;
  last_updated: string | null;
  source: "push" | "pull" | "local" | null;
  release: string | null;
  boot_id: string | null;
  started_at: string | null;
  policy_revision: number | null;
  policy_drift: boolean | null;
  clock_skew_seconds: number | null;
  blocklist: BlocklistStats | null;
  cache: CacheStats | null;
  response_distribution: Distribution | null;
  response_time: ResponseTime | null;
  recent: Recent | null;
  lifetime: Distribution | null;
}

export interface Totals {
  response_distribution: Distribution;
  cache: CacheStats;
  blocked_percent: number | null;
  cached_percent: number | null;
  error_percent: number | null;
  recent: Recent | null;
  unique_clients: number | null;
  lists: { blocked_min: number | null; blocked_max: number | null };
  lifetime: Distribution | null;
}

export interface Missing {
  instance_id: string;
  name: string;
  status: Status;
  last_updated: string | null;
}

export interface Coverage {
  reporting: number;
  total: number;
  oldest_age_seconds: number | null;
  missing: Missing[];
}

export interface PartError {
  part: string;
  error: string;
}

/** GET /api/instances/stats: one page of replicas, with everything else on every page. */
export interface View {
  generated_at: string;
  coverage: Coverage;
  totals: Totals;
  primary: Row | null;
  primaries: Row[];
  replicas: Row[];
  next: string | null;
  errors: PartError[];
}

/** GET /api/auth/session. */
export interface Session {
  authenticated: boolean;
  open: boolean;
}

/** An answer that is no success. Its message is the server's own sentence where it sent one. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** One page of the view, or null when it is still what etag stands for. */
export async function fetchPage(
  cursor: string | null,
  etag: string | null,
  signal: AbortSignal,
): Promise<{ view: View; etag: string | null } | null> {
  const query = new URLSearchParams({ limit: "500" });
  if (cursor !== null) query.set("cursor", cursor);
  const headers = new Headers({ Accept: "application/json" });
  if (etag !== null) headers.set("If-None-Match", etag);
  const response = await fetch(`/api/instances/stats?${query}`, { headers, signal, cache: "no-store" });
  if (response.status === 304) return null;
  if (!response.ok) throw await apiError(response);
  return { view: (await response.json()) as View, etag: response.headers.get("ETag") };
}

export async function fetchSession(signal: AbortSignal): Promise<Session> {
  const response = await fetch("/api/auth/session", { signal, cache: "no-store" });
  if (!response.ok) throw await apiError(response);
  return (await response.json()) as Session;
}

export async function signOut(): Promise<void> {
  const response = await fetch("/api/auth/logout", { method: "POST" });
  if (!response.ok && response.status !== 401) throw await apiError(response);
}

async function apiError(response: Response): Promise<ApiError> {
  let sentence = `HTTP ${response.status}`;
  try {
    const body = (await response.json()) as { error?: unknown };
    if (typeof body.error === "string" && body.error !== "") sentence = body.error;
  } catch {
    // No JSON: something between the browser and the primary answered. The status is all there is to tell.
  }
  return new ApiError(response.status, sentence);
}
