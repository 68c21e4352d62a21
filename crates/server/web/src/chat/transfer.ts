import { isRecord } from '../kept';
import { samplingOf } from './sampling';
import type { Conversation, Turn } from './tree';

/** The mark of a file of conversations. */
const FORMAT = 'rhetor-conversations-1';

export const exported = (conversations: Conversation[]): string =>
  JSON.stringify({ format: FORMAT, conversations }, null, 1);

const text = (value: unknown, otherwise = '') => (typeof value === 'string' ? value : otherwise);
const time = (value: unknown) => (typeof value === 'number' && Number.isFinite(value) ? value : Date.now());

/** Only pictures that need no network. */
const isPicture = (value: unknown): value is string =>
  typeof value === 'string' && /^data:image\/(png|jpeg|webp|gif);base64,/.test(value);

function turnOf(value: unknown): Turn | null {
  if (!isRecord(value) || !text(value['id'])) return null;
  const { role, parent } = value;
  if (role !== 'user' && role !== 'assistant') return null;
  const pictures = Array.isArray(value['pictures']) ? value['pictures'].filter(isPicture) : [];
  return {
    id: text(value['id']),
    parent: typeof parent === 'string' ? parent : null,
    role,
    text: text(value['text']),
    createdAt: time(value['createdAt']),
    ...(pictures.length > 0 ? { pictures } : {}),
    ...(text(value['thinking']) ? { thinking: text(value['thinking']) } : {}),
    ...(text(value['model']) ? { model: text(value['model']) } : {}),
    ...(text(value['finish']) ? { finish: text(value['finish']) } : {}),
  };
}

/**
 * The conversations of a file. The file may come from anywhere: what is not understood is left out, and each
 * conversation gets a name of its own, so that none takes the place of another. Throws if it is no such file.
 */
export function imported(file: string, newId: () => string): Conversation[] {
  const body: unknown = JSON.parse(file);
  if (!isRecord(body) || body['format'] !== FORMAT || !Array.isArray(body['conversations'])) {
    throw new Error(FORMAT);
  }
  return body['conversations'].filter(isRecord).map((value) => {
    const found = Object.values(isRecord(value['turns']) ? value['turns'] : {}).map(turnOf);
    const turns = Object.fromEntries(found.filter((turn) => turn !== null).map((turn) => [turn.id, turn]));
    const chosen = Object.entries(isRecord(value['chosen']) ? value['chosen'] : {});
    return {
      id: newId(),
      title: text(value['title']),
      createdAt: time(value['createdAt']),
      updatedAt: time(value['updatedAt']),
      model: text(value['model']),
      system: text(value['system']),
      sampling: samplingOf(value['sampling']),
      turns,
      chosen: Object.fromEntries(chosen.filter(([, id]) => typeof id === 'string' && id in turns)) as Record<string, string>,
    };
  });
}
