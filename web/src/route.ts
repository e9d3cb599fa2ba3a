// What the address says: everything that a person may want to share or keep is in it.

import { createStore, type Store } from "./store/store";

export type Direction = "asc" | "desc";

/** What counts and ratios of the table cover: since each instance's start, or its last five complete minutes. */
export type Span = "start" | "recent";

export interface Route {
  sort: string; // id of a column
  dir: Direction;
  span: Span;
  filter: string;
}

export const defaultRoute: Route = { sort: "name", dir: "asc", span: "start", filter: "" };

export function parseRoute(search: string): Route {
  const query = new URLSearchParams(search);
  return {
    sort: query.get("sort") ?? defaultRoute.sort,
    dir: query.get("dir") === "desc" ? "desc" : "asc",
    span: query.get("span") === "recent" ? "recent" : "start",
    filter: (query.get("filter") ?? "").slice(0, 128),
  };
}

/** The query string of a route, without what is as by default; "" when all is. Foreign parameters are kept. */
export function formatRoute(route: Route, search: string): string {
  const query = new URLSearchParams(search);
  for (const key of ["sort", "dir", "span", "filter"]) query.delete(key);
  if (route.sort !== defaultRoute.sort || route.dir !== defaultRoute.dir) {
    query.set("sort", route.sort);
    query.set("dir", route.dir);
  }
  if (route.span !== defaultRoute.span) query.set("span", route.span);
  if (route.filter !== "") query.set("filter", route.filter);
  const text = query.toString();
  return text === "" ? "" : `?${text}`;
}

export const routeStore: Store<Route> = createStore(defaultRoute);

/** Reads the address now and whenever the browser goes back or forward. */
export function startRouting(): void {
  const read = () => routeStore.set(parseRoute(location.search));
  window.addEventListener("popstate", read);
  read();
}

/** Changes the address in place: sorting and filtering are no steps that "back" should undo one by one. */
export function navigate(change: Partial<Route>): void {
  const route = { ...routeStore.get(), ...change };
  history.replaceState(null, "", location.pathname + formatRoute(route, location.search) + location.hash);
  routeStore.set(route);
}
