import { useId } from "preact/hooks";
import type { Coverage } from "../api";
import { MissingText } from "./HealthLine";

const mostNamed = 8;

/** "4/5" beside a figure that does not cover the whole fleet; hover or focus names who is missing. */
export function CoverageBadge({ coverage }: { coverage: Coverage }) {
  const id = useId();
  const { missing, reporting, total } = coverage;
  if (missing.length === 0) return null;
  const onKeyDown = (e: KeyboardEvent) => {
    if (e.key === "Escape") (e.currentTarget as HTMLElement).blur();
  };
  return (
    <span class="badge-box">
      <button type="button" class="badge" aria-describedby={id} onKeyDown={onKeyDown}>
        {reporting}/{total}
        <span class="sr-only"> reporting</span>
      </button>
      <span role="tooltip" class="tooltip" id={id}>
        {missing.slice(0, mostNamed).map((m) => (
          <span key={m.instance_id} class="tooltip-line">
            <MissingText missing={m} />
            {m.status === "stale" ? ": counted as it last was" : ": not counted"}
          </span>
        ))}
        {missing.length > mostNamed && <span class="tooltip-line">and {missing.length - mostNamed} more</span>}
      </span>
    </span>
  );
}
