// Ollama's own client for JavaScript against a rhetor server: RHETOR_BIN is the program, RHETOR_HOME its store.

import assert from 'node:assert/strict';
import { Ollama } from 'ollama';
import { run, serve } from './serving.mjs';

const CHAT = 'smollm2-135m-instruct';
const EMBEDDER = 'all-minilm-l6-v2';
const HELLO = [{ role: 'user', content: 'Say hello to the world.' }];
const SHORT = { num_predict: 8, seed: 1 };
const ADD = {
  type: 'function',
  function: {
    name: 'add',
    description: 'Adds two numbers.',
    parameters: {
      type: 'object',
      required: ['a', 'b'],
      properties: { a: { type: 'number', description: 'first' }, b: { type: 'number', description: 'second' } },
    },
  },
};

const server = await serve();
const ollama = new Ollama({ host: server.url });

/** Expects a refusal with this status whose text matches. */
async function fails(promise, status, words) {
  await assert.rejects(promise, (error) => {
    assert.equal(error.status_code, status, error.message);
    assert.match(error.message, words);
    return true;
  });
}

async function all(stream) {
  const pieces = [];
  for await (const piece of await stream) pieces.push(piece);
  return pieces;
}

await run(
  {
    async versionAndList() {
      const { version } = await ollama.version();
      assert.match(version, /^\d+\.\d+\.\d+$/);
      const { models } = await ollama.list();
      assert.ok(models.some((model) => model.name === `${CHAT}:latest`));
    },

    async generateAndChatStreamedAndWhole() {
      const ask = { model: CHAT, prompt: 'Tell me of the sea.', options: SHORT };
      const whole = await ollama.generate(ask);
      const pieces = await all(ollama.generate({ ...ask, stream: true }));
      assert.equal(pieces.map((piece) => piece.response).join(''), whole.response);
      assert.ok(pieces.at(-1).done && whole.eval_count > 0 && whole.context.length > 0);
      const talk = { model: CHAT, messages: HELLO, options: SHORT };
      const answer = await ollama.chat(talk);
      const said = await all(ollama.chat({ ...talk, stream: true }));
      assert.equal(said.map((piece) => piece.message.content).join(''), answer.message.content);
    },

    async toolsThereAndBack() {
      const messages = [{ role: 'user', content: 'What is 2 + 3?' }];
      const options = { seed: 3, num_predict: 40 };
      const first = await ollama.chat({ model: CHAT, messages, tools: [ADD], options });
      for (const call of first.message.tool_calls ?? []) assert.equal(typeof call.function.arguments, 'object');
      const call = { function: { name: 'add', arguments: { a: 2, b: 3 } } };
      messages.push({ role: 'assistant', content: '', tool_calls: [call] });
      messages.push({ role: 'tool', content: '5', tool_name: 'add' });
      const pieces = await all(ollama.chat({ model: CHAT, messages, tools: [ADD], options, stream: true }));
      assert.ok(pieces.at(-1).done);
    },

    async formatOfASchema() {
      const format = { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] };
      const options = { temperature: 0, num_predict: 100 };
      const answer = await ollama.chat({ model: CHAT, messages: HELLO, format, options });
      assert.equal(typeof JSON.parse(answer.message.content).name, 'string');
    },

    async vectors() {
      const { embeddings } = await ollama.embed({ model: EMBEDDER, input: ['one', 'two'], truncate: true });
      assert.equal(embeddings.length, 2);
      const { embedding } = await ollama.embeddings({ model: EMBEDDER, prompt: 'one' });
      assert.equal(embedding.length, embeddings[0].length);
    },

    async showPsAndKeepAlive() {
      const shown = await ollama.show({ model: CHAT });
      assert.ok(shown.model_info['general.architecture'] === 'llama' && shown.capabilities.includes('completion'));
      await ollama.generate({ model: CHAT, prompt: '', keep_alive: '5m' });
      const { models } = await ollama.ps();
      assert.ok(models.some((model) => model.name === `${CHAT}:latest` && new Date(model.expires_at) > new Date()));
      const gone = await ollama.generate({ model: CHAT, prompt: '', keep_alive: 0 });
      assert.equal(gone.done_reason, 'unload');
    },

    async createCopyDelete() {
      const parameters = { temperature: 0, num_predict: 4 };
      const steps = await all(ollama.create({ model: 'js', from: CHAT, system: 'Be brief.', parameters, stream: true }));
      assert.equal(steps.at(-1).status, 'success');
      await ollama.copy({ source: 'js', destination: 'js:v2' });
      const answer = await ollama.chat({ model: 'js:v2', messages: HELLO });
      assert.ok(answer.eval_count <= 4);
      for (const model of ['js', 'js:v2']) assert.equal((await ollama.delete({ model })).status, 'success');
      await fails(ollama.show({ model: 'js' }), 404, /model 'js' not found/);
    },

    async pullOfWhatIsHere() {
      const steps = await all(ollama.pull({ model: CHAT, stream: true }));
      assert.equal(steps.at(-1).status, 'success');
      assert.equal((await ollama.pull({ model: CHAT })).status, 'success');
      await assert.rejects(all(ollama.pull({ model: 'no-such-model-anywhere', stream: true })), /no-such-model-anywhere/);
      await fails(ollama.push({ model: CHAT }), 501, /not pushed/);
    },

    async abort() {
      const messages = [{ role: 'user', content: 'Write a long story.' }];
      const stream = await ollama.chat({ model: CHAT, messages, stream: true, options: { num_predict: 2000 } });
      let n = 0;
      await assert.rejects(
        (async () => {
          for await (const _ of stream) if (++n === 2) stream.abort();
        })(),
        { name: 'AbortError' },
      );
      // The model is free again: it can be loaded with another context.
      await ollama.generate({ model: CHAT, prompt: 'Hi', options: { ...SHORT, num_ctx: 512 } });
    },

    async errors() {
      await fails(ollama.chat({ model: 'nothing', messages: HELLO }), 404, /model 'nothing' not found/);
      await fails(ollama.generate({ model: CHAT, prompt: 'x', options: { num_gpu: 9 } }), 400, /options\.num_gpu/);
      await fails(ollama.chat({ model: CHAT, messages: HELLO, think: true }), 400, /thinking/);
    },
  },
  server,
);
