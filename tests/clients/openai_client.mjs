// OpenAI's own client for JavaScript against a rhetor server: RHETOR_BIN is the program, RHETOR_HOME its store.

import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { run, serve } from './serving.mjs';

const CHAT = 'smollm2-135m-instruct';
const EMBEDDER = 'all-minilm-l6-v2';
const messages = [{ role: 'user', content: 'Say hello to the world.' }];
const parameters = {
  type: 'object',
  properties: { a: { type: 'integer' }, b: { type: 'integer' } },
  required: ['a', 'b'],
  additionalProperties: false,
};
const add = { type: 'function', function: { name: 'add', description: 'Adds two numbers.', parameters } };
const City = z.object({ name: z.string(), country: z.string(), inhabitants: z.number().int() });

const server = await serve();
const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', timeout: 120000 });
const post = async (path, body) => {
  const headers = { 'content-type': 'application/json' };
  return (await fetch(server.url + path, { method: 'POST', headers, body: JSON.stringify(body) })).json();
};
const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);

await run(
  {
    async chat_answers_and_counts() {
      const answer = await client.chat.completions.create({ model: CHAT, messages, max_tokens: 12, seed: 1 });
      const [choice] = answer.choices;
      assert.equal(choice.message.role, 'assistant');
      assert.ok(choice.message.content);
      assert.equal(choice.message.refusal, null);
      assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
      assert.ok(answer._request_id);
    },

    async a_stream_says_what_one_piece_says() {
      const ask = { model: CHAT, messages, max_tokens: 16, seed: 7, temperature: 0.8 };
      const whole = await client.chat.completions.create(ask);
      let text = '';
      let usage = null;
      const stream = { stream: true, stream_options: { include_usage: true } };
      for await (const chunk of await client.chat.completions.create({ ...ask, ...stream })) {
        text += chunk.choices[0]?.delta?.content ?? '';
        usage = chunk.usage ?? usage;
      }
      assert.equal(text, whole.choices[0].message.content);
      assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
      const runner = client.chat.completions.stream(ask);
      assert.equal(await runner.finalContent(), text);
    },

    async several_answers_have_seeds_of_their_own() {
      const ask = { model: CHAT, messages, max_tokens: 10, seed: 5, temperature: 1.5 };
      const three = await client.chat.completions.create({ ...ask, n: 3 });
      assert.deepEqual(three.choices.map((choice) => choice.index), [0, 1, 2]);
      const second = await client.chat.completions.create({ ...ask, seed: 6 });
      assert.equal(second.choices[0].message.content, three.choices[1].message.content);
    },

    async log_probabilities_come_for_each_token() {
      const ask = { model: CHAT, messages, max_tokens: 6, temperature: 0, logprobs: true, top_logprobs: 2 };
      const answer = await client.chat.completions.create(ask);
      const { content } = answer.choices[0].logprobs;
      assert.equal(content.length, answer.usage.completion_tokens);
      assert.ok(content.every((token) => token.top_logprobs.length === 2 && token.logprob <= 0));
    },

    async tools_are_called_and_answered() {
      const asked = [{ role: 'user', content: 'What is 3 plus 4? Use the tool.' }];
      const ask = { model: CHAT, tools: [add], max_tokens: 96, temperature: 0 };
      const first = await client.chat.completions.create({ ...ask, messages: asked, tool_choice: 'required' });
      const [choice] = first.choices;
      assert.equal(choice.finish_reason, 'tool_calls');
      const [call] = choice.message.tool_calls;
      const { a, b } = JSON.parse(call.function.arguments);
      assert.ok(Number.isInteger(a) && Number.isInteger(b));
      const result = { role: 'tool', tool_call_id: call.id, content: String(a + b) };
      const turns = [...asked, choice.message, result];
      const second = await client.chat.completions.create({ ...ask, messages: turns, tool_choice: 'none' });
      assert.ok(second.choices[0].message.content);
      const named = { type: 'function', function: { name: 'add' } };
      const stream = client.chat.completions.stream({ ...ask, messages: asked, tool_choice: named });
      const final = await stream.finalChatCompletion();
      assert.deepEqual(Object.keys(JSON.parse(final.choices[0].message.tool_calls[0].function.arguments)), ['a', 'b']);
    },

    async an_answer_is_parsed_into_an_object() {
      const asked = [{ role: 'user', content: 'Describe Paris: name, country, number of inhabitants.' }];
      const ask = { model: CHAT, messages: asked, temperature: 0, response_format: zodResponseFormat(City, 'city') };
      const answer = await client.chat.completions.parse({ ...ask, max_tokens: 120 });
      const city = answer.choices[0].message.parsed;
      assert.equal(typeof city.name, 'string');
      assert.ok(Number.isInteger(city.inhabitants));
      assert.equal(answer.constraint, 'json_schema');
      const cut = client.chat.completions.parse({ ...ask, max_tokens: 3 });
      await assert.rejects(cut, OpenAI.LengthFinishReasonError ?? Error);
    },

    async embeddings_come_in_base64_and_as_numbers() {
      const input = ['The cat sits on the mat.', 'A cat is sitting on a mat.', 'Stocks fell sharply.'];
      const packed = await client.embeddings.create({ model: EMBEDDER, input });
      const plain = await client.embeddings.create({ model: EMBEDDER, input, encoding_format: 'float' });
      for (const [i, item] of packed.data.entries()) {
        assert.equal(item.embedding.length, 384);
        const other = plain.data[i].embedding;
        assert.ok(item.embedding.every((x, j) => Math.abs(x - other[j]) < 1e-6));
      }
      const [a, b, c] = plain.data.map((item) => item.embedding);
      assert.ok(dot(a, b) > 0.8 && dot(a, c) < 0.3);
      const short = await client.embeddings.create({ model: EMBEDDER, input: input[0], dimensions: 64 });
      assert.equal(short.data[0].embedding.length, 64);
    },

    async completions_continue_texts_as_they_are() {
      const ask = { model: CHAT, max_tokens: 3, temperature: 0 };
      const prompt = ['The capital of France is', 'One, two, three,'];
      const many = await client.completions.create({ ...ask, prompt });
      assert.match(many.choices[0].text, /Paris/);
      assert.match(many.choices[1].text, /four/);
      const echo = { model: CHAT, prompt: 'The capital of France is Paris', max_tokens: 0, echo: true, logprobs: 0 };
      const scored = (await client.completions.create(echo)).choices[0];
      assert.equal(scored.text, echo.prompt);
      const score = await post('/score', { model: CHAT, context: prompt[0], continuation: ' Paris' });
      assert.ok(Math.abs(score.logprob - scored.logprobs.token_logprobs.at(-1)) < 1e-4);
      await assert.rejects(client.completions.create({ ...ask, prompt: 'a', suffix: 'b' }), OpenAI.BadRequestError);
    },

    async refusals_have_their_classes_and_fields() {
      const refused = async (more, kind, param) => {
        const ask = { model: CHAT, messages, max_tokens: 4, ...more };
        await assert.rejects(client.chat.completions.create(ask), (error) => {
          assert.ok(error instanceof kind, String(error));
          assert.equal(error.param, param);
          return true;
        });
      };
      await refused({ model: 'no-such-model' }, OpenAI.NotFoundError, 'model');
      await refused({ temperature: 3 }, OpenAI.BadRequestError, 'temperature');
      await refused({ colour: 'red' }, OpenAI.BadRequestError, 'colour');
      await refused({ messages: [] }, OpenAI.BadRequestError, 'messages');
    },

    async a_stream_that_is_broken_off_frees_its_place() {
      const ask = { model: CHAT, messages, max_tokens: 2000, stream: true, logit_bias: { 2: -100 } };
      const stream = await client.chat.completions.create(ask);
      let n = 0;
      for await (const chunk of stream) {
        assert.ok(chunk.id);
        n += 1;
        if (n > 3) break;
      }
      stream.controller.abort();
      const began = Date.now();
      for (;;) {
        const text = await (await fetch(`${server.url}/metrics`)).text();
        const found = /^rhetor_requests_in_flight (\d+)/m.exec(text);
        assert.ok(found, text.slice(0, 500));
        // The question itself is one.
        if (Number(found[1]) <= 1) break;
        assert.ok(Date.now() - began < 20000, 'the broken-off request still runs');
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    },

    async models_are_listed_found_and_not_deleted() {
      const names = [];
      for await (const model of client.models.list()) names.push(model.id);
      assert.ok(names.includes(CHAT) && names.includes(EMBEDDER));
      assert.equal((await client.models.retrieve(CHAT)).id, CHAT);
      await assert.rejects(client.models.retrieve('nobody/nothing:9b'), OpenAI.NotFoundError);
      await assert.rejects(client.models.delete(CHAT), OpenAI.PermissionDeniedError);
    },

    async a_response_is_made_streamed_and_continued() {
      const ask = { model: CHAT, input: 'My name is Ada.', max_output_tokens: 16, temperature: 0 };
      const first = await client.responses.create(ask);
      assert.ok(first.output_text);
      assert.equal((await client.responses.retrieve(first.id)).output_text, first.output_text);
      const follow = { model: CHAT, input: 'What is my name?', previous_response_id: first.id, max_output_tokens: 16 };
      assert.ok((await client.responses.create(follow)).output_text);
      let text = '';
      let number = 0;
      let last = '';
      for await (const event of await client.responses.create({ ...ask, stream: true })) {
        assert.equal(event.sequence_number, number);
        number += 1;
        last = event.type;
        if (event.type === 'response.output_text.delta') text += event.delta;
      }
      assert.equal(text, first.output_text);
      assert.ok(['response.completed', 'response.incomplete'].includes(last));
      await client.responses.delete(first.id);
      await assert.rejects(client.responses.retrieve(first.id), OpenAI.NotFoundError);
    },

    async a_response_calls_tools_and_is_parsed() {
      const tools = [{ type: 'function', strict: true, name: 'add', parameters }];
      const ask = { model: CHAT, tools, max_output_tokens: 96, temperature: 0 };
      const first = await client.responses.create({ ...ask, input: 'What is 3 plus 4?', tool_choice: 'required' });
      const call = first.output.at(-1);
      assert.equal(call.type, 'function_call');
      const output = { type: 'function_call_output', call_id: call.call_id, output: '7' };
      const more = { ...ask, input: [output], previous_response_id: first.id, tool_choice: 'none' };
      assert.ok((await client.responses.create(more)).output_text);
      const text = { format: zodTextFormat(City, 'city') };
      const parsed = await client.responses.parse({ model: CHAT, input: 'Describe Rome.', text, temperature: 0 });
      assert.equal(typeof parsed.output_parsed.country, 'string');
    },
  },
  server,
);
