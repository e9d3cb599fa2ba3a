// The first sentence of the page: is DNS fine, and if not, which box is it.

import type { Missing, PartError, Status } from "./api";
import { percent } from "./format";
import type { Fleet } from "./store/fleet";

export type Level = "ok" | "warn" | "bad" | "unknown";

export interface Note {
  text: string;
  grave: boolean;
}

export interface Health {
  level: Level;
  glyph: string;
  /** One or two sentences without ages, so that a screen reader hears it again only when it changed. */
  sentence: string;
  /** "3 of 4 reporting", or "" where there is nobody to report. */
  reporting: string;
  missing: Missing[];
  /** More that is worth a line, the gravest first. */
  notes: Note[];
}

/** A share of failed answers from which DNS is no longer called fine. */
const failing = 5;

export const GLYPH: Record<Status, string> = { ok: "●", stale: "◐", offline: "○", never: "–", revoked: "⊘" };

export function healthOf(fleet: Fleet): Health {
  const { reporting, total, missing } = fleet.coverage;
  const errors = fleet.totals.recent?.error_percent ?? null;
  const fails = errors !== null && errors >= failing;
  return {
    ...levelOf(reporting, total, fails),
    sentence: sentenceOf(reporting, total, errors, fails),
    reporting: total === 0 ? "" : `${reporting} of ${total} reporting`,
    missing,
    notes: [...pausedNotes(fleet), ...fleet.errors.map(errorNote), ...truncatedNote(fleet)],
  };
}

function levelOf(reporting: number, total: number, fails: boolean): { level: Level; glyph: string } {
  if (total === 0) return { level: "unknown", glyph: GLYPH.never };
  if (reporting === 0) return { level: "bad", glyph: GLYPH.offline };
  if (fails) return { level: "bad", glyph: "▲" };
  return reporting < total ? { level: "warn", glyph: GLYPH.stale } : { level: "ok", glyph: GLYPH.ok };
}

function sentenceOf(reporting: number, total: number, errors: number | null, fails: boolean): string {
  if (total === 0) return "No instance answers DNS yet.";
  if (reporting === 0) return "No instance reports: whether DNS works cannot be told from here.";
  if (fails) return `${percent(errors)} of the queries of the last five minutes got no usable answer.`;
  return reporting === total ? "DNS is fine." : "";
}

function pausedNotes(fleet: Fleet): Note[] {
  const paused = fleet.instances.filter((i) => i.blocklist?.paused === true && (i.status === "ok" || i.status === "stale"));
  if (paused.length === 0) return [];
  const all = fleet.instances.filter((i) => i.blocklist !== null).length === paused.length;
  const text = all ? "Blocking is paused." : `Blocking is paused on ${names(paused.map((i) => i.name))}.`;
  return [{ text, grave: true }];
}

/** What a part of the view that could not be had means for the page. */
const PARTS: Record<string, { means: string; grave: boolean }> = {
  store: { means: "The store does not answer, so reports of other instances may be older than shown", grave: true },
  tokens: { means: "Tokens cannot be read, so new and revoked replicas may be missing", grave: true },
  policy: { means: "The policy cannot be read, so drift may be told wrongly", grave: true },
  queries: { means: "No figures by upstream or domain yet", grave: false },
};

function errorNote(e: PartError): Note {
  const known = PARTS[e.part];
  const means = known?.means ?? `Part “${e.part}” is missing`;
  const why = e.error.trim().replace(/\.$/, "");
  return { text: why === "" ? `${means}.` : `${means} (${why}).`, grave: known?.grave ?? true };
}

function truncatedNote(fleet: Fleet): Note[] {
  const text = `The table shows the first ${fleet.instances.length} instances; the totals cover all.`;
  return fleet.truncated ? [{ text, grave: false }] : [];
}

/** "a, b and 3 more". */
export function names(all: readonly string[], most = 3): string {
  if (all.length <= most) return all.length < 2 ? all.join("") : `${all.slice(0, -1).join(", ")} and ${all.at(-1)}`;
  return `${all.slice(0, most).join(", ")} and ${all.length - most} more`;
}
