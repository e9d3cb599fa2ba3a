import { describe, expect, test } from "vitest";
import { COLUMNS, columnOf, type ColumnID } from "./columns";
import { filterInstances, firstDirection, sortInstances } from "./sort";
import { distribution, instance, recent } from "./testdata";

const column = (id: ColumnID) => columnOf(id)!;
const names = (rows: readonly { name: string }[]) => rows.map((r) => r.name);

describe("sorting", () => {
  test("by name counts digits as numbers", () => {
    const rows = ["home-10", "home-2", "Cabin", "home-1"].map((n) => instance(n));
    expect(names(sortInstances(rows, column("name"), "asc", "start"))).toEqual(["Cabin", "home-1", "home-2", "home-10"]);
    expect(names(sortInstances(rows, column("name"), "desc", "start"))).toEqual(["home-10", "home-2", "home-1", "Cabin"]);
  });

  test("puts what is unknown last in both directions", () => {
    const rows = [
      instance("unknown", { response_distribution: null }),
      instance("few", { response_distribution: distribution({ cached: 1 }) }),
      instance("many", { response_distribution: distribution({ cached: 9 }) }),
    ];
    expect(names(sortInstances(rows, column("queries"), "desc", "start"))).toEqual(["many", "few", "unknown"]);
    expect(names(sortInstances(rows, column("queries"), "asc", "start"))).toEqual(["few", "many", "unknown"]);
  });

  test("keeps equal rows by name, then key, whatever order they came in", () => {
    const rows = [instance("b"), instance("a", { key: "2" }), instance("a", { key: "1" })];
    for (const dir of ["asc", "desc"] as const) {
      for (const given of [rows, [...rows].reverse()]) {
        const sorted = sortInstances(given, column("role"), dir, "start");
        expect(sorted.map((r) => r.name + r.key)).toEqual(["a1", "a2", "bb"]);
      }
    }
  });

  test("by status starts with the worst", () => {
    const rows = (["ok", "never", "offline", "revoked", "stale"] as const).map((s) => instance(s, { status: s }));
    expect(names(sortInstances(rows, column("status"), "asc", "start"))).toEqual(["offline", "stale", "revoked", "never", "ok"]);
  });

  test("goes by the chosen span", () => {
    const rows = [
      instance("was", { response_distribution: distribution({ blocked: 9, cached: 1 }), recent: recent() }),
      instance("is", {
        response_distribution: distribution({ blocked: 1, cached: 9 }),
        recent: recent({ response_distribution: distribution({ blocked: 5, cached: 5 }) }),
      }),
    ];
    expect(names(sortInstances(rows, column("blocked"), "desc", "start"))).toEqual(["was", "is"]);
    expect(names(sortInstances(rows, column("blocked"), "desc", "recent"))).toEqual(["is", "was"]);
  });

  test("leaves the rows it was given as they were", () => {
    const rows = [instance("b"), instance("a")];
    sortInstances(rows, column("name"), "asc", "start");
    expect(names(rows)).toEqual(["b", "a"]);
  });

  test("by the size of the skew, not its sign", () => {
    const rows = [instance("near", { clock_skew_seconds: 1 }), instance("far", { clock_skew_seconds: -30 })];
    expect(names(sortInstances(rows, column("skew"), "desc", "start"))).toEqual(["far", "near"]);
  });

  test("begins with the largest number and the first word", () => {
    expect(firstDirection(column("queries"))).toBe("desc");
    expect(firstDirection(column("name"))).toBe("asc");
    expect(firstDirection(column("status"))).toBe("asc");
  });
});

describe("filtering", () => {
  const rows = [instance("Kitchen", { instance_id: "k-1" }), instance("cabin", { instance_id: "c-1" })];
  test("ignores case and blanks around", () => expect(names(filterInstances(rows, " kit "))).toEqual(["Kitchen"]));
  test("finds ids too", () => expect(names(filterInstances(rows, "c-1"))).toEqual(["cabin"]));
  test("by nothing keeps all", () => expect(filterInstances(rows, "  ")).toBe(rows));
  test("takes the text as it is, not as a pattern", () => expect(filterInstances(rows, ".*")).toEqual([]));
});

describe("a column", () => {
  test("shows a dash for an instance that has never reported, and sorts it last", () => {
    const never = instance("never", {
      instance_id: null, status: "never", age_seconds: null, seenAt: null, last_updated: null, source: null, release: null,
      boot_id: null, started_at: null, policy_revision: null, policy_drift: null, clock_skew_seconds: null,
      response_distribution: null, lifetime: null,
    });
    for (const c of COLUMNS.filter((c) => !["name", "status", "role"].includes(c.id))) {
      expect(c.text(never, "start"), c.id).toBe("—");
      expect(c.key(never, "start"), c.id).toBeNull();
    }
  });

  test("of a ratio says of how many queries", () => {
    const row = instance("a", { response_distribution: distribution({ cached: 60, stale: 20, upstream: 20 }) });
    expect(column("cached").text(row, "start")).toBe("80.0\u00a0%");
    expect(column("cached").hint!(row, "start")).toBe("80 of 100 queries");
  });

  test("of a ratio of nothing is unknown", () => {
    expect(column("blocked").text(instance("a"), "start")).toBe("—");
  });
});
