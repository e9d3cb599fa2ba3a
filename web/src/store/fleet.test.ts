import { describe, expect, test } from "vitest";
import type { View } from "../api";
import { row, view } from "../testdata";
import { ageSeconds, figuresFrom, initialState, isLost, pollDelay, reduce, type State } from "./fleet";

function answered(state: State, at: number, ...views: View[]): State {
  return reduce(state, { type: "answered", at, pages: views.map((v) => ({ view: v, receivedAt: at })) });
}
const asked = (state: State, at: number) => reduce(state, { type: "asked", at });
const failed = (state: State, at: number) => reduce(state, { type: "failed", at, reason: "the primary cannot be reached" });

describe("an answer", () => {
  test("brings primaries and replicas, the answering primary once", () => {
    const home = row("home", { role: "primary" });
    const state = answered(initialState, 0, view({ primary: home, primaries: [home, row("home-b")], replicas: [row("r1")] }));
    expect(state.fleet?.instances.map((i) => i.key)).toEqual(["home", "home-b", "r1"]);
    expect(state.fleet?.replicas).toBe(1);
  });

  test("of several pages is one fleet", () => {
    const first = view({ replicas: [row("r1"), row("r2")], next: "c" });
    const state = answered(initialState, 0, first, view({ replicas: [row("r2"), row("r3")] }));
    expect(state.fleet?.instances.map((i) => i.key)).toEqual(["home", "r1", "r2", "r3"]);
    expect(state.fleet?.truncated).toBe(false);
  });

  test("that ends before the last page says so", () => {
    expect(answered(initialState, 0, view({ next: "c" })).fleet?.truncated).toBe(true);
  });

  test("keeps the objects of rows that only grew older", () => {
    const before = answered(initialState, 0, view({ replicas: [row("r1", { age_seconds: 1 }), row("r2", { age_seconds: 1 })] }));
    const after = answered(before, 2000, view({ replicas: [row("r1", { age_seconds: 3 }), row("r2", { age_seconds: 3, release: "2" })] }));
    const [, r1, r2] = after.fleet!.instances;
    expect(r1).toBe(before.fleet!.instances[1]);
    expect(r2).not.toBe(before.fleet!.instances[2]);
    expect(r2?.release).toBe("2");
  });

  test("replaces a row whose age jumped though nothing else changed", () => {
    const before = answered(initialState, 0, view({ replicas: [row("r1", { age_seconds: 1 })] }));
    const after = answered(before, 2000, view({ replicas: [row("r1", { age_seconds: 600 })] }));
    expect(ageSeconds(after.fleet!.instances[1]!.seenAt, 2000)).toBe(600);
  });

  test("tells tokens that nobody used apart", () => {
    const never = (token: string) => row("spare", { instance_id: null, token_id: token, status: "never", age_seconds: null });
    const state = answered(initialState, 0, view({ replicas: [never("t1"), never("t2")] }));
    expect(state.fleet?.instances.map((i) => i.key)).toEqual(["home", "token t1", "token t2"]);
    expect(state.fleet?.instances[1]?.seenAt).toBeNull();
  });
});

describe("an unchanged answer", () => {
  const first = answered(initialState, 1000, view({ replicas: [row("r1", { age_seconds: 3 })] }));
  const second = reduce(asked(first, 3000), { type: "unchanged", at: 3010 });

  test("keeps the figures", () => expect(second.fleet).toBe(first.fleet));
  test("lets ages grow by the browser's own clock", () => {
    expect(ageSeconds(second.fleet!.instances[1]!.seenAt, 6000)).toBe(8);
  });
  test("moves the time that figures are from", () => {
    expect(figuresFrom(second)).toBe(Date.parse("2026-11-24T14:02:11Z") + 2010);
  });
});

describe("the connection", () => {
  const good = answered(initialState, 10_000, view());

  test("is not lost while answers come", () => {
    expect(isLost(asked(good, 12_000), 12_100)).toBe(false);
  });
  test("is not lost by one failure that the next try mends", () => {
    expect(isLost(failed(good, 12_000), 12_400)).toBe(false);
  });
  test("is lost within five seconds of the last answer when requests fail", () => {
    expect(isLost(failed(good, 12_000), 14_000)).toBe(true);
  });
  test("is lost within five seconds of the last answer when a request hangs", () => {
    expect(isLost(asked(good, 12_000), 14_600)).toBe(true);
  });
  test("is lost when the first request fails", () => {
    expect(isLost(failed(initialState, 100), 100)).toBe(true);
  });
  test("is not lost because a hidden page had not asked for long", () => {
    expect(isLost(good, 200_000)).toBe(false);
    expect(isLost(asked(good, 200_000), 200_100)).toBe(false);
  });
  test("heals with the next answer and keeps the figures meanwhile", () => {
    const lost = failed(failed(good, 12_000), 15_000);
    expect(lost.fleet).toBe(good.fleet);
    expect(lost.reason).toBe("the primary cannot be reached");
    const healed = reduce(lost, { type: "unchanged", at: 20_000 });
    expect(isLost(healed, 20_000)).toBe(false);
    expect(healed).toMatchObject({ failures: 0, reason: "" });
  });
  test("is not lost again while a retry after a failure is under way and answers", () => {
    const again = reduce(asked(failed(good, 12_000), 12_500), { type: "unchanged", at: 12_600 });
    expect(isLost(again, 14_000)).toBe(false);
  });
});

describe("the next request", () => {
  const after = (failures: number): State => ({ ...initialState, failures });
  test("comes after two seconds", () => expect(pollDelay(after(0), false)).toBe(2000));
  test("comes within a second of a first failure, then later, but never later than five seconds", () => {
    expect([1, 2, 3, 4, 5, 60].map((n) => pollDelay(after(n), false))).toEqual([500, 1000, 2000, 4000, 5000, 5000]);
  });
  test("of a hidden page comes rarely", () => expect(pollDelay(after(0), true)).toBe(30_000));
});

test("an age never runs backwards below zero", () => {
  expect(ageSeconds(5000, 4000)).toBe(0);
  expect(ageSeconds(null, 4000)).toBeNull();
});
