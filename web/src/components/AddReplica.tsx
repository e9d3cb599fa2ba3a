import { sessionStore } from "../store/session";
import { useStore } from "../store/store";

/** What to do while the fleet is one box. */
export function AddReplica() {
  const loopbackOnly = useStore(sessionStore, (s) => s?.open === true);
  return (
    <section class="card teach" aria-labelledby="teach-title">
      <h2 id="teach-title">No replica yet. Add one:</h2>
      <ol>
        {loopbackOnly && (
          <li>
            This primary listens on loopback only. Let other boxes reach it: start it with this set. It will then want a
            password.
            <pre>
              <code>DNSFLEET_WEB_LISTEN=:8053</code>
            </pre>
          </li>
        )}
        <li>
          Here, make a token for it. Its secret is shown once.
          <pre>
            <code>dnsfleet token create --name kitchen</code>
          </pre>
        </li>
        <li>
          On the other box, give it the address of this primary and the secret, and start it.
          <pre>
            <code>
              {`DNSFLEET_PRIMARY_URLS=${primaryURL(location)}\nDNSFLEET_SYNC_TOKEN=… # the secret\nDNSFLEET_INSTANCE_NAME=kitchen\n\ndnsfleet replica`}
            </code>
          </pre>
        </li>
      </ol>
      <p class="muted">
        It shows up here as soon as it has reported, also from behind NAT: replicas call the primary, never the other way
        round.
      </p>
    </section>
  );
}

/** Where another box finds this primary. The browser's own address helps only where it is no loopback. */
export function primaryURL({ protocol, hostname, port }: { protocol: string; hostname: string; port: string }): string {
  const local = hostname === "localhost" || hostname.endsWith(".localhost") || hostname === "[::1]" || /^127\./.test(hostname);
  const host = local ? "ADDRESS-OF-THIS-BOX" : hostname;
  return `${protocol}//${host}${port === "" ? "" : `:${port}`}`;
}
