import { expect, test } from "vitest";
import { primaryURL } from "./AddReplica";

test.each([
  ["http:", "127.0.0.1", "8053", "http://ADDRESS-OF-THIS-BOX:8053"],
  ["http:", "localhost", "8053", "http://ADDRESS-OF-THIS-BOX:8053"],
  ["http:", "[::1]", "8053", "http://ADDRESS-OF-THIS-BOX:8053"],
  ["https:", "dns.home.arpa", "", "https://dns.home.arpa"],
  ["http:", "192.168.1.2", "8053", "http://192.168.1.2:8053"],
])("%s//%s:%s is told to replicas as %s", (protocol, hostname, port, want) => {
  expect(primaryURL({ protocol, hostname, port })).toBe(want);
});
