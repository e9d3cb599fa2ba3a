import { COLUMNS, type Column } from "../columns";
import { navigate, type Route, type Span } from "../route";
import { firstDirection } from "../sort";

const SPANS: readonly { span: Span; label: string; title: string }[] = [
  { span: "start", label: "since start", title: "Counts and shares since each instance started" },
  { span: "recent", label: "last 5 min", title: "Counts and shares of the last five full minutes" },
];

/** What stands above the table: its name, which span it shows, the filter, and on phones the order. */
export function TableTools({ column, route, shown, total }: { column: Column; route: Route; shown: number; total: number }) {
  return (
    <div class="tools">
      <h2 id="instances-title">
        Instances{" "}
        <span class="muted" aria-live="polite">
          {shown === total ? total : `${shown} of ${total}`}
        </span>
      </h2>
      <div class="segments" role="group" aria-label="Span of counts and shares">
        {SPANS.map((s) => (
          <button key={s.span} type="button" title={s.title} aria-pressed={route.span === s.span} onClick={() => navigate({ span: s.span })}>
            {s.label}
          </button>
        ))}
      </div>
      <SortSelect column={column} route={route} />
      <input
        type="search"
        placeholder="Filter by name"
        aria-label="Filter by name or id"
        autocomplete="off"
        spellcheck={false}
        maxLength={128}
        value={route.filter}
        onInput={(e) => navigate({ filter: e.currentTarget.value })}
      />
    </div>
  );
}

function SortSelect({ column, route }: { column: Column; route: Route }) {
  const choose = (id: string) => {
    const chosen = COLUMNS.find((c) => c.id === id);
    if (chosen !== undefined) navigate({ sort: chosen.id, dir: firstDirection(chosen) });
  };
  return (
    <div class="phone-sort">
      <select aria-label="Sort by" value={column.id} onChange={(e) => choose(e.currentTarget.value)}>
        {COLUMNS.filter((c) => c.wide !== true).map((c) => (
          <option key={c.id} value={c.id}>
            {c.label}
          </option>
        ))}
      </select>
      <button type="button" onClick={() => navigate({ sort: column.id, dir: route.dir === "asc" ? "desc" : "asc" })}>
        <span aria-hidden="true">{route.dir === "asc" ? "▲" : "▼"}</span>
        <span class="sr-only">{route.dir === "asc" ? "ascending, press for descending" : "descending, press for ascending"}</span>
      </button>
    </div>
  );
}
