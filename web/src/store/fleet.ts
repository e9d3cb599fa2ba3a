// What the dashboard knows of the fleet, and how it changes. Pure: instants come in as milliseconds of the browser's
// monotonic clock (performance.now), so a wrong or stepped wall clock changes no age.

import type { Coverage, PartError, Row, Totals, View } from "../api";

/** A row as tables use it. It stays the same object for as long as nothing but its age changed. */
export interface Instance extends Row {
  key: string;
  seenAt: number | null; // when it last reported
}

/** The view, merged over its pages. */
export interface Fleet {
  generatedAt: number; // the server's clock, ms since 1970
  receivedAt: number;
  coverage: Coverage;
  oldestSeenAt: number | null;
  totals: Totals;
  instances: Instance[];
  replicas: number;
  errors: PartError[];
  truncated: boolean; // there are more replicas than the dashboard loads
}

/** One page as it was received. */
export interface Page {
  view: View;
  receivedAt: number;
}

export interface State {
  fleet: Fleet | null;
  heardAt: number | null; // last success, 304 included
  askedAt: number | null; // since when a request waits for its answer
  failures: number; // in a row
  reason: string; // of the last failure
}

export const initialState: State = { fleet: null, heardAt: null, askedAt: null, failures: 0, reason: "" };

export type Event =
  | { type: "asked"; at: number }
  | { type: "answered"; at: number; pages: Page[] }
  | { type: "unchanged"; at: number }
  | { type: "failed"; at: number; reason: string };

export function reduce(state: State, event: Event): State {
  switch (event.type) {
    case "asked":
      return { ...state, askedAt: event.at };
    case "answered":
      return { fleet: mergePages(event.pages, state.fleet), heardAt: event.at, askedAt: null, failures: 0, reason: "" };
    case "unchanged":
      return { ...state, heardAt: event.at, askedAt: null, failures: 0, reason: "" };
    case "failed":
      return { ...state, askedAt: null, failures: state.failures + 1, reason: event.reason };
  }
}

const lostAfter = 4000;
const slowAfter = 2500;

/** Whether figures may be old: no answer for four seconds although asked, or a request that hangs. */
export function isLost(state: State, now: number): boolean {
  if (state.askedAt !== null && now - state.askedAt >= slowAfter) return true;
  if (state.failures === 0) return false;
  return state.heardAt === null || now - state.heardAt >= lostAfter;
}

/** The server's clock at the last success: "figures are from …". Null before the first. */
export function figuresFrom(state: State): number | null {
  if (state.fleet === null || state.heardAt === null) return null;
  return state.fleet.generatedAt + (state.heardAt - state.fleet.receivedAt);
}

/** Milliseconds until the next request. */
export function pollDelay(state: State, hidden: boolean): number {
  if (hidden) return 30_000;
  if (state.failures === 0) return 2000;
  return Math.min(500 * 2 ** (state.failures - 1), 5000);
}

export function ageSeconds(seenAt: number | null, now: number): number | null {
  return seenAt === null ? null : Math.max(0, (now - seenAt) / 1000);
}

function mergePages(pages: Page[], before: Fleet | null): Fleet | null {
  const first = pages[0];
  const last = pages[pages.length - 1];
  if (first === undefined || last === undefined) return before;
  const known = new Map(before?.instances.map((i) => [i.key, i]));
  const instances = new Map<string, Instance>();
  const add = (row: Row, receivedAt: number) => {
    const key = row.instance_id ?? `token ${row.token_id ?? row.name}`;
    // Pages are read one after the other, so that a rename in between may show a replica on two of them.
    if (!instances.has(key)) instances.set(key, keep(known.get(key), row, key, receivedAt));
  };
  for (const row of first.view.primaries) add(row, first.receivedAt);
  if (first.view.primary !== null) add(first.view.primary, first.receivedAt);
  const primaries = instances.size;
  for (const page of pages) for (const row of page.view.replicas) add(row, page.receivedAt);
  const { coverage, totals, errors } = first.view;
  return {
    generatedAt: Date.parse(first.view.generated_at),
    receivedAt: first.receivedAt,
    coverage,
    oldestSeenAt: seenAt(coverage.oldest_age_seconds, first.receivedAt),
    totals,
    instances: [...instances.values()],
    replicas: instances.size - primaries,
    errors,
    truncated: last.view.next !== null && last.view.next !== undefined && last.view.next !== "",
  };
}

function keep(old: Instance | undefined, row: Row, key: string, receivedAt: number): Instance {
  const seen = seenAt(row.age_seconds, receivedAt);
  const jitter = 1500;
  if (old !== undefined && Math.abs((old.seenAt ?? 0) - (seen ?? 0)) < jitter && sameButAge(old, row)) return old;
  return { ...row, key, seenAt: seen };
}

function seenAt(age: number | null, receivedAt: number): number | null {
  return age === null ? null : receivedAt - age * 1000;
}

function sameButAge(old: Instance, row: Row): boolean {
  return (Object.keys(row) as (keyof Row)[]).every((k) => k === "age_seconds" || equal(old[k], row[k]));
}

function equal(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  const keys = Object.keys(a);
  return (
    keys.length === Object.keys(b).length &&
    keys.every((k) => equal((a as Record<string, unknown>)[k], (b as Record<string, unknown>)[k]))
  );
}
