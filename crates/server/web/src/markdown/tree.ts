/** A piece of running text. */
export type Inline =
  | { kind: 'text'; text: string }
  | { kind: 'code'; text: string }
  | { kind: 'math'; text: string }
  | { kind: 'strong' | 'emphasis' | 'deleted'; children: Inline[] }
  | { kind: 'link'; href: string; children: Inline[] }
  | { kind: 'picture'; text: string }
  | { kind: 'break' };

export type Alignment = 'left' | 'center' | 'right' | null;

/** One block of a text. `text` of headings and paragraphs is still to be read as running text. */
export type Block =
  | { kind: 'heading'; level: number; text: string }
  | { kind: 'paragraph'; text: string }
  | { kind: 'code'; language: string; text: string }
  | { kind: 'math'; text: string }
  | { kind: 'quote'; children: Block[] }
  | { kind: 'list'; start: number | null; items: Item[] }
  | { kind: 'table'; alignments: Alignment[]; head: string[]; rows: string[][] }
  | { kind: 'rule' };

/** An item of a list; `done` of those with a box. */
export interface Item {
  done: boolean | null;
  children: Block[];
}
