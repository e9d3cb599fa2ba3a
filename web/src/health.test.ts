import { describe, expect, test } from "vitest";
import type { Coverage, Missing, Totals } from "./api";
import { healthOf, names } from "./health";
import type { Fleet } from "./store/fleet";
import { instance, recent, view } from "./testdata";

const missing = (name: string, status: Missing["status"]): Missing => ({
  instance_id: name, name, status, last_updated: "2026-11-24T14:02:00Z",
});

function fleet(coverage: Partial<Coverage>, change: Partial<Fleet> = {}, totals: Partial<Totals> = {}): Fleet {
  const v = view();
  return {
    generatedAt: 0,
    receivedAt: 0,
    coverage: { ...v.coverage, ...coverage },
    oldestSeenAt: 0,
    totals: { ...v.totals, ...totals },
    instances: [instance("home")],
    replicas: 0,
    errors: [],
    truncated: false,
    ...change,
  };
}

describe("the health sentence", () => {
  test("says that DNS is fine only when all report", () => {
    const h = healthOf(fleet({ reporting: 4, total: 4 }));
    expect(h).toMatchObject({ level: "ok", glyph: "●", sentence: "DNS is fine.", reporting: "4 of 4 reporting" });
  });

  test("counts those that report where one is missing", () => {
    const h = healthOf(fleet({ reporting: 3, total: 4, missing: [missing("r3", "offline")] }));
    expect(h).toMatchObject({ level: "warn", glyph: "◐", sentence: "", reporting: "3 of 4 reporting" });
    expect(h.missing.map((m) => m.name)).toEqual(["r3"]);
  });

  test("does not call failing DNS fine, however many report", () => {
    const h = healthOf(fleet({ reporting: 4, total: 4 }, {}, { recent: recent({ error_percent: 40.9 }) }));
    expect(h.level).toBe("bad");
    expect(h.sentence).toBe("40.9\u00a0% of the queries of the last five minutes got no usable answer.");
  });

  test("claims nothing when nobody reports", () => {
    expect(healthOf(fleet({ reporting: 0, total: 2 }))).toMatchObject({ level: "bad", glyph: "○" });
  });

  test("knows a fleet that answers no DNS yet", () => {
    expect(healthOf(fleet({ reporting: 0, total: 0 }))).toMatchObject({ level: "unknown", reporting: "" });
  });
});

describe("notes", () => {
  const blocklist = (paused: boolean) => ({ blocked: 1, allow: 0, deny: 0, paused, lists: [] });

  test("name the instances on which blocking is paused", () => {
    const instances = [instance("a", { blocklist: blocklist(true) }), instance("b", { blocklist: blocklist(false) })];
    expect(healthOf(fleet({}, { instances })).notes).toEqual([{ text: "Blocking is paused on a.", grave: true }]);
  });

  test("say what a broken part means, and why it is broken", () => {
    const errors = [{ part: "store", error: "store unavailable" }, { part: "weather", error: "" }];
    expect(healthOf(fleet({}, { errors })).notes.map((n) => n.text)).toEqual([
      "The store does not answer, so reports of other instances may be older than shown (store unavailable).",
      "Part “weather” is missing.",
    ]);
  });
});

test("many names are cut", () => {
  expect(names([])).toBe("");
  expect(names(["a"])).toBe("a");
  expect(names(["a", "b", "c"])).toBe("a, b and c");
  expect(names(["a", "b", "c", "d", "e"])).toBe("a, b, c and 2 more");
});
