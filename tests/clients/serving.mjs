// A rhetor server of one's own, and a count of what passed.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** Starts `rhetor serve` on a free port; returns its address and how to stop it. */
export async function serve(...args) {
  const child = spawn(process.env.RHETOR_BIN, ['serve', '--listen', '127.0.0.1:0', ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const ended = new Promise((resolve) => child.on('exit', resolve));
  const url = await new Promise((resolve, reject) => {
    const lines = createInterface({ input: child.stderr });
    lines.on('line', (line) => {
      const found = /listens on (\S+)/.exec(line);
      if (found) resolve(found[1]);
      if (process.env.SERVER_LOG) console.error(line);
    });
    ended.then((code) => reject(new Error(`the server ended with ${code} before it listened`)));
  });
  const stop = async () => {
    child.kill('SIGINT');
    const late = setTimeout(() => child.kill('SIGKILL'), 20000);
    await ended;
    clearTimeout(late);
  };
  return { url, stop };
}

/** Runs `tests`, an object of functions, one after another; exits non-zero if any failed. */
export async function run(tests, server) {
  const wanted = process.argv.slice(2);
  let passed = 0;
  let failed = 0;
  for (const [name, test] of Object.entries(tests)) {
    if (wanted.length && !wanted.includes(name)) continue;
    try {
      await test();
      passed += 1;
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED ${name}\n${error.stack}`);
    }
  }
  await server.stop();
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}
