import type { Fleet } from "../store/fleet";
import { AddReplica } from "./AddReplica";
import { HealthLine } from "./HealthLine";
import { InstanceTable } from "./InstanceTable";
import { OutcomeBar } from "./OutcomeBar";
import { Tiles } from "./Tiles";

export function FleetPage({ fleet }: { fleet: Fleet }) {
  return (
    <>
      <HealthLine fleet={fleet} />
      <Tiles fleet={fleet} />
      <OutcomeBar totals={fleet.totals} coverage={fleet.coverage} />
      <InstanceTable instances={fleet.instances} />
      {fleet.replicas === 0 && <AddReplica />}
    </>
  );
}
