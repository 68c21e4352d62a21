// A rhetor of its own for each journey: an own store, a free port, stopped at the end.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

const BIN = process.env.RHETOR_BIN ?? 'rhetor';

/** Seconds until a server must listen. */
const STARTING = 60;

/** Runs the program; what it says is kept for the case that it fails. */
export function run(home, ...parts) {
  const child = spawn(BIN, parts, { env: { ...process.env, RHETOR_HOME: home }, stdio: ['ignore', 'pipe', 'pipe'] });
  const said = [];
  const lines = createInterface({ input: child.stderr });
  lines.on('line', (line) => said.push(line));
  child.stdout.resume();
  return { child, said, lines };
}

/** Ends a program. */
export async function end({ child }) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGINT');
  const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await once(child, 'exit');
  clearTimeout(timer);
}

/** A server that listens: its address, and how to stop it. */
export async function serve(home, ...flags) {
  const server = run(home, 'serve', '--listen', '127.0.0.1:0', ...flags);
  const base = await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no server after ${STARTING} s: ${server.said.join('\n')}`)), STARTING * 1000);
    server.lines.on('line', (line) => {
      const found = /http:\/\/[\d.]+:\d+/.exec(line);
      if (!found) return;
      clearTimeout(timer);
      resolve(found[0]);
    });
    server.child.on('exit', () => reject(new Error(`the server ended: ${server.said.join('\n')}`)));
  });
  return { base, stop: () => end(server) };
}
