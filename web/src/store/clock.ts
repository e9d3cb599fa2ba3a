import { createStore, useStore, type Store } from "./store";

const ticks: Store<number> = createStore(0);

/** Starts the tick that ages are told by: once a second, and not while the page is hidden. */
export function startClock(): void {
  const tick = () => {
    if (document.visibilityState === "visible") ticks.set(performance.now());
  };
  setInterval(tick, 1000);
  document.addEventListener("visibilitychange", tick);
}

/** What select makes of the present instant (performance.now); renders again only when its result changes. */
export function useClock<S>(select: (now: number) => S): S {
  return useStore(ticks, () => select(performance.now()));
}
