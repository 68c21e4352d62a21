import type { Token, ToolCall, Usage } from '../api/chat';
import type { Sampling } from './sampling';

/** Something that was said. Turns are a tree: an edited question or another answer is a sister of the first. */
export interface Turn {
  id: string;
  /** The turn that it answers; `null` for the first. */
  parent: string | null;
  role: 'user' | 'assistant';
  text: string;
  createdAt: number;
  /** Data URLs. */
  pictures?: string[];
  thinking?: string;
  toolCalls?: ToolCall[];
  tokens?: Token[];
  model?: string;
  usage?: Usage;
  /** Milliseconds to the first piece and from there to the last. */
  timing?: { first: number; rest: number };
  finish?: string;
  warnings?: string[];
  error?: string;
}

export interface Conversation {
  id: string;
  title: string;
  createdAt: number;
  updatedAt: number;
  model: string;
  system: string;
  sampling: Sampling;
  turns: Record<string, Turn>;
  /** Which child of a turn is shown; that of the beginning stands under `''`. */
  chosen: Record<string, string>;
}

const key = (parent: string | null) => parent ?? '';

/** The children of a turn, the oldest first. */
export function children(of: Conversation, parent: string | null): Turn[] {
  const found = Object.values(of.turns).filter((turn) => turn.parent === parent);
  return found.sort((a, b) => a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1));
}

/** The child of a turn that is shown: the chosen one, else the newest. */
function shown(of: Conversation, parent: string | null): Turn | undefined {
  const chosen = of.turns[of.chosen[key(parent)] ?? ''];
  return chosen && chosen.parent === parent ? chosen : children(of, parent).at(-1);
}

/** The turns that are shown, from the first to the last. */
export function path(of: Conversation): Turn[] {
  const out: Turn[] = [];
  const seen = new Set<string>();
  for (let turn = shown(of, null); turn && !seen.has(turn.id); turn = shown(of, turn.id)) {
    out.push(turn);
    seen.add(turn.id);
  }
  return out;
}

/** The turns before and including one. */
export function pathTo(of: Conversation, id: string): Turn[] {
  const out: Turn[] = [];
  const seen = new Set<string>();
  for (let turn = of.turns[id]; turn && !seen.has(turn.id); turn = turn.parent ? of.turns[turn.parent] : undefined) {
    out.unshift(turn);
    seen.add(turn.id);
  }
  return out;
}

/** Adds a turn and shows it; or puts another in the place of the one with its id. */
export function put(of: Conversation, turn: Turn): Conversation {
  const isNew = !(turn.id in of.turns);
  return {
    ...of,
    updatedAt: isNew ? Math.max(of.updatedAt, turn.createdAt) : of.updatedAt,
    turns: { ...of.turns, [turn.id]: turn },
    chosen: isNew ? { ...of.chosen, [key(turn.parent)]: turn.id } : of.chosen,
  };
}

/** Where a turn stands among its sisters, from 0, and who they are. */
export function place(of: Conversation, turn: Turn): { index: number; sisters: Turn[] } {
  const sisters = children(of, turn.parent);
  return { index: sisters.findIndex((sister) => sister.id === turn.id), sisters };
}

/** Shows a turn instead of its sisters. */
export function choose(of: Conversation, turn: Turn): Conversation {
  return { ...of, chosen: { ...of.chosen, [key(turn.parent)]: turn.id } };
}

/** A title from the first question: its first line, cut at a word. */
export function titleOf(text: string): string {
  const line = text.trim().split('\n')[0] ?? '';
  if (line.length <= 48) return line;
  const cut = line.slice(0, 48);
  return `${cut.slice(0, Math.max(cut.lastIndexOf(' '), 24))}…`;
}
