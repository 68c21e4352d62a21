// @vitest-environment jsdom
import { describe, expect, it } from 'vitest';
import { deltaOf } from '../src/api/chat';
import { events, lines, objects } from '../src/api/lines';
import { cosine, tokensOf } from '../src/api/playground';

/** A stream of the bytes of a text in pieces of a size. */
function stream(text: string, size: number): ReadableStream<Uint8Array> {
  const bytes = new TextEncoder().encode(text);
  return new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
      controller.close();
    },
  });
}

async function all<T>(from: AsyncGenerator<T>): Promise<T[]> {
  const out: T[] = [];
  for await (const each of from) out.push(each);
  return out;
}

describe('streams', () => {
  const TEXT = ': ping\n\ndata: {"a":"臺灣"}\r\n\r\nevent: x\ndata: one\ndata: two\nid: 3\n\ndata:[DONE]\n\n';
  it.each([1, 2, 3, 7, 1000])('are read the same in pieces of %i bytes', async (size) => {
    expect(await all(events(stream(TEXT, size)))).toEqual(['{"a":"臺灣"}', 'one\ntwo', '[DONE]']);
  });
  it('give an event that the end cut off from its blank line', async () => {
    expect(await all(events(stream('data: x', 3)))).toEqual(['x']);
  });
  it('give objects of lines, and fail at what is none', async () => {
    expect(await all(objects(stream('{"a":1}\n\n{"a":2}', 4)))).toEqual([{ a: 1 }, { a: 2 }]);
    await expect(all(objects(stream('{"a":1}\n{"a', 4)))).rejects.toThrow();
  });
  it('are let go when nobody listens any more', async () => {
    let isGone = false;
    const endless = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(new TextEncoder().encode('x\n')),
      cancel: () => {
        isGone = true;
      },
    });
    for await (const line of lines(endless)) {
      expect(line).toBe('x');
      break;
    }
    expect(isGone).toBe(true);
  });
});

describe('events of a chat', () => {
  it('are read with all that they carry', () => {
    const delta = deltaOf(
      JSON.stringify({
        choices: [
          {
            delta: { content: 'a', reasoning: 'b', tool_calls: [{ index: 0, function: { name: 'f', arguments: '{' } }] },
            logprobs: { content: [{ token: 'a', logprob: -1, top_logprobs: [{ token: 'z', logprob: -2 }] }] },
            finish_reason: 'stop',
          },
        ],
        usage: { prompt_tokens: 3, completion_tokens: 4, prompt_tokens_details: { cached_tokens: 2 } },
        warnings: ['w'],
      }),
    );
    expect(delta).toEqual({
      text: 'a', thinking: 'b', finish: 'stop', warnings: ['w'],
      toolCalls: [{ index: 0, name: 'f', arguments: '{' }],
      tokens: [{ text: 'a', logprob: -1, others: [{ text: 'z', logprob: -2 }] }],
      usage: { prompt: 3, completion: 4, cached: 2 },
    });
  });
  it('may be empty', () => {
    expect(deltaOf('{"choices":[]}')).toMatchObject({ text: '', finish: null, usage: null });
    expect(deltaOf('{"choices":[{"delta":{"role":"assistant","content":null},"logprobs":null}],"usage":null}').text).toBe('');
  });
  it('throw the error that they bring', () => {
    expect(() => deltaOf('{"error":{"message":"no room","param":"messages"}}')).toThrow('no room');
  });
});

describe('the playground', () => {
  it('sorts alternatives, and takes a first token without a probability', () => {
    const tokens = tokensOf({ tokens: ['a', 'b'], token_logprobs: [null, -2], top_logprobs: [null, { x: -3, b: -2 }] });
    expect(tokens).toEqual([
      { text: 'a', logprob: 0, others: [] },
      { text: 'b', logprob: -2, others: [{ text: 'b', logprob: -2 }, { text: 'x', logprob: -3 }] },
    ]);
  });
  it('compares vectors by their angle', () => {
    expect(cosine([1, 0], [2, 0])).toBeCloseTo(1);
    expect(cosine([1, 0], [0, 3])).toBe(0);
    expect(cosine([0, 0], [1, 1])).toBe(0);
  });
});
