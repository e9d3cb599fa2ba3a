import type { ComponentChildren } from "preact";
import type { Coverage } from "../api";
import { CoverageBadge } from "./CoverageBadge";

export interface TileProps {
  id: string;
  label: string;
  /** The figure as it is read, and behind it the exact value; null is unknown. */
  children: ComponentChildren;
  value: number | null;
  hint?: string;
  sub: ComponentChildren;
  warn?: boolean;
  coverage?: Coverage;
}

export function Tile({ id, label, children, value, hint, sub, warn = false, coverage }: TileProps) {
  return (
    <div class="tile" data-tile={id} data-warn={warn}>
      <p class="tile-label">
        {label}
        {coverage && <CoverageBadge coverage={coverage} />}
      </p>
      <p class="tile-figure" title={hint}>
        {value === null ? children : <data value={String(value)}>{children}</data>}
      </p>
      <p class="tile-sub">
        {warn && <span aria-hidden="true">▲ </span>}
        {sub}
      </p>
    </div>
  );
}
