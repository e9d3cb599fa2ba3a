import type { Distribution, Outcome } from "./api";

/** Outcomes that share one colour and one line of the legend, in the order in which they are stacked. */
export interface Group {
  id: string;
  label: string;
  outcomes: readonly Outcome[];
}

export const GROUPS: readonly Group[] = [
  { id: "blocked", label: "blocked", outcomes: ["blocked"] },
  { id: "cached", label: "cached", outcomes: ["cached"] },
  { id: "stale", label: "stale cache", outcomes: ["stale"] },
  { id: "upstream", label: "upstream", outcomes: ["upstream"] },
  { id: "local", label: "local", outcomes: ["local", "rewritten", "safe_search"] },
  { id: "errors", label: "errors", outcomes: ["servfail", "upstream_error", "invalid"] },
  { id: "denied", label: "refused or dropped", outcomes: ["refused", "rate_limited", "dropped"] },
];

export function sum(d: Distribution, outcomes: readonly Outcome[]): number {
  return outcomes.reduce((total, o) => total + (d[o] ?? 0), 0);
}

export const FROM_CACHE: readonly Outcome[] = ["cached", "stale"];
export const ERRORS: readonly Outcome[] = ["servfail", "upstream_error", "invalid"];

/** part ÷ total in percent; a ratio of nothing is unknown. */
export function share(part: number, total: number): number | null {
  return total > 0 ? (100 * part) / total : null;
}

export const blockedPercent = (d: Distribution): number | null => share(sum(d, ["blocked"]), d.total);
export const cachedPercent = (d: Distribution): number | null => share(sum(d, FROM_CACHE), d.total);
export const errorPercent = (d: Distribution): number | null => share(sum(d, ERRORS), d.total);
