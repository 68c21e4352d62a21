// @vitest-environment jsdom
import 'fake-indexeddb/auto';
import { describe, expect, it } from 'vitest';
import type { Delta } from '../src/api/chat';
import { grown, messagesOf } from '../src/chat/answer';
import { matching } from '../src/chat/conversations';
import { samplingOf } from '../src/chat/sampling';
import * as stored from '../src/chat/stored';
import { exported, imported } from '../src/chat/transfer';
import { choose, path, place, put, titleOf, type Conversation, type Turn } from '../src/chat/tree';

const EMPTY: Conversation = {
  id: 'c', title: 'A title', createdAt: 0, updatedAt: 0, model: 'm', system: 'Be brief.', sampling: { temperature: 0.5 }, turns: {}, chosen: {},
};

const turn = (id: string, parent: string | null, createdAt: number): Turn => ({
  id, parent, createdAt, role: parent === null || parent.startsWith('a') ? 'user' : 'assistant', text: `text of ${id}`,
});

/** A question with two answers, the second of which was asked about twice. */
const TREE = [
  turn('q', null, 1), turn('a1', 'q', 2), turn('a2', 'q', 3), turn('q2', 'a2', 4), turn('b1', 'q2', 5), turn('q3', 'a2', 6),
].reduce(put, EMPTY);

const ids = (of: Conversation) => path(of).map(({ id }) => id);

describe('a tree of turns', () => {
  it('shows the newest branch', () => {
    expect(ids(TREE)).toEqual(['q', 'a2', 'q3']);
  });
  it('turns to a sister, and back to the branch that was shown below it', () => {
    const first = choose(TREE, TREE.turns['a1'] as Turn);
    expect(ids(first)).toEqual(['q', 'a1']);
    expect(ids(choose(first, TREE.turns['a2'] as Turn))).toEqual(['q', 'a2', 'q3']);
    expect(ids(choose(TREE, TREE.turns['q2'] as Turn))).toEqual(['q', 'a2', 'q2', 'b1']);
  });
  it('counts sisters in the order of their making', () => {
    const { index, sisters } = place(TREE, TREE.turns['q3'] as Turn);
    expect([index, sisters.map(({ id }) => id)]).toEqual([1, ['q2', 'q3']]);
  });
  it('puts a grown turn in its place without turning to it', () => {
    const first = choose(TREE, TREE.turns['a1'] as Turn);
    const longer = put(first, { ...(TREE.turns['a2'] as Turn), text: 'longer' });
    expect([ids(longer), longer.turns['a2']?.text]).toEqual([['q', 'a1'], 'longer']);
  });
  it('shows what is there if a choice is not, and ends in a circle', () => {
    expect(ids({ ...TREE, chosen: { '': 'gone' } })).toEqual(['q', 'a2', 'q3']);
    const circle = { ...EMPTY, turns: { x: turn('x', 'y', 1), y: turn('y', 'x', 2), z: turn('z', null, 3) }, chosen: {} };
    expect(ids(circle)).toEqual(['z']);
  });
  it('becomes messages up to the turn that is answered', () => {
    expect(messagesOf(TREE, 'q2').map(({ role, content }) => `${role}: ${String(content)}`)).toEqual([
      'system: Be brief.', 'user: text of q', 'assistant: text of a2', 'user: text of q2',
    ]);
  });
  it('gets a title from its first question', () => {
    expect(titleOf('Short\nmore')).toBe('Short');
    expect(titleOf('word '.repeat(40)).length).toBeLessThan(50);
  });
});

describe('an answer', () => {
  const NOTHING: Delta = { text: '', thinking: '', toolCalls: [], tokens: [], finish: null, usage: null, warnings: [] };
  it('grows by what comes in', () => {
    const deltas: Partial<Delta>[] = [
      { thinking: 'hm' },
      { text: 'a' },
      { toolCalls: [{ index: 0, name: 'f', arguments: '{"x"' }], warnings: ['w'] },
      { toolCalls: [{ index: 0, name: '', arguments: ':1}' }], warnings: ['w'] },
      { text: 'b', finish: 'stop', usage: { prompt: 1, completion: 2, cached: 0 } },
    ];
    const end = deltas.reduce((sum: Turn, delta) => grown(sum, { ...NOTHING, ...delta }), { ...turn('x', 'q', 1), text: '' });
    expect(end).toMatchObject({
      text: 'ab', thinking: 'hm', finish: 'stop', warnings: ['w'], toolCalls: [{ name: 'f', arguments: '{"x":1}' }], usage: { completion: 2 },
    });
  });
});

describe('conversations', () => {
  it('are kept, listed and forgotten', async () => {
    await stored.keep(TREE);
    await stored.keep({ ...EMPTY, id: 'later', updatedAt: 99 });
    expect((await stored.all()).map(({ id }) => id)).toEqual(['later', 'c']);
    await stored.forget('later');
    expect(await stored.all()).toEqual([TREE]);
  });
  it('come back from a file as they were, under new names', () => {
    const [found] = imported(exported([TREE]), () => 'new');
    expect(found).toEqual({ ...TREE, id: 'new' });
  });
  it('of a foreign file are taken only as far as they are understood', () => {
    const file = JSON.stringify({
      format: 'rhetor-conversations-1',
      conversations: [
        {
          title: 3,
          sampling: { temperature: 99, top_k: 5, stop: [1, 'x'] },
          chosen: { '': 'a', q: 7 },
          turns: {
            a: { id: 'a', parent: null, role: 'user', text: 't', createdAt: 1, pictures: ['https://evil.example/p.png', 'data:image/png;base64,AA=='] },
            b: { id: 'b', parent: 'a', role: 'root', text: 't' },
            c: 'nothing',
          },
        },
        'nothing',
      ],
    });
    const [found, ...others] = imported(file, () => 'new');
    expect(others).toEqual([]);
    expect(Object.keys(found?.turns ?? {})).toEqual(['a']);
    expect(found).toMatchObject({ title: '', sampling: { top_k: 5, stop: ['x'] }, chosen: { '': 'a' } });
    expect(found?.turns['a']?.pictures).toEqual(['data:image/png;base64,AA==']);
    for (const wrong of ['', '[]', '{}', '{"format":"rhetor-conversations-1"}']) {
      expect(() => imported(wrong, () => 'x')).toThrow();
    }
  });
  it('are found by all of the words, in any turn', () => {
    expect(matching([TREE], 'TITLE b1')).toEqual([TREE]);
    expect(matching([TREE], 'title zebra')).toEqual([]);
  });
  it('take numbers for sampling within their ranges only', () => {
    expect(samplingOf({ temperature: -1, top_p: 0.5, min_p: 'x', seed: 3, stop: [] })).toEqual({ top_p: 0.5, seed: 3 });
  });
});
