import type { Coverage, Totals } from "../api";
import { count, duration, exact, percent } from "../format";
import { GROUPS, share, sum } from "../outcomes";
import { outcomeList } from "../columns";
import { CoverageBadge } from "./CoverageBadge";

/** What became of the queries of the last minutes, as one bar and a legend with the figures. */
export function OutcomeBar({ totals, coverage }: { totals: Totals; coverage: Coverage }) {
  const { recent } = totals;
  const d = recent?.response_distribution ?? null;
  const groups = GROUPS.map((g) => {
    const n = d === null ? null : sum(d, g.outcomes);
    return { ...g, n, percent: d === null || n === null ? null : share(n, d.total) };
  });
  return (
    <section class="card outcomes" aria-labelledby="outcomes-title">
      <h2 id="outcomes-title">
        Outcomes <span class="muted">last 5 min</span>
        <CoverageBadge coverage={coverage} />
        <span class="outcomes-total" title={d === null ? undefined : outcomeList(d)}>
          {recent === null ? whyNone(coverage) : `${exact(recent.response_distribution.total)} queries in ${duration(recent.seconds)}`}
        </span>
      </h2>
      <div class="bar" aria-hidden="true">
        {groups.map(
          (g) =>
            g.n !== null &&
            g.n > 0 && (
              <div
                key={g.id}
                class="bar-part"
                data-outcome={g.id}
                style={{ flexGrow: g.n }}
                title={`${g.label}: ${percent(g.percent)}`}
              />
            ),
        )}
      </div>
      <ul class="legend">
        {groups.map((g) => (
          <li
            key={g.id}
            class="legend-item"
            data-none={g.n === 0}
            title={g.n === null ? undefined : `${exact(g.n)} queries: ${g.outcomes.join(", ")}`}
          >
            <span class="swatch" data-outcome={g.id} aria-hidden="true" />
            <span class="legend-label">{g.label}</span>
            <span class="legend-percent">{percent(g.percent)}</span>
            <span class="legend-count">{count(g.n)}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function whyNone({ reporting }: Coverage): string {
  return reporting === 0 ? "No report covers them." : "The first figures come after one full minute.";
}
