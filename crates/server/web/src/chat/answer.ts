import { signal } from '@preact/signals';
import { chat, type Delta, type Message } from '../api/chat';
import { ApiError } from '../api/http';
import { showsProbabilities } from '../settings';
import { conversations, current, currentId, draft, fresh, model, update } from './conversations';
import { newId } from './ids';
import { measured } from './speed';
import { pathTo, put, titleOf, type Conversation, type Turn } from './tree';

/** The answer that is being written: its turn so far, and the conversation that it belongs to. */
export const live = signal<{ conversation: string; turn: Turn } | null>(null);

let abort: AbortController | null = null;

/** How many alternatives of each token are asked for. */
const ALTERNATIVES = 5;

/** Milliseconds between two drawings of an answer that is being written. */
const DRAWING = 50;

/** Milliseconds between two moments at which an unfinished answer is kept. */
const KEEPING = 1500;

/** Says something after the turn `parent`, and asks for an answer. */
export async function say(text: string, pictures: string[], parent: string | null): Promise<void> {
  const now = Date.now();
  const conversation = current.value ?? { ...fresh(), title: titleOf(text) };
  const turn: Turn = {
    id: newId(), parent, role: 'user', text, createdAt: now,
    ...(pictures.length > 0 ? { pictures } : {}),
  };
  await update(put({ ...conversation, model: model.value }, turn));
  currentId.value = conversation.id;
  await answer(conversation.id, turn.id);
}

/** Asks again for an answer to the turn before `turn`; the old answer stays beside the new one. */
export async function again(turn: Turn): Promise<void> {
  if (turn.parent !== null && current.value) await answer(current.value.id, turn.parent);
}

/** Ends the answer that is being written; what is there stays. */
export function stop(): void {
  abort?.abort();
}

/** The messages up to a turn, as the API has them. Thoughts are not told again. */
export function messagesOf(conversation: Conversation, upTo: string): Message[] {
  const system = conversation.system.trim();
  const first: Message[] = system === '' ? [] : [{ role: 'system', content: system }];
  const turns = pathTo(conversation, upTo).map((turn): Message => {
    if (!turn.pictures) return { role: turn.role, content: turn.text };
    const pictures = turn.pictures.map((url) => ({ type: 'image_url', image_url: { url } }) as const);
    return { role: turn.role, content: [...pictures, { type: 'text', text: turn.text }] };
  });
  return [...first, ...turns];
}

/** A turn with what an event adds to it. */
export function grown(turn: Turn, delta: Delta): Turn {
  const calls = [...(turn.toolCalls ?? [])];
  for (const { index, name, arguments: piece } of delta.toolCalls) {
    const call = calls[index] ?? { name: '', arguments: '' };
    calls[index] = { name: call.name + name, arguments: call.arguments + piece };
  }
  return {
    ...turn,
    text: turn.text + delta.text,
    ...(delta.thinking || turn.thinking ? { thinking: (turn.thinking ?? '') + delta.thinking } : {}),
    ...(calls.length > 0 ? { toolCalls: calls } : {}),
    ...(delta.tokens.length > 0 ? { tokens: [...(turn.tokens ?? []), ...delta.tokens] } : {}),
    ...(delta.finish ? { finish: delta.finish } : {}),
    ...(delta.usage ? { usage: delta.usage } : {}),
    ...(delta.warnings.length > 0 ? { warnings: [...new Set([...(turn.warnings ?? []), ...delta.warnings])] } : {}),
  };
}

async function answer(id: string, parent: string): Promise<void> {
  if (live.value) return;
  const asked = conversations.value?.find((conversation) => conversation.id === id);
  if (!asked) return;
  const name = model.value;
  let turn: Turn = { id: newId(), parent, role: 'assistant', text: '', createdAt: Date.now(), model: name };
  const started = performance.now();
  let first = 0;
  let last = 0;
  let drawn = 0;
  let keptAt = started;
  abort = new AbortController();
  live.value = { conversation: id, turn };
  await save(id, turn);
  const { max_tokens, ...sampling } = asked.sampling;
  const options = {
    ...sampling,
    ...(max_tokens === undefined ? {} : { max_completion_tokens: max_tokens }),
    ...(showsProbabilities.value ? { logprobs: true, top_logprobs: ALTERNATIVES } : {}),
  };
  try {
    for await (const delta of chat(name, messagesOf(asked, parent), options, abort.signal)) {
      const now = performance.now();
      if (delta.text || delta.thinking || delta.toolCalls.length > 0) {
        first ||= now;
        last = now;
      }
      turn = grown(turn, delta);
      if (now - drawn >= DRAWING) {
        drawn = now;
        live.value = { conversation: id, turn };
      }
      if (now - keptAt >= KEEPING) {
        keptAt = now;
        await save(id, turn);
      }
    }
  } catch (error) {
    turn = abort.signal.aborted ? { ...turn, finish: 'cancelled' } : { ...turn, error: words(error) };
  }
  if (first > 0) {
    turn = { ...turn, timing: { first: first - started, rest: last - first } };
    measured(name, turn);
  }
  abort = null;
  await save(id, turn);
  live.value = null;
}

/** Puts a turn into its conversation, if that was not deleted meanwhile. */
async function save(id: string, turn: Turn): Promise<void> {
  const conversation = conversations.value?.find((other) => other.id === id);
  if (conversation) await update(put(conversation, turn));
}

/** An error as it is kept with the turn: the status stands before the words, for the page says something to some. */
const words = (error: unknown): string =>
  error instanceof ApiError ? `${error.status} ${error.message}` : `0 ${String(error)}`;

/** Changes what a conversation is asked with: of the one that is shown, or of the next. */
export function choose(change: Partial<Pick<Conversation, 'system' | 'sampling'>>): void {
  draft.value = { ...draft.value, ...change };
  if (current.value) void update({ ...current.value, ...change });
}
