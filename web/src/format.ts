// How numbers and times read. Unknown is a dash, never zero; a unit is joined by a no-break space.

export const UNKNOWN = "—";
const NBSP = "\u00a0";
const MINUS = "−";

const exactFormat = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** Every digit: 128,412. */
export function exact(n: number | null | undefined): string {
  return known(n) ? exactFormat.format(n) : UNKNOWN;
}

/** A count in short form: 947, 12.4 k, 3.1 M. */
export function count(n: number | null | undefined): string {
  if (!known(n)) return UNKNOWN;
  if (Math.abs(n) < 1000) return String(Math.round(n));
  let scaled = n;
  for (const unit of ["k", "M", "G", "T"]) {
    scaled /= 1000;
    if (Math.abs(scaled) < 999.95) return `${scaled.toFixed(1)}${NBSP}${unit}`;
  }
  return `${scaled.toFixed(1)}${NBSP}T`;
}

/** A percentage (0–100). It reads 0 % or 100 % only where that is exactly so. */
export function percent(p: number | null | undefined): string {
  if (!known(p)) return UNKNOWN;
  return `${percentDigits(p)}${NBSP}%`;
}

function percentDigits(p: number): string {
  if (p === 0 || p === 100) return String(p);
  if (p < 0.01) return "<0.01";
  if (p < 1) return p.toFixed(2);
  return p > 99.9 ? "99.9" : p.toFixed(1);
}

/** Queries per second. */
export function rate(r: number | null | undefined): string {
  if (!known(r)) return UNKNOWN;
  if (r === 0) return "0";
  if (r < 0.01) return "<0.01";
  if (r < 1) return r.toFixed(2);
  if (r < 99.95) return r.toFixed(1);
  return count(r);
}

/** A duration in milliseconds: 0.42 ms, 14 ms, 1.2 s. */
export function milliseconds(ms: number | null | undefined): string {
  if (!known(ms)) return UNKNOWN;
  if (ms === 0) return `0${NBSP}ms`;
  if (ms < 0.01) return `<0.01${NBSP}ms`;
  if (ms < 0.995) return `${ms.toFixed(2)}${NBSP}ms`;
  if (ms < 9.95) return `${ms.toFixed(1)}${NBSP}ms`;
  if (ms < 999.5) return `${ms.toFixed(0)}${NBSP}ms`;
  return `${(ms / 1000).toFixed(1)}${NBSP}s`;
}

/** A signed difference of clocks in seconds: +2.1 s, −14 s, 0 s; hours and days where it is that far. */
export function skew(seconds: number | null | undefined): string {
  if (!known(seconds)) return UNKNOWN;
  const size = Math.abs(seconds);
  if (size < 0.05) return `0${NBSP}s`;
  const sign = seconds < 0 ? MINUS : "+";
  return sign + (size < 9.95 ? `${size.toFixed(1)}${NBSP}s` : duration(size));
}

/** A length of time with one unit: 8 s, 12 min, 2 h, 3 d. Always rounded down, as people tell ages. */
export function duration(seconds: number | null | undefined): string {
  if (!known(seconds)) return UNKNOWN;
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s}${NBSP}s`;
  if (s < 3600) return `${Math.floor(s / 60)}${NBSP}min`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)}${NBSP}h`;
  return `${Math.floor(s / 86400)}${NBSP}d`;
}

/** "8 s ago", or a dash. */
export function ago(seconds: number | null | undefined): string {
  return known(seconds) ? `${duration(seconds)} ago` : UNKNOWN;
}

/** The instant in UTC, for titles: 2026-11-24 14:02:11 UTC. */
export function utc(t: string | number | null | undefined): string {
  const date = parse(t);
  return date === null ? UNKNOWN : `${date.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** The instant on the reader's own clock: 14:02, with the day in front when it is not now's. */
export function clock(t: string | number | null | undefined, now: Date): string {
  const date = parse(t);
  if (date === null) return UNKNOWN;
  const time = `${two(date.getHours())}:${two(date.getMinutes())}`;
  if (date.toDateString() === now.toDateString()) return time;
  const day = `${date.getDate()}${NBSP}${MONTHS[date.getMonth()]}`;
  return date.getFullYear() === now.getFullYear() ? `${day} ${time}` : `${day} ${date.getFullYear()}`;
}

/** The instant on the reader's own clock with seconds: 14:02:11. */
export function clockSeconds(t: number): string {
  const date = parse(t);
  if (date === null) return UNKNOWN;
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

function two(n: number): string {
  return String(n).padStart(2, "0");
}

function parse(t: string | number | null | undefined): Date | null {
  if (t === null || t === undefined) return null;
  const date = new Date(t);
  return Number.isNaN(date.getTime()) ? null : date;
}

function known(n: number | null | undefined): n is number {
  return n !== null && n !== undefined && Number.isFinite(n);
}
