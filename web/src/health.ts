// The first sentence of the page: is DNS fine, and if not, which box is it.

import type { Missing, PartError, Status } from "./api";
import { percent } from "./format";
import type { Fleet } from "./store/fleet";

export type Level = "ok" | "warn" | "bad" | "unknown";

export interface Health {
  level: Level;
  /** One or two sentences without ages, so that a screen reader hears it again only when it changed. */
  sentence: string;
  /** Whether the sentence should go on with the oldest report's age. */
  reporting: string;
  missing: Missing[];
  /** More that is worth a line, the gravest first. */
  notes: string[];
}

/** A share of failed answers from which DNS is no longer called fine. */
const failing = 5;

export const GLYPH: Record<Status, string> = { ok: "●", stale: "◐", offline: "○", never: "–", revoked: "⊘" };
export const LEVEL_GLYPH: Record<Level, string> = { ok: "●", warn: "◐", bad: "○", unknown: "–" };

export function healthOf(fleet: Fleet): Health {
  const { reporting, total, missing } = fleet.coverage;
  const errors = fleet.totals.recent?.error_percent ?? null;
  const bad = errors !== null && errors >= failing;
  return {
    level: levelOf(reporting, total, bad),
    sentence: sentenceOf(reporting, total, errors, bad),
    reporting: total === 0 ? "" : `${reporting} of ${total} reporting`,
    missing,
    notes: [...pausedNotes(fleet), ...fleet.errors.map(errorNote), ...truncatedNote(fleet)],
  };
}

function levelOf(reporting: number, total: number, bad: boolean): Level {
  if (total === 0) return "unknown";
  if (reporting === 0) return "bad";
  return bad || reporting < total ? "warn" : "ok";
}

function sentenceOf(reporting: number, total: number, errors: number | null, bad: boolean): string {
  if (total === 0) return "No instance answers DNS yet.";
  if (reporting === 0) return "No instance reports: whether DNS works cannot be told from here.";
  if (bad) return `${percent(errors)} of the queries of the last five minutes got no usable answer.`;
  return reporting === total ? "DNS is fine." : "";
}

function pausedNotes(fleet: Fleet): string[] {
  const paused = fleet.instances.filter((i) => i.blocklist?.paused === true && (i.status === "ok" || i.status === "stale"));
  if (paused.length === 0) return [];
  const all = fleet.instances.filter((i) => i.blocklist !== null).length === paused.length;
  return [all ? "Blocking is paused." : `Blocking is paused on ${names(paused.map((i) => i.name))}.`];
}

function errorNote(e: PartError): string {
  const part = PARTS[e.part] ?? e.part.replaceAll("_", " ");
  const sentence = e.error.trim().replace(/\.$/, "");
  return `${capital(part)} missing: ${sentence === "" ? "the primary does not say why" : sentence}.`;
}

const PARTS: Record<string, string> = { queries: "figures of the query log", policy: "the fleet's policy", store: "the store" };

function truncatedNote(fleet: Fleet): string[] {
  return fleet.truncated ? [`The table shows the first ${fleet.instances.length} instances; the totals cover all.`] : [];
}

/** "a, b and 3 more". */
export function names(all: readonly string[], most = 3): string {
  if (all.length <= most) return all.length < 2 ? all.join("") : `${all.slice(0, -1).join(", ")} and ${all.at(-1)}`;
  return `${all.slice(0, most).join(", ")} and ${all.length - most} more`;
}

function capital(s: string): string {
  return s.charAt(0).toLocaleUpperCase() + s.slice(1);
}
