import { useSignal } from '@preact/signals';
import { conversations, currentId, importFile, matching, remove, rename } from '../chat/conversations';
import { exported } from '../chat/transfer';
import type { Conversation } from '../chat/tree';
import { moment, t } from '../i18n';
import { say } from './announce';
import { Confirm } from './dialog';
import { download } from './download';
import { Icon } from './icon';

export const focusSearch = () => document.getElementById('search-conversations')?.focus();

/** The conversations of this browser. */
export function ConversationList({ onNew, onChosen }: { onNew: () => void; onChosen: () => void }) {
  const words = useSignal('');
  const renaming = useSignal<string | null>(null);
  const deleting = useSignal<Conversation | null>(null);
  const all = conversations.value;
  const found = matching(all ?? [], words.value);
  return (
    <aside class="conversations" aria-label={t('conversations')}>
      <button type="button" class="new" onClick={onNew}>
        <Icon name="plus" />
        {t('new-conversation')}
      </button>
      <label class="search">
        <Icon name="search" />
        <span class="unseen">{t('search-conversations')}</span>
        <input
          id="search-conversations"
          type="search"
          placeholder={t('search')}
          value={words.value}
          onInput={(event) => (words.value = event.currentTarget.value)}
        />
      </label>
      <ul>
        {found.map((conversation) => (
          <li key={conversation.id} class={conversation.id === currentId.value ? 'current' : undefined}>
            {renaming.value === conversation.id ? (
              <TitleField of={conversation} onDone={() => (renaming.value = null)} />
            ) : (
              <>
                <button
                  type="button"
                  class="open"
                  aria-current={conversation.id === currentId.value ? 'true' : undefined}
                  onClick={() => {
                    currentId.value = conversation.id;
                    onChosen();
                  }}
                >
                  <span class="title">{conversation.title || t('untitled')}</span>
                  <span class="when">{moment(conversation.updatedAt / 1000)}</span>
                </button>
                <details class="menu" onFocusOut={closeBehind} onKeyDown={closeOnEscape}>
                  <summary aria-label={t('conversation-menu', { title: conversation.title || t('untitled') })}>
                    <Icon name="more" />
                  </summary>
                  <div>
                    <button type="button" onClick={() => (renaming.value = conversation.id)}>
                      {t('rename')}
                    </button>
                    <button type="button" onClick={() => download('conversation.json', exported([conversation]))}>
                      {t('export-one')}
                    </button>
                    <button type="button" onClick={() => (deleting.value = conversation)}>
                      {t('delete')}
                    </button>
                  </div>
                </details>
              </>
            )}
          </li>
        ))}
      </ul>
      {all?.length === 0 && <p class="empty">{t('no-conversations')}</p>}
      {all !== null && all.length > 0 && found.length === 0 && <p class="empty">{t('nothing-found')}</p>}
      <div class="actions">
        <button type="button" class="link" disabled={!all?.length} onClick={() => download('conversations.json', exported(all ?? []))}>
          {t('export-all')}
        </button>
        <ImportButton />
      </div>
      {deleting.value && (
        <Confirm
          title={t('delete-conversation', { title: deleting.value.title || t('untitled') })}
          text={t('cannot-be-undone')}
          verb={t('delete')}
          onYes={() => deleting.value && void remove(deleting.value)}
          onClose={() => (deleting.value = null)}
        />
      )}
    </aside>
  );
}

/** A menu whose focus went elsewhere is closed. */
function closeBehind(event: FocusEvent & { currentTarget: HTMLDetailsElement }) {
  const menu = event.currentTarget;
  if (!(event.relatedTarget instanceof Node && menu.contains(event.relatedTarget))) menu.open = false;
}

function closeOnEscape(event: KeyboardEvent & { currentTarget: HTMLDetailsElement }) {
  if (event.key !== 'Escape' || !event.currentTarget.open) return;
  event.preventDefault();
  event.currentTarget.open = false;
  event.currentTarget.querySelector('summary')?.focus();
}

function TitleField({ of, onDone }: { of: Conversation; onDone: () => void }) {
  return (
    <form
      class="rename"
      onSubmit={(event) => {
        event.preventDefault();
        void rename(of, String(new FormData(event.currentTarget).get('title') ?? ''));
        onDone();
      }}
    >
      <input
        name="title"
        aria-label={t('conversation-title')}
        defaultValue={of.title}
        ref={(input) => input?.focus()}
        onBlur={(event) => event.currentTarget.form?.requestSubmit()}
        onKeyDown={(event) => {
          if (event.key !== 'Escape') return;
          event.preventDefault();
          event.currentTarget.value = of.title;
          event.currentTarget.form?.requestSubmit();
        }}
      />
    </form>
  );
}

function ImportButton() {
  const read = async (input: HTMLInputElement) => {
    const file = input.files?.[0];
    if (!file) return;
    try {
      say(t('imported', { count: await importFile(await file.text()) }));
    } catch {
      say(t('import-failed'));
    }
    input.value = '';
  };
  return (
    <label class="link file">
      {t('import')}
      <input type="file" accept="application/json,.json" onChange={(event) => void read(event.currentTarget)} />
    </label>
  );
}
