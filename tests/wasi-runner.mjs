// Runs one wasm32-wasip1 test binary under Node's own WASI; cargo calls it (.cargo/config.toml).
// Nothing of the machine is preopened: a test that wants a file fails here.
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

const [file, ...args] = process.argv.slice(2);
// A panic aborts on this target, and what libtest has captured until then would be lost.
const env = { ...process.env, RUST_TEST_NOCAPTURE: "1" };
const wasi = new WASI({ version: "preview1", args: [file, ...args], env });
const module = await WebAssembly.compile(await readFile(file));
try {
  process.exitCode = wasi.start(await WebAssembly.instantiate(module, wasi.getImportObject()));
} catch (error) {
  // The panic's message is above; the trap only ends the run.
  if (!(error instanceof WebAssembly.RuntimeError)) throw error;
  console.error(`${error.message}: the test named last failed; run it natively for more`);
  process.exitCode = 101;
}
