import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const patience = 30_000;

/** Runs `dnsfleet demo` on a free port, one replica of which dies after a while. Its url is the dashboard's. */
export async function startDemo(bin) {
  if (!bin) throw new Error("set DNSFLEET_URL to a primary, or DNSFLEET_BIN to the program");
  const child = spawn(bin, ["demo", "--web", "127.0.0.1:0", "--kill-one-after", "45s"], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((resolve) => child.once("close", resolve));
  const stop = async () => {
    child.kill("SIGINT");
    const timer = setTimeout(() => child.kill("SIGKILL"), 10_000);
    await ended;
    clearTimeout(timer);
  };
  const url = new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      const found = line.match(/https?:\/\/\S+/);
      if (found) resolve(found[0]);
    });
    child.once("error", reject);
    child.once("close", (code) => reject(new Error(`dnsfleet demo ended with ${code} before it named its dashboard`)));
    setTimeout(() => reject(new Error("dnsfleet demo named no dashboard within 30 s")), patience).unref();
  });
  try {
    return { url: await url, stop };
  } catch (err) {
    await stop();
    throw err;
  }
}
