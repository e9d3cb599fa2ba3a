import { Component } from "preact";
import { cellClass, COLUMNS, maxSkew, type Column } from "../columns";
import { utc } from "../format";
import { GLYPH } from "../health";
import type { Span } from "../route";
import type { Instance } from "../store/fleet";
import { Age } from "./Age";

interface Props {
  row: Instance;
  span: Span;
  showID: boolean; // another instance has the same name
}

/** One instance. It is drawn again only when it changed: ages tick inside their own component. */
export class InstanceRow extends Component<Props> {
  override shouldComponentUpdate(next: Props): boolean {
    return next.row !== this.props.row || next.span !== this.props.span || next.showID !== this.props.showID;
  }

  override render({ row, span, showID }: Props) {
    return (
      <tr role="row" data-status={row.status} data-key={row.key}>
        {COLUMNS.map((c) =>
          c.id === "name" ? (
            <NameCell key={c.id} row={row} showID={showID} />
          ) : c.id === "status" ? (
            <StatusCell key={c.id} row={row} />
          ) : (
            <FigureCell key={c.id} column={c} row={row} span={span} />
          ),
        )}
      </tr>
    );
  }
}

function NameCell({ row, showID }: { row: Instance; showID: boolean }) {
  const id = row.instance_id ?? (row.token_id === null ? "" : `token ${row.token_id}`);
  return (
    <th role="rowheader" scope="row" class="name-cell" data-column="name" title={id === "" ? row.name : `${row.name} (${id})`}>
      <bdi class="name">{row.name}</bdi>
      {showID && id !== "" && <span class="row-id">{id}</span>}
    </th>
  );
}

function StatusCell({ row }: { row: Instance }) {
  return (
    <td role="cell" class="status-cell" data-column="status" data-label="status">
      <span title={row.last_updated === null ? undefined : `last report ${utc(row.last_updated)}`}>
        <span class="status" data-status={row.status}>
          <span class="glyph" aria-hidden="true">
            {GLYPH[row.status]}
          </span>{" "}
          {row.status}
        </span>{" "}
        {row.seenAt !== null && <Age seenAt={row.seenAt} short />}
      </span>
    </td>
  );
}

function FigureCell({ column, row, span }: { column: Column; row: Instance; span: Span }) {
  const text = column.text(row, span);
  const key = column.key(row, span);
  const mark = markOf(column, row);
  return (
    <td
      role="cell"
      class={cellClass(column)}
      data-column={column.id}
      data-label={column.label}
      data-mark={mark !== ""}
      title={column.hint?.(row, span) || undefined}
    >
      {mark !== "" && (
        <>
          <span aria-hidden="true">⚠ </span>
          <span class="sr-only">{mark}: </span>
        </>
      )}
      {typeof key === "number" ? <data value={String(key)}>{text}</data> : text}
    </td>
  );
}

function markOf(column: Column, row: Instance): string {
  if (column.id === "policy" && row.policy_drift === true) return "differs from the fleet's policy";
  if (column.id === "skew" && Math.abs(row.clock_skew_seconds ?? 0) > maxSkew) return "clock is off by more than 5 s";
  return "";
}
