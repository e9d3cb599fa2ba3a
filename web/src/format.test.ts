import { describe, expect, test } from "vitest";
import { ago, clock, clockSeconds, count, duration, exact, milliseconds, percent, rate, skew, utc } from "./format";

// No-break spaces join units; here they read as plain ones.
const plain = (s: string) => s.replaceAll("\u00a0", " ");

test("what is unknown reads as a dash, never as zero", () => {
  for (const format of [exact, count, percent, rate, milliseconds, skew, duration, ago, utc]) {
    for (const unknown of [null, undefined, Number.NaN]) expect(format(unknown), format.name).toBe("—");
  }
});

describe("a count", () => {
  test.each([
    [0, "0"],
    [947, "947"],
    [999, "999"],
    [1000, "1.0 k"],
    [12_431, "12.4 k"],
    [999_949, "999.9 k"],
    [999_950, "1.0 M"],
    [3_125_992, "3.1 M"],
    [2 ** 50, "1125.9 T"],
  ])("of %d reads %s", (n, want) => expect(plain(count(n))).toBe(want));

  test("has every digit in its title", () => expect(exact(3_125_992)).toBe("3,125,992"));
});

describe("a percentage", () => {
  test.each([
    [0, "0 %"],
    [0.0004, "<0.01 %"],
    [0.03, "0.03 %"],
    [17.94, "17.9 %"],
    [99.95, "99.9 %"],
    [99.9999, "99.9 %"],
    [100, "100 %"],
  ])("of %d reads %s", (p, want) => expect(plain(percent(p))).toBe(want));
});

describe("a rate", () => {
  test.each([
    [0, "0"],
    [0.004, "<0.01"],
    [0.4, "0.40"],
    [41.26, "41.3"],
    [162.1, "162"],
    [12_400, "12.4 k"],
  ])("of %d reads %s", (r, want) => expect(plain(rate(r))).toBe(want));
});

describe("milliseconds", () => {
  test.each([
    [0, "0 ms"],
    [0.004, "<0.01 ms"],
    [0.42, "0.42 ms"],
    [0.996, "1.0 ms"],
    [3.21, "3.2 ms"],
    [9.96, "10 ms"],
    [14.4, "14 ms"],
    [999.6, "1.0 s"],
    [61_000, "61.0 s"],
  ])("%d read %s", (ms, want) => expect(plain(milliseconds(ms))).toBe(want));
});

describe("an age", () => {
  test.each([
    [-3, "0 s"],
    [0, "0 s"],
    [8.9, "8 s"],
    [59.99, "59 s"],
    [60, "1 min"],
    [3599, "59 min"],
    [7200, "2 h"],
    [47 * 3600, "47 h"],
    [3 * 86400, "3 d"],
  ])("of %d seconds reads %s", (s, want) => expect(plain(duration(s))).toBe(want));

  test("is told in words", () => expect(plain(ago(8.2))).toBe("8 s ago"));
});

describe("a clock skew", () => {
  test.each([
    [0, "0 s"],
    [0.04, "0 s"],
    [2.13, "+2.1 s"],
    [-14.2, "−14 s"],
    [3700, "+1 h"],
  ])("of %d seconds reads %s", (s, want) => expect(plain(skew(s))).toBe(want));
});

describe("an instant", () => {
  const at = (...parts: [number, number, number, number, number]) => new Date(...parts);
  const now = at(2026, 10, 24, 15, 0);

  test("of today is its time on the reader's clock", () => {
    expect(clock(at(2026, 10, 24, 14, 2).toISOString(), now)).toBe("14:02");
  });
  test("of another day has the day in front", () => {
    expect(plain(clock(at(2026, 10, 2, 9, 5).toISOString(), now))).toBe("2 Nov 09:05");
  });
  test("of another year has the year", () => {
    expect(plain(clock(at(2025, 11, 31, 9, 5).toISOString(), now))).toBe("31 Dec 2025");
  });
  test("has seconds where figures are old", () => {
    expect(clockSeconds(new Date(2026, 10, 24, 14, 2, 11).getTime())).toBe("14:02:11");
  });
  test("is UTC in titles", () => expect(utc("2026-11-24T14:02:11.98Z")).toBe("2026-11-24 14:02:11 UTC"));
  test("that is no time reads as a dash", () => expect(clock("yesterday", now)).toBe("—"));
});
