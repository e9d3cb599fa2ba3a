// Looks at the dashboard in every scenario of the mock: screenshots in light, dark and phone, axe-core, overflow, and no
// message on the console.
//
//   node dev/screens.mjs [DIR]

import { mkdir } from "node:fs/promises";
import axe from "axe-core";
import { chromium } from "playwright-core";
import { startMock } from "./mock.mjs";

const dir = process.argv[2] ?? "/tmp/dnsfleet-screens";
const only = process.argv[3];
await mkdir(dir, { recursive: true });
const shots = [
  ["mixed", "light", 1440, 900], ["mixed", "dark", 1440, 900], ["mixed", "light", 360, 800], ["mixed", "dark", 390, 844],
  ["mixed", "light", 900, 800], ["mixed", "dark", 2560, 1440], ["mixed", "light", 3840, 2160], ["fine", "light", 1440, 900], ["fine", "dark", 390, 844],
  ["failing", "light", 1440, 900], ["down", "dark", 1440, 900], ["empty", "light", 1440, 900], ["empty", "light", 360, 800], ["big", "dark", 1440, 900],
];
async function violationsOf(page) {
  await page.evaluate(axe.source);
  return (await page.evaluate(() => globalThis.axe.run())).violations;
}

const mock = await startMock();
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-quic"] });
let bad = 0;
try {
  for (const [scenario, colorScheme, width, height] of shots) {
    const name = `${scenario}-${colorScheme}-${width}`;
    if (only !== undefined && !name.includes(only)) continue;
    mock.scenario = scenario;
    const page = await browser.newPage({ colorScheme, viewport: { width, height } });
    const problems = [];
    page.on("console", (m) => problems.push(`console: ${m.text()}`));
    page.on("pageerror", (e) => problems.push(`error: ${e.message}`));
    await page.goto(mock.url);
    await page.waitForSelector("tbody tr");
    await page.screenshot({ path: `${dir}/${name}.png`, fullPage: width < 640 });
    // axe looks at every cell: for a thousand rows that takes minutes and tells nothing new.
    const violations = scenario === "big" ? [] : await violationsOf(page);
    for (const v of violations) problems.push(`axe ${v.id}: ${v.nodes.map((n) => n.target.join(" ") + " " + n.failureSummary.replaceAll("\n", " ")).slice(0, 3).join(" | ")}`);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (wide > 0) problems.push(`the page is ${wide} px too wide`);
    if ((await page.title()) === "owned") problems.push("a name was run as a script");
    console.log(problems.length === 0 ? "ok  " : "FAIL", name, problems.join("\n     "));
    bad += problems.length;
    await page.close();
  }
} finally {
  await browser.close();
  mock.stop();
}
process.exitCode = bad === 0 ? 0 : 1;
