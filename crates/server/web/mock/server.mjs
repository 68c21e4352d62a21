// A server with the shapes of the real one and no model: for working on the page. `npm run mock`, then `npx vite`.
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const port = Number(process.env.PORT ?? 11500);
const dist = fileURLToPath(new URL('../dist', import.meta.url));
const KINDS = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; " +
  "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const ANSWER = `A **rainbow** is sunlight, sorted. Each drop of rain works like a tiny prism:

1. Light *bends* as it enters the drop.
2. It reflects once at the back.
3. It bends again on its way out, red at about $42^\\circ$ and violet at about $40^\\circ$.

Snell's law says by how much:

$$
n_1 \\sin\\theta_1 = n_2 \\sin\\theta_2, \\qquad \\theta_2 = \\arcsin\\left(\\frac{n_1}{n_2}\\sin\\theta_1\\right)
$$

| colour | wavelength | angle |
|:-------|-----------:|------:|
| red    | 700 nm     | 42.4° |
| violet | 400 nm     | 40.7° |

\`\`\`python
import math

def angle(n: float, incoming: float) -> float:
    """Where the ray goes inside of the drop, in radians."""
    return math.asin(math.sin(incoming) / n)  # Snell

print(f"{math.degrees(angle(1.333, 1.04)):.1f}")
\`\`\`

> So everyone sees a rainbow of their own. More at https://example.org/rainbow.
`;

let installed = ['smollm2-135m-instruct', 'qwen2-vl-2b', 'all-minilm-l6-v2'];
const show = (name) => ({
  license: 'Apache-2.0',
  template: '{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}',
  capabilities: name.includes('minilm') ? ['embedding'] : name.includes('vl') ? ['completion', 'vision', 'thinking'] : ['completion', 'insert'],
  details: { family: 'llama', format: 'gguf', parameter_size: '135M', quantization_level: 'Q4_K_M' },
  model_info: { 'general.architecture': 'llama', 'llama.context_length': 2048, 'llama.embedding_length': 576 },
});
const tags = () => ({
  models: installed.map((name, i) => ({
    name: `${name}:latest`, size: 105_000_000 * (i + 1), modified_at: '2026-01-02T03:04:05Z', digest: 'ab', details: show(name).details,
  })),
});
const catalog = {
  models: ['smollm2-135m-instruct', 'all-minilm-l6-v2', 'builtin', 'gemma-3-270m'].map((name, i) => ({
    name, summary: 'a small model for a summary of one sentence', licence: i === 3 ? 'gemma' : 'Apache-2.0',
    licence_terms: i === 3 ? 'use is bound to the Gemma terms' : null, parameters: 135e6, size: 105e6,
  })),
};

const body = async (request) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  return parts.length ? JSON.parse(Buffer.concat(parts).toString()) : {};
};
const json = (response, value, status = 200) => response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(value));

/** Words with alternatives, as probabilities are sent. */
const logprob = (token, i) => ({
  token, logprob: -((i * 7) % 11) / 5,
  top_logprobs: [{ token, logprob: -((i * 7) % 11) / 5 }, { token: ' else', logprob: -1.7 }, { token: '\n', logprob: -4 }],
});

async function chat(request, response) {
  const asked = await body(request);
  const words = JSON.stringify(asked.messages.at(-1));
  if (words.includes('error')) return json(response, { error: { message: 'the prompt has 3000 tokens; the context has 2048', type: 'invalid_request_error', param: 'messages', code: 'context_length_exceeded' } }, 400);
  response.writeHead(200, { 'Content-Type': 'text/event-stream' });
  const send = (value) => response.write(`data: ${JSON.stringify(value)}\n\n`);
  const delta = (piece, logprobs = null) => send({ choices: [{ index: 0, delta: piece, logprobs, finish_reason: null }], usage: null });
  delta({ role: 'assistant', content: '' });
  if (words.includes('think')) for (const word of 'First I should recall what light does in water. Then I say it simply.'.split(/(?<= )/)) { delta({ reasoning: word }); await sleep(30); }
  if (words.includes('weather')) delta({ tool_calls: [{ index: 0, id: 'c', type: 'function', function: { name: 'get_weather', arguments: '{"city":"Taipei"}' } }] });
  const pieces = ANSWER.split(/(?<=\s)/);
  let count = 0;
  for (const piece of pieces) {
    if (response.destroyed) return;
    delta({ content: piece }, asked.logprobs ? { content: [logprob(piece, count)] } : null);
    count += 1;
    await sleep(Number(process.env.PACE ?? 12));
  }
  send({ choices: [{ index: 0, delta: {}, logprobs: null, finish_reason: 'stop' }], usage: null, ...(words.includes('warn') ? { warnings: ['the two oldest messages were left out'] } : {}) });
  send({ choices: [], usage: { prompt_tokens: 42, completion_tokens: count, total_tokens: 42 + count, prompt_tokens_details: { cached_tokens: 30 } } });
  response.end('data: [DONE]\n\n');
}

async function completions(request, response) {
  const asked = await body(request);
  const pieces = (asked.echo ? asked.prompt : '').concat(' there was a small model that read all night.').match(/\s?\S+/g);
  const of = (list, from) => ({
    text: list.join(''),
    logprobs: { tokens: list, token_logprobs: list.map((_, i) => (i + from === 0 ? null : logprob('', i + from).logprob)), top_logprobs: list.map((each, i) => ({ [each]: logprob('', i + from).logprob, ' else': -2 })) },
  });
  if (!asked.stream) return json(response, { choices: [of(pieces, 0)] });
  response.writeHead(200, { 'Content-Type': 'text/event-stream' });
  for (const [i, piece] of pieces.entries()) {
    response.write(`data: ${JSON.stringify({ choices: [of([piece], i + 1)] })}\n\n`);
    await sleep(40);
  }
  response.end('data: [DONE]\n\n');
}

const started = Date.now();
function metrics(from) {
  const steps = Math.min(1500, 300 + Math.floor((Date.now() - started) / 100));
  let text = '';
  for (let step = 1; step <= steps; step += 1) {
    const loss = 1.4 + 3 * Math.exp(-step / 250) + 0.12 * Math.sin(step * 12.9898) * Math.sin(step * 4.1);
    text += JSON.stringify({ kind: 'step', step, loss, learning_rate: 2e-3 * Math.min(step / 100, 0.55 + 0.45 * Math.cos((step / 1500) * 3.14)), gradient_norm: 1, n_tokens: 2048, weight: 2048, seconds: 0.1 }) + '\n';
    if (step % 100 === 0) text += JSON.stringify({ kind: 'validation', step, loss: 1.5 + 3 * Math.exp(-step / 250), is_best: true }) + '\n';
  }
  return { from, next: text.length, lines: text.slice(from) };
}

async function pull(request, response) {
  const { model } = await body(request);
  response.writeHead(200, { 'Content-Type': 'application/x-ndjson' });
  const send = (value) => response.write(`${JSON.stringify(value)}\n`);
  send({ status: 'pulling manifest' });
  for (let part = 0; part <= 20 && !response.destroyed; part += 1) {
    send({ status: 'pulling 4be450dde3b0', digest: 'sha256:4be4', total: 93_000_000, completed: 4_650_000 * part });
    await sleep(150);
  }
  installed = [...new Set([...installed, model])];
  send({ status: 'success' });
  response.end();
}

createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, 'http://localhost');
  try {
    if (pathname === '/v1/chat/completions') await chat(request, response);
    else if (pathname === '/v1/completions') await completions(request, response);
    else if (pathname === '/v1/embeddings') {
      const { input } = await body(request);
      json(response, { data: input.map((text, index) => ({ index, embedding: [1, (text.length % 7) / 5, (text.charCodeAt(0) % 5) / 4] })), usage: { prompt_tokens: 31 } });
    } else if (pathname === '/tokenize') {
      const { content } = await body(request);
      json(response, { pieces: content.match(/\s?\S{1,4}/gu).map((piece, id) => ({ id: id * 97, piece: piece === ' 🙂.' ? [240, 159] : piece })) });
    } else if (pathname === '/api/tags') json(response, tags());
    else if (pathname === '/api/ps') json(response, { models: [{ name: 'smollm2-135m-instruct:latest', context_length: 2048 }] });
    else if (pathname === '/api/show') json(response, show((await body(request)).model));
    else if (pathname === '/api/catalog') json(response, catalog);
    else if (pathname === '/api/pull') await pull(request, response);
    else if (pathname === '/api/delete') {
      const { model } = await body(request);
      installed = installed.filter((name) => `${name}:latest` !== model);
      response.end();
    } else if (pathname === '/api/runs') json(response, { enabled: true, runs: [{ name: 'shakespeare-char', bytes: 120_000, modified_at: Date.now() / 1000, finished: false }, { name: 'lora-smollm2', bytes: 33_000, modified_at: Date.now() / 1000 - 90_000, finished: true }] });
    else if (pathname.endsWith('/metrics')) json(response, metrics(Number(searchParams.get('from') ?? 0)));
    else {
      const path = normalize(join(dist, pathname === '/' ? 'index.html' : pathname));
      if (!path.startsWith(dist)) throw new Error(path);
      response.writeHead(200, { 'Content-Type': KINDS[extname(path)] ?? 'application/octet-stream', 'Content-Security-Policy': POLICY }).end(await readFile(path));
    }
  } catch (error) {
    if (!response.headersSent) json(response, { error: String(error) }, 404);
  }
}).listen(port, '127.0.0.1', () => console.log(`http://127.0.0.1:${port}`));
