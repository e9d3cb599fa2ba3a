// Looks at the dashboard in every scenario of the mock: screenshots in light, dark and phone; no accessibility problem,
// no sideways scrolling, nothing on the console, no name run as code.
//
//   node dev/screens.mjs [DIR [PART-OF-NAME]]

import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { accessibilityProblems, launchBrowser, overflow } from "./browser.mjs";
import { startMock } from "./mock.mjs";

const dir = process.argv[2] ?? join(tmpdir(), "dnsfleet-screens");
const only = process.argv[3] ?? "";
const shots = [
  ["mixed", "light", 1440, 900],
  ["mixed", "dark", 1440, 900],
  ["mixed", "light", 360, 800],
  ["mixed", "dark", 390, 844],
  ["mixed", "light", 900, 800],
  ["mixed", "dark", 2560, 1440],
  ["mixed", "light", 3840, 2160],
  ["fine", "light", 1440, 900],
  ["fine", "dark", 390, 844],
  ["failing", "light", 1440, 900],
  ["down", "dark", 1440, 900],
  ["empty", "light", 1440, 900],
  ["empty", "light", 360, 800],
  ["big", "dark", 1440, 900],
];

await mkdir(dir, { recursive: true });
const mock = await startMock();
const browser = await launchBrowser();
let failed = 0;
try {
  for (const [scenario, colorScheme, width, height] of shots) {
    const name = `${scenario}-${colorScheme}-${width}`;
    if (!name.includes(only)) continue;
    mock.scenario = scenario;
    const page = await browser.newPage({ colorScheme, viewport: { width, height } });
    const problems = [];
    page.on("console", (m) => problems.push(`console: ${m.text()}`));
    page.on("pageerror", (e) => problems.push(`error: ${e.message}`));
    await page.goto(mock.url);
    await page.waitForSelector("tbody tr");
    await page.screenshot({ path: join(dir, `${name}.png`), fullPage: width < 640 });
    // axe looks at every cell: for a thousand rows that takes minutes and tells nothing new.
    if (scenario !== "big") problems.push(...(await accessibilityProblems(page)));
    const wide = await overflow(page);
    if (wide > 0) problems.push(`the page is ${wide} px too wide`);
    if ((await page.title()) === "owned") problems.push("a name was run as code");
    console.log(problems.length === 0 ? "ok  " : "FAIL", name, problems.join("\n     "));
    failed += problems.length;
    await page.close();
  }
} finally {
  await browser.close();
  mock.stop();
}
process.exitCode = failed === 0 ? 0 : 1;
