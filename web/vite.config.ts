import { defineConfig } from "vitest/config";

// The output is a function of the source and of package-lock.json alone: CI builds again and compares with web/dist.
export default defineConfig({
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "dist",
    emptyOutDir: true,
    assetsInlineLimit: 0, // a data: URL would break the Content-Security-Policy
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    sourcemap: false,
  },
  server: { proxy: { "/api": process.env["DNSFLEET_URL"] ?? "http://127.0.0.1:8053" } },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
