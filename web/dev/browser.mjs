// A real browser and axe-core in it, for what looks at the dashboard.

import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { delimiter, join } from "node:path";
import axe from "axe-core";
import { chromium } from "playwright-core";

const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/** Starts the system's Chromium or Chrome, or the one that CHROMIUM names. */
export async function launchBrowser() {
  // Loopback only needs no sandbox against the web, and containers often cannot give one.
  const args = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update"];
  return chromium.launch({ executablePath: process.env.CHROMIUM || (await findBrowser()), args });
}

async function findBrowser() {
  for (const dir of (process.env.PATH ?? "").split(delimiter)) {
    for (const name of names) {
      const path = join(dir, name);
      if (await access(path, constants.X_OK).then(() => true, () => false)) return path;
    }
  }
  throw new Error(`no browser found: install one of ${names.join(", ")}, or name it in CHROMIUM`);
}

/** What axe-core finds wrong with the page, one line each. */
export async function accessibilityProblems(page) {
  await page.evaluate(axe.source); // by the debugger: the page's Content-Security-Policy stays in force for the page
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  return violations.map((v) => {
    const where = v.nodes.slice(0, 3).map((n) => `${n.target.join(" ")} (${n.failureSummary.replaceAll("\n", " ")})`);
    return `axe ${v.id}: ${where.join(" | ")}`;
  });
}

/** How many pixels the page is wider than its window; 0 where nothing makes it scroll sideways. */
export function overflow(page) {
  return page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}
