import { useSignal } from '@preact/signals';
import { useLayoutEffect, useRef } from 'preact/hooks';
import { live, say, stop } from '../chat/answer';
import { current, model } from '../chat/conversations';
import { path } from '../chat/tree';
import { t } from '../i18n';
import { can } from '../models';
import { say as announce } from './announce';
import { Icon } from './icon';
import { dataUrl, Pictures } from './pictures';

export const focusComposer = () => document.getElementById('message')?.focus();

/** Where messages are written. */
export function Composer() {
  const text = useSignal('');
  const pictures = useSignal<string[]>([]);
  const field = useRef<HTMLTextAreaElement>(null);
  const sees = can(model.value, 'vision');
  const isBusy = live.value !== null;
  const isReady = model.value !== '' && (text.value.trim() !== '' || pictures.value.length > 0);
  useLayoutEffect(() => {
    const element = field.current;
    if (!element) return;
    element.style.height = 'auto';
    element.style.height = `${Math.min(element.scrollHeight, 240)}px`;
  }, [text.value]);
  const add = async (files: Iterable<File>) => {
    const images = [...files].filter((file) => file.type.startsWith('image/'));
    if (images.length === 0) return;
    if (!sees) announce(t('no-vision'));
    else pictures.value = [...pictures.value, ...(await Promise.all(images.map(dataUrl)))];
  };
  const send = () => {
    if (isBusy || !isReady) return;
    const last = current.value ? path(current.value).at(-1) : undefined;
    void say(text.value.trim(), pictures.value, last?.id ?? null);
    text.value = '';
    pictures.value = [];
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        void add(event.dataTransfer?.files ?? []);
      }}
    >
      <Pictures of={pictures.value} onRemove={(gone) => (pictures.value = pictures.value.filter((_, i) => i !== gone))} />
      <label class="unseen" for="message">
        {t('message')}
      </label>
      <textarea
        id="message"
        ref={field}
        rows={1}
        placeholder={t('message-placeholder')}
        value={text.value}
        onInput={(event) => (text.value = event.currentTarget.value)}
        onKeyDown={(event) => {
          // Enter ends the input of a Chinese word, too: that one is not for us.
          if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
          event.preventDefault();
          send();
        }}
        onPaste={(event) => {
          const files = [...(event.clipboardData?.files ?? [])];
          if (files.some((file) => file.type.startsWith('image/'))) event.preventDefault();
          void add(files);
        }}
      />
      <div class="row">
        {sees && (
          <label class="quiet file button" title={t('add-picture')}>
            <Icon name="picture" />
            <span class="unseen">{t('add-picture')}</span>
            <input
              type="file"
              accept="image/png,image/jpeg,image/webp"
              multiple
              onChange={(event) => {
                void add(event.currentTarget.files ?? []);
                event.currentTarget.value = '';
              }}
            />
          </label>
        )}
        <span class="space" />
        {isBusy ? (
          <button type="button" class="round" onClick={stop} aria-label={t('stop')} title={`${t('stop')} (Esc)`}>
            <Icon name="stop" />
          </button>
        ) : (
          <button type="submit" class="round primary" disabled={!isReady} aria-label={t('send')} title={t('send')}>
            <Icon name="send" />
          </button>
        )}
      </div>
    </form>
  );
}
