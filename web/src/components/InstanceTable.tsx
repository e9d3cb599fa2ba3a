import { useMemo } from "preact/hooks";
import { cellClass, COLUMNS, columnOf, type Column } from "../columns";
import { navigate, routeStore, type Direction } from "../route";
import { DEFAULT_COLUMN, filterInstances, firstDirection, sortInstances } from "../sort";
import type { Instance } from "../store/fleet";
import { useStore } from "../store/store";
import { InstanceRow } from "./InstanceRow";
import { TableTools } from "./TableTools";

export function InstanceTable({ instances }: { instances: Instance[] }) {
  const route = useStore(routeStore, (r) => r);
  const column = columnOf(route.sort) ?? DEFAULT_COLUMN;
  const rows = useMemo(
    () => sortInstances(filterInstances(instances, route.filter), column, route.dir, route.span),
    [instances, route, column],
  );
  const namesakes = useMemo(() => repeatedNames(instances), [instances]);
  return (
    <section class="card instances" aria-labelledby="instances-title">
      <TableTools column={column} route={route} shown={rows.length} total={instances.length} />
      <div class="table-scroll" role="region" aria-label="Instance table" tabIndex={0}>
        <table role="table" aria-labelledby="instances-title">
          <thead role="rowgroup">
            <tr role="row">
              {COLUMNS.map((c) => (
                <HeaderCell key={c.id} column={c} dir={c === column ? route.dir : null} />
              ))}
            </tr>
          </thead>
          <tbody role="rowgroup">
            {rows.map((row) => (
              <InstanceRow key={row.key} row={row} span={route.span} showID={namesakes.has(row.name)} />
            ))}
          </tbody>
        </table>
      </div>
      {rows.length === 0 && instances.length > 0 && (
        <p class="none">
          No instance's name or id contains “<bdi>{route.filter}</bdi>”.{" "}
          <button type="button" onClick={() => navigate({ filter: "" })}>
            Show all
          </button>
        </p>
      )}
    </section>
  );
}

function HeaderCell({ column, dir }: { column: Column; dir: Direction | null }) {
  const next = dir === null ? firstDirection(column) : dir === "asc" ? "desc" : "asc";
  return (
    <th
      role="columnheader"
      scope="col"
      class={cellClass(column)}
      aria-sort={dir === null ? "none" : dir === "asc" ? "ascending" : "descending"}
      data-column={column.id}
    >
      <button type="button" title={column.title} onClick={() => navigate({ sort: column.id, dir: next })}>
        {column.label}
        <span class="arrow" aria-hidden="true">
          {dir === "desc" ? "▼" : "▲"}
        </span>
      </button>
    </th>
  );
}

function repeatedNames(instances: readonly Instance[]): Set<string> {
  const seen = new Set<string>();
  const twice = new Set<string>();
  for (const { name } of instances) (seen.has(name) ? twice : seen).add(name);
  return twice;
}
