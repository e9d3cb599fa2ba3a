import { useState } from "preact/hooks";
import { signOut } from "../api";
import { sessionStore } from "../store/session";
import { useStore } from "../store/store";
import { nextTheme, setTheme, themeStore } from "../theme";

export function TopBar({ page }: { page: string }) {
  return (
    <header class="topbar">
      <div class="topbar-inner">
        <h1>
          <span class="brand">dnsfleet</span> <span aria-hidden="true">▸</span> {page}
        </h1>
        <SessionNote />
        <ThemeSwitch />
        <SignOut />
      </div>
    </header>
  );
}

function ThemeSwitch() {
  const theme = useStore(themeStore, (t) => t);
  const next = nextTheme(theme);
  return (
    <button type="button" class="quiet" title={`Theme: ${theme}. Press for ${next}.`} onClick={() => setTheme(next)}>
      Theme: {theme}
    </button>
  );
}

function SessionNote() {
  const open = useStore(sessionStore, (s) => s?.open === true);
  return <p class="session-note">{open ? "open on loopback, no password" : ""}</p>;
}

function SignOut() {
  const shown = useStore(sessionStore, (s) => s !== null && s.authenticated && !s.open);
  const [error, setError] = useState("");
  if (!shown) return null;
  const leave = async () => {
    try {
      await signOut();
      location.assign("/login");
    } catch {
      setError("Not signed out: the primary did not answer. Try again.");
    }
  };
  return (
    <>
      {error !== "" && <span role="alert">{error}</span>}
      <button type="button" class="quiet" onClick={() => void leave()}>
        Sign out
      </button>
    </>
  );
}
