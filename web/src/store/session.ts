import { fetchSession, type Session } from "../api";
import { createStore, type Store } from "./store";

/** Who is signed in; null while that is not known. */
export const sessionStore: Store<Session | null> = createStore<Session | null>(null);

/** Asks once. A failure only hides "Sign out": the poll tells that the primary is away. */
export async function loadSession(): Promise<void> {
  try {
    sessionStore.set(await fetchSession(AbortSignal.timeout(5000)));
  } catch {
    sessionStore.set(null);
  }
}
