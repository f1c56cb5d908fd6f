// Tests run in a page without a browser; where a view needs a canvas, tests/fake.ts has one.
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { environment: "happy-dom", include: ["tests/*.test.{ts,tsx}"], restoreMocks: true },
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
});
