import { createStore, type Store } from "./store/store";

export const THEMES = ["auto", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

const key = "dnsfleet.theme";

export const themeStore: Store<Theme> = createStore<Theme>("auto");

/** Applies the theme that was chosen in this browser before. */
export function restoreTheme(): void {
  apply(parseTheme(read()));
}

export function setTheme(theme: Theme): void {
  try {
    localStorage.setItem(key, theme);
  } catch {
    // Storage is switched off: the choice lasts until the page is closed.
  }
  apply(theme);
}

export function nextTheme(theme: Theme): Theme {
  return THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "auto";
}

export function parseTheme(text: string | null): Theme {
  return THEMES.find((t) => t === text) ?? "auto";
}

function apply(theme: Theme): void {
  if (theme === "auto") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
  themeStore.set(theme);
}

function read(): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}
