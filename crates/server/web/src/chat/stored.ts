import type { Conversation } from './tree';

/** The conversations of this browser: the database `rhetor`, the store `conversations`. */
let opening: Promise<IDBDatabase> | null = null;

function database(): Promise<IDBDatabase> {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open('rhetor', 1);
    request.onupgradeneeded = () => request.result.createObjectStore('conversations', { keyPath: 'id' });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error('indexedDB'));
  });
  return opening;
}

async function within<T>(mode: IDBTransactionMode, work: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const transaction = (await database()).transaction('conversations', mode);
  const request = work(transaction.objectStore('conversations'));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error ?? new Error('indexedDB'));
  });
}

/** All conversations, the latest first. */
export async function all(): Promise<Conversation[]> {
  const found = await within<Conversation[]>('readonly', (store) => store.getAll());
  return found.sort((a, b) => b.updatedAt - a.updatedAt);
}

export const keep = (conversation: Conversation): Promise<IDBValidKey> =>
  within('readwrite', (store) => store.put(conversation));

export const forget = (id: string): Promise<undefined> =>
  within('readwrite', (store) => store.delete(id) as IDBRequest<undefined>);
