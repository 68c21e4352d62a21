import { computed, signal } from '@preact/signals';
import { isText, kept } from '../kept';
import { newId } from './ids';
import type { Sampling } from './sampling';
import * as stored from './stored';
import { imported } from './transfer';
import type { Conversation } from './tree';

/** Every conversation of this browser, the latest first; `null` until they are read. */
export const conversations = signal<Conversation[] | null>(null);
/** Why nothing can be kept, if that is so. */
export const notKept = signal<string | null>(null);
/** The id of the conversation that is shown; `''` is one that has not begun. */
export const currentId = kept<string>('conversation', '', isText);

/** What a new conversation begins with: the choices of the last one. */
export const model = kept<string>('model', '', isText);
export const draft = signal<{ system: string; sampling: Sampling }>({ system: '', sampling: {} });

export const current = computed<Conversation | null>(
  () => conversations.value?.find((conversation) => conversation.id === currentId.value) ?? null,
);

/** Reads what this browser keeps. */
export async function open(): Promise<void> {
  try {
    conversations.value = await stored.all();
  } catch (error) {
    notKept.value = String(error);
    conversations.value = [];
  }
  if (!current.value) currentId.value = '';
}

/** Puts a conversation in its place in the list, and keeps it. */
export async function update(conversation: Conversation): Promise<void> {
  const others = (conversations.value ?? []).filter((other) => other.id !== conversation.id);
  conversations.value = [conversation, ...others].sort((a, b) => b.updatedAt - a.updatedAt);
  await keep(conversation);
}

async function keep(conversation: Conversation): Promise<void> {
  try {
    await stored.keep(conversation);
  } catch (error) {
    notKept.value = String(error);
  }
}

/** A conversation that has not begun, with the choices made for it. */
export function fresh(): Conversation {
  const now = Date.now();
  return { id: newId(), title: '', createdAt: now, updatedAt: now, model: model.value, ...draft.value, turns: {}, chosen: {} };
}

export function rename(conversation: Conversation, title: string): Promise<void> {
  return update({ ...conversation, title: title.trim() });
}

export async function remove(conversation: Conversation): Promise<void> {
  conversations.value = (conversations.value ?? []).filter((other) => other.id !== conversation.id);
  if (currentId.value === conversation.id) currentId.value = '';
  await stored.forget(conversation.id).catch(() => undefined);
}

export async function removeAll(): Promise<void> {
  for (const conversation of conversations.value ?? []) await remove(conversation);
}

/** Adds the conversations of a file and tells how many there were; throws if the file holds none. */
export async function importFile(text: string): Promise<number> {
  const found = imported(text, newId);
  for (const conversation of found) await update(conversation);
  return found.length;
}

/** The conversations whose title or words contain each of the words. */
export function matching(all: Conversation[], words: string): Conversation[] {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  if (wanted.length === 0) return all;
  return all.filter((conversation) => {
    const texts = Object.values(conversation.turns).map((turn) => turn.text);
    const text = [conversation.title, ...texts].join('\n').toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
}
