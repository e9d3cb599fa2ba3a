import { useEffect, useState } from "preact/hooks";

/** A value that components can watch. */
export interface Store<T> {
  get(): T;
  set(value: T): void;
  /** Calls listener after each change until the returned function is called. */
  subscribe(listener: () => void): () => void;
}

export function createStore<T>(initial: T): Store<T> {
  let value = initial;
  const listeners = new Set<() => void>();
  return {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const listener of [...listeners]) listener();
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** What select picks from the store; the component renders again only when that changes. */
export function useStore<T, S>(store: Store<T>, select: (value: T) => S): S {
  const selected = select(store.get());
  const [, rerender] = useState<unknown>(null);
  useEffect(() => {
    let last: S = selected;
    const check = () => {
      const next = select(store.get());
      if (Object.is(next, last)) return;
      last = next;
      rerender({});
    };
    check(); // the store may have changed between the render and this effect
    return store.subscribe(check);
  });
  return selected;
}
