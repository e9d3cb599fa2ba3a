import { clockSeconds, utc } from "../format";
import { useClock } from "../store/clock";
import { figuresFrom, isLost } from "../store/fleet";
import { fleetStore } from "../store/poll";
import { useStore } from "../store/store";

/** Says that figures may be old, for as long as they are. It is always there, so that screen readers hear it change. */
export function Connection() {
  const state = useStore(fleetStore, (s) => s);
  const lost = useClock((now) => isLost(state, now));
  const from = figuresFrom(state);
  return (
    <div role="status" class="connection" data-lost={lost}>
      {lost && (
        <p>
          <span aria-hidden="true">○</span> <strong>Connection lost, retrying…</strong>{" "}
          {from === null ? "No figures have arrived yet" : <span title={utc(from)}>Figures are from {clockSeconds(from)}</span>}
          {state.reason === "" ? "." : ` (${state.reason}).`}
        </p>
      )}
    </div>
  );
}
