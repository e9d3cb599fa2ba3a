// The columns of the instance table: what each shows, and by what it sorts. A column with a component of its own
// (instance, status, policy) is drawn in components/InstanceRow.tsx.

import { OUTCOMES, type Distribution, type Outcome, type Quantiles } from "./api";
import { count, duration, exact, milliseconds, percent, rate, skew, UNKNOWN, utc } from "./format";
import { blockedPercent, cachedPercent, ERRORS, errorPercent, FROM_CACHE, sum } from "./outcomes";
import type { Span } from "./route";
import type { Instance } from "./store/fleet";

export type ColumnID =
  | "name"
  | "status"
  | "role"
  | "qps"
  | "queries"
  | "blocked"
  | "cached"
  | "errors"
  | "p50"
  | "p95"
  | "p99"
  | "entries"
  | "lists"
  | "lifetime"
  | "policy"
  | "release"
  | "uptime"
  | "skew"
  | "source";

export interface Column {
  id: ColumnID;
  label: string;
  title: string;
  numeric: boolean;
  /** Only screens with room for it show this column. */
  wide?: true;
  /** What rows sort by; null sorts last in both directions. */
  key(row: Instance, span: Span): number | string | null;
  text(row: Instance, span: Span): string;
  /** The exact value, or where the figure comes from. */
  hint?(row: Instance, span: Span): string;
}

/** Clocks further apart than this are marked. */
export const maxSkew = 5;

function roleOf(row: Instance): string {
  if (row.dns) return row.role;
  return row.role === "primary" ? "frontend" : `${row.role}, no DNS`;
}

const STATUS_ORDER = { offline: 0, stale: 1, revoked: 2, never: 3, ok: 4 } as const;

function distribution(row: Instance, span: Span): Distribution | null {
  return (span === "recent" ? row.recent?.response_distribution : row.response_distribution) ?? null;
}

function quantiles(row: Instance, span: Span): Quantiles | null {
  return span === "recent" ? row.recent : row.response_time;
}

function ratio(
  id: ColumnID,
  label: string,
  title: string,
  of: (d: Distribution) => number | null,
  parts: readonly Outcome[],
): Column {
  const value = (row: Instance, span: Span) => {
    const d = distribution(row, span);
    return d === null ? null : of(d);
  };
  return {
    id,
    label,
    title,
    numeric: true,
    key: value,
    text: (row, span) => percent(value(row, span)),
    hint: (row, span) => {
      const d = distribution(row, span);
      return d === null || d.total === 0 ? "" : `${exact(sum(d, parts))} of ${exact(d.total)} queries`;
    },
  };
}

function quantile(id: "p50" | "p95" | "p99", wide?: true): Column {
  const value = (row: Instance, span: Span) => quantiles(row, span)?.[`${id}_ms`] ?? null;
  return {
    id,
    label: id,
    title: `${id.slice(1)} % of answers were ready within this time`,
    numeric: true,
    ...(wide && { wide }),
    key: value,
    text: (row, span) => milliseconds(value(row, span)),
    hint: (row, span) => {
      const ms = value(row, span);
      return ms === null ? "" : `${ms.toFixed(3)} ms`;
    },
  };
}

function counted(c: {
  id: ColumnID;
  label: string;
  title: string;
  wide?: true;
  value: (row: Instance, span: Span) => number | null | undefined;
  hint?: (row: Instance) => string;
}): Column {
  return {
    id: c.id,
    label: c.label,
    title: c.title,
    numeric: true,
    ...(c.wide && { wide: c.wide }),
    key: (row, span) => c.value(row, span) ?? null,
    text: (row, span) => count(c.value(row, span)),
    hint: (row, span) => {
      const n = c.value(row, span) ?? null;
      return [n === null ? "" : exact(n), c.hint?.(row) ?? ""].filter((s) => s !== "").join("; ");
    },
  };
}

function word(c: {
  id: ColumnID;
  label: string;
  title: string;
  value: (row: Instance) => string | null;
}): Column {
  const text = (row: Instance) => c.value(row) ?? UNKNOWN;
  return { ...c, numeric: false, key: c.value, text, hint: (row) => c.value(row) ?? "" }; // it may be cut short
}

export const COLUMNS: readonly Column[] = [
  word({ id: "name", label: "instance", title: "Name of the instance", value: (r) => r.name }),
  {
    ...word({ id: "status", label: "status", title: "How it is, and when it last reported", value: (r) => r.status }),
    key: (r) => STATUS_ORDER[r.status],
  },
  {
    ...word({ id: "role", label: "role", title: "Primary or replica", value: roleOf }),
    hint: (r) => (r.dns ? "" : `A ${r.role} that answers no DNS`),
  },
  {
    id: "qps",
    label: "q/s",
    title: "Queries per second, last five minutes",
    numeric: true,
    key: (r) => r.recent?.queries_per_second ?? null,
    text: (r) => rate(r.recent?.queries_per_second),
    hint: (r) =>
      r.recent === null
        ? ""
        : `${exact(r.recent.response_distribution.total)} queries in ${exact(r.recent.seconds)} s`,
  },
  counted({
    id: "queries",
    label: "queries",
    title: "Queries in the chosen span",
    value: (r, span) => distribution(r, span)?.total,
    hint: (r) => (r.lifetime === null ? "" : `${exact(r.lifetime.total)} in its lifetime`),
  }),
  ratio("blocked", "blocked", "Share that a rule or list blocked", blockedPercent, ["blocked"]),
  ratio("cached", "cached", "Share answered from the cache, stale answers included", cachedPercent, FROM_CACHE),
  ratio("errors", "errors", "Share that got no usable answer", errorPercent, ERRORS),
  quantile("p50", true),
  quantile("p95"),
  quantile("p99", true),
  counted({
    id: "entries",
    label: "cache",
    title: "Entries in the memory cache",
    value: (r) => r.cache?.lru.entries,
    hint: (r) => (r.cache === null ? "" : `room for ${exact(r.cache.lru.max_entries)}`),
  }),
  counted({
    id: "lists",
    label: "listed",
    title: "Names that its block lists hold",
    wide: true,
    value: (r) => r.blocklist?.blocked,
  }),
  counted({
    id: "lifetime",
    label: "lifetime",
    title: "Queries since the instance was first seen",
    wide: true,
    value: (r) => r.lifetime?.total,
  }),
  {
    id: "policy",
    label: "policy",
    title: "Revision of the policy it runs",
    numeric: true,
    key: (r) => r.policy_revision,
    text: (r) => (r.policy_revision === null ? UNKNOWN : `#${r.policy_revision}`),
    hint: (r) => (r.policy_drift === true ? "It runs another policy than the fleet's" : ""),
  },
  word({ id: "release", label: "version", title: "Release that it runs", value: (r) => r.release }),
  {
    id: "uptime",
    label: "started",
    title: "When this boot began",
    numeric: true,
    wide: true,
    key: (r) => (r.started_at === null ? null : Date.parse(r.started_at)),
    text: (r) => (r.started_at === null ? UNKNOWN : `${duration(sinceStart(r))} ago`),
    hint: (r) => (r.started_at === null ? "" : utc(r.started_at)),
  },
  {
    id: "skew",
    label: "skew",
    title: "Its clock minus the fleet's",
    numeric: true,
    key: (r) => (r.clock_skew_seconds === null ? null : Math.abs(r.clock_skew_seconds)),
    text: (r) => skew(r.clock_skew_seconds),
    hint: (r) =>
      r.clock_skew_seconds !== null && Math.abs(r.clock_skew_seconds) > maxSkew ? "Its clock is off by more than 5 s" : "",
  },
  word({ id: "source", label: "source", title: "How its report came here", value: (r) => r.source }),
];

/** Its age when it last reported: of two clocks that may differ, only the store's are compared. */
function sinceStart(row: Instance): number | null {
  if (row.started_at === null || row.last_updated === null) return null;
  return (Date.parse(row.last_updated) - Date.parse(row.started_at)) / 1000;
}

export function columnOf(id: string): Column | undefined {
  return COLUMNS.find((c) => c.id === id);
}

/** Every outcome that happened, for titles: "blocked 12, cached 90". */
export function outcomeList(d: Distribution): string {
  return OUTCOMES.filter((o) => d[o] > 0)
    .map((o) => `${o} ${exact(d[o])}`)
    .join(", ");
}

export function cellClass(column: Column): string {
  return [column.numeric && "num", column.wide && "wide"].filter(Boolean).join(" ");
}
