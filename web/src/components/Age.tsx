import { ago, duration, utc } from "../format";
import { useClock } from "../store/clock";
import { ageSeconds } from "../store/fleet";

/** How long ago something was seen, counting on by itself; at is the same instant for the title. */
export function Age({ seenAt, at, short }: { seenAt: number | null; at?: string | null; short?: boolean }) {
  const text = useClock((now) => {
    const age = ageSeconds(seenAt, now);
    return short === true ? duration(age) : ago(age);
  });
  return <span title={at == null ? undefined : utc(at)}>{text}</span>;
}
