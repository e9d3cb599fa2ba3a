import { ApiError, fetchPage } from "../api";
import { type Page, initialState, pollDelay, reduce, type Event, type State } from "./fleet";
import { createStore, type Store } from "./store";

const timeout = 5000;
const maxPages = 20; // 10,000 replicas

interface CachedPage extends Page {
  cursor: string | null;
  etag: string | null;
}

export const fleetStore: Store<State> = createStore(initialState);

/**
 * Keeps fleetStore up to date until the returned function is called. One request is under way at a time; a hidden page
 * asks rarely, and at once when it is shown again. onSignedOut is called when the server wants a sign-in.
 */
export function startPolling(onSignedOut: () => void): () => void {
  const stopped = new AbortController();
  let pages: CachedPage[] = [];
  let wake = () => {};

  const dispatch = (event: Event) => fleetStore.set(reduce(fleetStore.get(), event));
  const onVisible = () => {
    if (document.visibilityState === "visible") wake();
  };
  const onOnline = () => wake();

  async function poll(): Promise<void> {
    dispatch({ type: "asked", at: performance.now() });
    try {
      const next = await loadPages(pages, stopped.signal, (some) => {
        // A large fleet shows what is there rather than wait for its last page.
        if (fleetStore.get().fleet === null) dispatch({ type: "answered", at: performance.now(), pages: some });
      });
      const changed = next.length !== pages.length || next.some((p, i) => p !== pages[i]);
      pages = next;
      const at = performance.now();
      dispatch(changed ? { type: "answered", at, pages } : { type: "unchanged", at });
    } catch (err) {
      if (stopped.signal.aborted) return;
      if (err instanceof ApiError && err.status === 401) {
        stopped.abort();
        onSignedOut();
        return;
      }
      dispatch({ type: "failed", at: performance.now(), reason: reasonOf(err) });
    }
  }

  async function run(): Promise<void> {
    while (!stopped.signal.aborted) {
      await poll();
      if (stopped.signal.aborted) return;
      const delay = pollDelay(fleetStore.get(), document.visibilityState === "hidden");
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, delay);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  document.addEventListener("visibilitychange", onVisible);
  window.addEventListener("online", onOnline);
  void run();
  return () => {
    stopped.abort();
    document.removeEventListener("visibilitychange", onVisible);
    window.removeEventListener("online", onOnline);
    wake();
  };
}

/** Every page from the first; a page that did not change is the same object as in before. */
async function loadPages(
  before: CachedPage[],
  stopped: AbortSignal,
  onPage: (pages: CachedPage[]) => void,
): Promise<CachedPage[]> {
  const pages: CachedPage[] = [];
  let cursor: string | null = null;
  do {
    const old = before.find((p) => p.cursor === cursor);
    const signal = AbortSignal.any([stopped, AbortSignal.timeout(timeout)]);
    const answer = await fetchPage(cursor, old?.etag ?? null, signal);
    const page: CachedPage =
      answer === null && old !== undefined ? old : { ...mustAnswer(answer), cursor, receivedAt: performance.now() };
    pages.push(page);
    onPage(pages);
    cursor = page.view.next || null;
  } while (cursor !== null && pages.length < maxPages);
  return pages;
}

function mustAnswer<T>(answer: T | null): T {
  if (answer === null) throw new ApiError(304, "an unchanged answer to a first question");
  return answer;
}

function reasonOf(err: unknown): string {
  if (err instanceof ApiError) return `the primary says: ${err.message}`;
  if (err instanceof DOMException && err.name === "TimeoutError") return "no answer within 5 s";
  if (err instanceof SyntaxError) return "the answer is not the expected JSON";
  return "the primary cannot be reached";
}
