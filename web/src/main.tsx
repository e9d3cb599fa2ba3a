import { render } from "preact";
import "./styles/base.css";
import "./styles/page.css";
import "./styles/table.css";
import { App } from "./components/App";
import { startRouting } from "./route";
import { startClock } from "./store/clock";
import { startPolling } from "./store/poll";
import { loadSession } from "./store/session";
import { restoreTheme } from "./theme";

restoreTheme();
startRouting();
startClock();
void loadSession();
startPolling(() => location.assign(`/login?${new URLSearchParams({ next: location.pathname + location.search })}`));

const root = document.getElementById("app");
if (root !== null) render(<App />, root);
