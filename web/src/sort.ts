import { COLUMNS, type Column } from "./columns";
import type { Direction, Span } from "./route";
import type { Instance } from "./store/fleet";

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/**
 * The rows in the column's order. Unknown comes last in both directions; equal rows stand by name, then key, so that
 * no row changes places unless its own value did.
 */
export function sortInstances(rows: readonly Instance[], column: Column, dir: Direction, span: Span): Instance[] {
  const keyed = rows.map((row) => ({ row, key: column.key(row, span) }));
  const sign = dir === "asc" ? 1 : -1;
  keyed.sort((a, b) => {
    if (a.key === null || b.key === null) {
      if (a.key !== b.key) return a.key === null ? 1 : -1;
      return byName(a.row, b.row);
    }
    return sign * compareKeys(a.key, b.key) || byName(a.row, b.row);
  });
  return keyed.map((k) => k.row);
}

/** The rows whose name or id contains text, in any case. */
export function filterInstances(rows: readonly Instance[], text: string): readonly Instance[] {
  const wanted = text.trim().toLocaleLowerCase();
  if (wanted === "") return rows;
  return rows.filter(
    (r) => r.name.toLocaleLowerCase().includes(wanted) || (r.instance_id ?? "").toLocaleLowerCase().includes(wanted),
  );
}

/** The direction that a first click on the column gives: words from A, numbers from the largest. */
export function firstDirection(column: Column): Direction {
  return column.numeric ? "desc" : "asc";
}

export const DEFAULT_COLUMN: Column = COLUMNS[0]!;

function compareKeys(a: number | string, b: number | string): number {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return collator.compare(String(a), String(b));
}

function byName(a: Instance, b: Instance): number {
  return collator.compare(a.name, b.name) || (a.key < b.key ? -1 : a.key > b.key ? 1 : 0);
}
