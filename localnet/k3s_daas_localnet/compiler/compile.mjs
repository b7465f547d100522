// Compiles one Move package with Sui's own compiler (WASM), without network and without touching files.
//
// stdin:  {"files": {path: text}, "framework": {"move-stdlib": {path: text}, "sui-framework": {…}}, "modes": []}
// stdout: {"modules": [base64], "dependencies": ["0x…"], "digest": [bytes], "warnings": text}
//         or {"error": text, "category": text}
import { readFileSync } from 'node:fs';
import { dumpMovePackage, initMovePackageBuilder, MovePackageFetcher } from '@zktx.io/sui-move-builder';

const { files, framework, modes } = JSON.parse(readFileSync(0, 'utf8'));

class Offline extends MovePackageFetcher {
  async fetch(url, revision, folder) {
    const name = folder?.split('/').at(-1);
    if (name in framework) return { ...framework[name] };
    throw new Error(`this compiler works offline and knows only the Sui framework, not ${url} ${folder ?? ''}`);
  }
  async fetchFile() {
    return null;
  }
  async fetchLocal(path) {
    throw new Error(`this compiler takes one package without local dependencies, found ${path}`);
  }
}

await initMovePackageBuilder();
const result = await dumpMovePackage({
  files,
  modes,
  network: 'testnet',
  fetcher: new Offline(),
  ansiColor: false,
  silenceWarnings: false,
});
const { error, category, modules, dependencies, digest, warnings } = result;
process.stdout.write(
  JSON.stringify(
    error === undefined
      ? { modules, dependencies, digest: Array.from(digest), warnings: warnings ? String(warnings) : '' }
      : { error: String(error), category },
  ),
);
