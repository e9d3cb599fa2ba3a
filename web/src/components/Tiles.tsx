import type { Outcome, Status } from "../api";
import { count, exact, milliseconds, percent, rate } from "../format";
import { ERRORS, FROM_CACHE, sum } from "../outcomes";
import type { Fleet } from "../store/fleet";
import { Tile } from "./Tile";

/** A share of errors in the last minutes that is worth a second look. */
const manyErrors = 1;

export function Tiles({ fleet }: { fleet: Fleet }) {
  return (
    <section aria-label="Totals of the fleet" class="tiles">
      <QueriesTile fleet={fleet} />
      <ShareTile fleet={fleet} id="blocked" label="blocked" parts={["blocked"]} field="blocked_percent" />
      <ShareTile fleet={fleet} id="cached" label="cached" parts={FROM_CACHE} field="cached_percent" />
      <LatencyTile fleet={fleet} />
      <ShareTile fleet={fleet} id="errors" label="errors" parts={ERRORS} field="error_percent" warnFrom={manyErrors} />
      <InstancesTile fleet={fleet} />
    </section>
  );
}

function QueriesTile({ fleet }: { fleet: Fleet }) {
  const { totals, coverage } = fleet;
  // With no report to sum up the sum is unknown, not zero.
  const known = fleet.instances.some((i) => i.dns && (i.status === "ok" || i.status === "stale"));
  const total = known ? totals.response_distribution.total : null;
  const sub = (
    <>
      {rate(totals.recent?.queries_per_second)} q/s ·{" "}
      <span title={`${exact(totals.lifetime?.total)} queries since the first instance was seen`}>
        lifetime {count(totals.lifetime?.total)}
      </span>
    </>
  );
  return (
    <Tile id="queries" label="queries, since start" value={total} hint={exact(total)} sub={sub} coverage={coverage}>
      {count(total)}
    </Tile>
  );
}

interface ShareProps {
  fleet: Fleet;
  id: string;
  label: string;
  parts: readonly Outcome[];
  field: "blocked_percent" | "cached_percent" | "error_percent";
  /** A share of the last minutes from which the tile warns. */
  warnFrom?: number;
}

function ShareTile({ fleet, id, label, parts, field, warnFrom = Infinity }: ShareProps) {
  const { totals, coverage } = fleet;
  const { recent, response_distribution: all } = totals;
  const now = recent?.[field] ?? null;
  return (
    <Tile
      id={id}
      label={`${label}, since start`}
      value={totals[field]}
      hint={all.total > 0 ? `${exact(sum(all, parts))} of ${exact(all.total)} queries` : "No query yet"}
      sub={`last 5 min: ${percent(now)}`}
      warn={now !== null && now >= warnFrom}
      coverage={coverage}
    >
      {percent(totals[field])}
    </Tile>
  );
}

function LatencyTile({ fleet: { totals, coverage } }: { fleet: Fleet }) {
  const { recent } = totals;
  const p95 = recent?.p95_ms ?? null;
  return (
    <Tile
      id="p95"
      label="p95, last 5 min"
      value={p95}
      hint={p95 === null ? "No full minute yet" : `95 % of answers were ready within ${p95.toFixed(3)} ms`}
      sub={p95 === null ? "after one full minute" : `p50 ${milliseconds(recent?.p50_ms)} · p99 ${milliseconds(recent?.p99_ms)}`}
      coverage={coverage}
    >
      {milliseconds(p95)}
    </Tile>
  );
}

function InstancesTile({ fleet: { coverage, instances } }: { fleet: Fleet }) {
  return (
    <Tile
      id="instances"
      label="instances reporting"
      value={coverage.reporting}
      hint={`${coverage.reporting} of the ${coverage.total} instances that answer DNS report on time`}
      sub={statusList(instances.map((i) => i.status))}
    >
      {coverage.reporting}
      <small> of {coverage.total}</small>
    </Tile>
  );
}

const ORDER: readonly Status[] = ["ok", "stale", "offline", "revoked", "never"];

function statusList(statuses: readonly Status[]): string {
  return ORDER.map((status) => ({ status, n: statuses.filter((s) => s === status).length }))
    .filter(({ n }) => n > 0)
    .map(({ status, n }) => `${n} ${status}`)
    .join(", ");
}
