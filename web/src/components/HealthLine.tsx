import type { Missing } from "../api";
import { clock, utc } from "../format";
import { GLYPH, healthOf } from "../health";
import type { Fleet } from "../store/fleet";
import { Age } from "./Age";

const mostNamed = 4;

export function HealthLine({ fleet }: { fleet: Fleet }) {
  const health = healthOf(fleet);
  const named = health.missing.slice(0, mostNamed);
  const more = health.missing.length - named.length;
  return (
    <section class="health" data-level={health.level} aria-label="Health">
      <p class="health-line">
        <span class="health-sentence">
          <span class="glyph" aria-hidden="true">
            {health.glyph}
          </span>{" "}
          {health.sentence !== "" && <strong>{health.sentence}</strong>} {health.reporting}
          {fleet.oldestSeenAt !== null && (
            <>
              , oldest <Age seenAt={fleet.oldestSeenAt} />
            </>
          )}
          {health.reporting !== "" && "."}
        </span>
        {named.map((m) => (
          <MissingOne key={m.instance_id} missing={m} />
        ))}
        {more > 0 && <span class="muted">and {more} more, see the table.</span>}
      </p>
      {health.notes.map((note) => (
        <p key={note.text} class="health-note" data-grave={note.grave}>
          {note.text}
        </p>
      ))}
      <p class="sr-only" role="status">
        {health.sentence} {health.reporting}
      </p>
    </section>
  );
}

function MissingOne({ missing }: { missing: Missing }) {
  return (
    <span class="missing" data-status={missing.status}>
      <span class="glyph" aria-hidden="true">
        {GLYPH[missing.status]}
      </span>{" "}
      <MissingText missing={missing} />
    </span>
  );
}

/** "r4 offline since 14:02". */
export function MissingText({ missing }: { missing: Missing }) {
  return (
    <>
      <bdi class="name">{missing.name}</bdi> {missing.status}
      {missing.last_updated !== null && (
        <span title={utc(missing.last_updated)}> since {clock(missing.last_updated, new Date())}</span>
      )}
    </>
  );
}
