import { fleetStore } from "../store/poll";
import { useStore } from "../store/store";
import { Connection } from "./Connection";
import { FleetPage } from "./FleetPage";
import { TopBar } from "./TopBar";

export function App() {
  const fleet = useStore(fleetStore, (s) => s.fleet);
  return (
    <>
      <a class="skip" href="#main">
        Skip to the figures
      </a>
      <TopBar page="Fleet" />
      <Connection />
      <main id="main" tabIndex={-1}>
        {fleet === null ? <p class="loading">Reading the fleet…</p> : <FleetPage fleet={fleet} />}
      </main>
    </>
  );
}
