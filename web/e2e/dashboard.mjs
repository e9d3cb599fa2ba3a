// Looks at the dashboard of a real primary with a real browser. Prints a line for each check and ends with 1 when one
// fails. From the environment:
//
//   DNSFLEET_URL       the primary; without it DNSFLEET_BIN is run as `dnsfleet demo`
//   DNSFLEET_BIN       the program, when there is no DNSFLEET_URL
//   DNSFLEET_PASSWORD  signs in where the primary wants it
//   DNSFLEET_ROWS      how many instances the table must show; without it as many as the API lists
//   DNSFLEET_SCREENS   where to put screenshots; without it none are kept

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { accessibilityProblems, launchBrowser, overflow } from "../dev/browser.mjs";
import { startDemo } from "./demo.mjs";

const screens = process.env.DNSFLEET_SCREENS;
const demo = process.env.DNSFLEET_URL ? null : await startDemo(process.env.DNSFLEET_BIN);
const base = new URL(process.env.DNSFLEET_URL || demo.url).origin;
let failed = 0;

/** Runs one check; a string or a list of strings that it returns is what it saw, a thrown error why it failed. */
async function check(name, run) {
  try {
    const saw = await run();
    console.log(`ok    ${name}${saw ? `: ${saw}` : ""}`);
  } catch (err) {
    failed++;
    console.log(`FAIL  ${name}: ${err.message.split("\n")[0]}`);
  }
}

function expect(condition, sentence) {
  if (!condition) throw new Error(sentence);
}

/** Waits until probe returns something truthy, and returns that. */
async function eventually(what, seconds, probe) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > end) throw new Error(`${what} did not happen within ${seconds} s`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

const figure = (page, tile) => page.locator(`[data-tile="${tile}"] .tile-figure data`).getAttribute("value", { timeout: 1000 }).catch(() => null);
const column = (page, id) =>
  page.locator(`tbody [data-column="${id}"]`).evaluateAll((cells) => cells.map((c) => c.querySelector("data")?.value ?? c.querySelector(".name")?.textContent ?? c.textContent));
const header = (page, id) => page.locator(`thead th[data-column="${id}"]`);
const sorted = (page, id, want) =>
  eventually(`aria-sort ${want} of ${id}`, 5, async () => (await header(page, id).getAttribute("aria-sort")) === want);
const shot = async (page, name) => screens && (await page.screenshot({ path: join(screens, `${name}.png`) }));

function descending(values) {
  const known = values.filter((v) => v !== "—").map(Number);
  return values.slice(0, known.length).every((v) => v !== "—") && known.every((v, i) => i === 0 || known[i - 1] >= v);
}

async function signIn(page) {
  if (!new URL(page.url()).pathname.startsWith("/login")) return;
  expect(process.env.DNSFLEET_PASSWORD, "the primary wants a sign-in: set DNSFLEET_PASSWORD");
  await page.fill('input[type="password"]', process.env.DNSFLEET_PASSWORD);
  await page.click('button[type="submit"]');
  await page.waitForURL((url) => !url.pathname.startsWith("/login"));
}

async function run(browser) {
  const context = await browser.newContext({ colorScheme: "light", viewport: { width: 1440, height: 900 } });
  await context.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener("securitypolicyviolation", (e) => globalThis.violations.push(`${e.violatedDirective} ${e.blockedURI}`));
  });
  const page = await context.newPage();
  const problems = [];
  page.on("console", (m) => ["error", "warning"].includes(m.type()) && problems.push(m.text()));
  page.on("pageerror", (e) => problems.push(e.message));

  await page.goto(base);
  await signIn(page);
  await page.waitForSelector("tbody tr");

  await check("the first view is at most 150 KiB", async () => {
    const bytes = await page.evaluate(() =>
      [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
        .filter((e) => !e.name.includes("/api/")).reduce((sum, e) => sum + e.encodedBodySize, 0));
    expect(bytes > 0 && bytes <= 150 * 1024, `${bytes} bytes`);
    return `${(bytes / 1024).toFixed(1)} KiB`;
  });

  await check("every instance has a row", async () => {
    const view = await (await context.request.get(`${base}/api/instances/stats`)).json();
    const want = Number(process.env.DNSFLEET_ROWS || view.primaries.length + view.replicas.length);
    await eventually(`${want} rows`, 10, async () => (await page.locator("tbody tr").count()) === want);
    return `${want} rows`;
  });

  await check("one sentence tells how DNS is", async () => {
    const sentence = (await page.locator(".health-line").innerText()).replaceAll("\n", " ");
    expect(/\d+ of \d+ reporting/.test(sentence), sentence);
    return sentence;
  });

  await check("figures change by themselves", async () => {
    await page.evaluate(() => (globalThis.sameDocument = true));
    const before = await eventually("a count of queries", 5, () => figure(page, "queries"));
    const after = await eventually(`more queries than ${before}`, 10, async () => {
      const now = await figure(page, "queries");
      return now !== before && now;
    });
    expect(await page.evaluate(() => globalThis.sameDocument), "the page was loaded again");
    return `${before} → ${after} queries`;
  });

  await check("a click on a header sorts, a second one turns the order round", async () => {
    await header(page, "queries").locator("button").click();
    await sorted(page, "queries", "descending");
    const down = await column(page, "queries");
    expect(descending(down), `not in descending order: ${down}`);
    expect(new URL(page.url()).search === "?sort=queries&dir=desc", `the address is ${page.url()}`);
    await header(page, "queries").locator("button").click();
    await sorted(page, "queries", "ascending");
  });

  await check("a reload keeps the order", async () => {
    await page.reload();
    await page.waitForSelector("tbody tr");
    await sorted(page, "queries", "ascending");
  });

  await check("the keyboard alone sorts, and the focus is visible", async () => {
    await header(page, "policy").locator("button").focus();
    await page.keyboard.press("Shift+Tab");
    await page.keyboard.press("Tab");
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    expect(outline === "solid", `the outline is ${outline}`);
    await page.keyboard.press("Enter");
    await sorted(page, "policy", "descending");
    await header(page, "name").locator("button").press("Space");
    await sorted(page, "name", "ascending");
  });

  await check("the filter leaves the instances that fit", async () => {
    const all = await column(page, "name");
    await page.fill('input[type="search"]', all[0]);
    await eventually("a shorter table", 5, async () => (await column(page, "name")).every((n) => n.includes(all[0])));
    await page.fill('input[type="search"]', "no instance has this name");
    await page.getByRole("button", { name: "Show all" }).click();
    await eventually("all rows again", 5, async () => (await page.locator("tbody tr").count()) === all.length);
  });

  await check("the span changes shares and stays in the address", async () => {
    await page.getByRole("button", { name: "last 5 min" }).click();
    await eventually("span=recent in the address", 5, () => new URL(page.url()).searchParams.get("span") === "recent");
    await page.getByRole("button", { name: "since start" }).click();
  });

  await shot(page, "fleet-light");
  await check("no accessibility problem in light", () => noProblems(page));

  await check("the theme switch is kept", async () => {
    const theme = page.getByRole("button", { name: /^Theme/ });
    await theme.click();
    await theme.click();
    await page.reload();
    await page.waitForSelector("tbody tr");
    expect((await page.locator("html").getAttribute("data-theme")) === "dark", "dark was not kept");
  });
  await shot(page, "fleet-dark");
  await check("no accessibility problem in dark", () => noProblems(page));

  await check("a phone has one card per instance and never scrolls sideways", async () => {
    await page.setViewportSize({ width: 360, height: 800 });
    expect((await overflow(page)) === 0, "the page is wider than the phone");
    expect(!(await header(page, "name").isVisible()), "the header is still shown");
    expect(await page.getByLabel("Sort by").isVisible(), "the order cannot be chosen");
  });
  await shot(page, "fleet-phone");
  await check("no accessibility problem on a phone", () => noProblems(page));
  await page.setViewportSize({ width: 1440, height: 900 });

  await check("nothing on the console, nothing against the Content-Security-Policy", async () => {
    const all = [...problems, ...(await page.evaluate(() => globalThis.violations))];
    expect(all.length === 0, all.join("; "));
  });

  await check("a lost connection shows within 5 s and heals by itself", async () => {
    await context.setOffline(true);
    const banner = page.locator('.connection[data-lost="true"]');
    await eventually("a banner", 6, () => banner.isVisible());
    const said = await banner.innerText();
    expect(/Connection lost, retrying…/.test(said) && /\d\d:\d\d:\d\d/.test(said), said);
    await context.setOffline(false);
    await eventually("healing", 6, async () => !(await banner.isVisible()));
    return said;
  });

  if (demo) {
    await check("a replica that dies is named", async () => {
      const names = await column(page, "name");
      const said = await eventually("a missing instance", 60, async () => {
        const missing = page.locator(".health-line .missing");
        return (await missing.count()) > 0 && (await missing.first().innerText());
      });
      expect(names.some((n) => said.includes(n)), said);
      expect((await page.locator(".badge").count()) > 0, "no figure has a coverage badge");
      await shot(page, "fleet-missing");
      return said;
    });
  }
}

async function noProblems(page) {
  const problems = await accessibilityProblems(page);
  expect(problems.length === 0, problems.join("; "));
}

let browser;
try {
  if (screens) await mkdir(screens, { recursive: true });
  browser = await launchBrowser();
  await run(browser);
} catch (err) {
  failed++;
  console.log(`FAIL  ${err.message}`);
} finally {
  await browser?.close();
  await demo?.stop();
}
console.log(failed === 0 ? "the dashboard is as it should be" : `${failed} checks failed`);
process.exitCode = failed === 0 ? 0 : 1;
