import { describe, expect, test } from "vitest";
import { defaultRoute, formatRoute, parseRoute, type Route } from "./route";

describe("the address", () => {
  test("without parameters is the default", () => expect(parseRoute("")).toEqual(defaultRoute));

  test("names the column, the direction, the span and the filter", () => {
    expect(parseRoute("?sort=p95&dir=desc&span=recent&filter=home%202")).toEqual({
      sort: "p95", dir: "desc", span: "recent", filter: "home 2",
    });
  });

  test("with values that mean nothing is the default", () => {
    expect(parseRoute("?dir=sideways&span=forever")).toEqual(defaultRoute);
  });

  test("reads back as what was written", () => {
    const routes: Route[] = [
      defaultRoute,
      { sort: "name", dir: "desc", span: "start", filter: "" },
      { sort: "queries", dir: "asc", span: "recent", filter: "a&b=<c>%" },
    ];
    for (const route of routes) expect(parseRoute(formatRoute(route, ""))).toEqual(route);
  });

  test("is empty where all is as by default, and keeps what others put there", () => {
    expect(formatRoute(defaultRoute, "?sort=p95&dir=desc")).toBe("");
    expect(formatRoute(defaultRoute, "?tab=1&filter=x")).toBe("?tab=1");
  });
});
