import { useSignal } from '@preact/signals';
import { tokenize, type Piece } from '../api/playground';
import { model } from '../chat/conversations';
import { number, t } from '../i18n';
import { ModelField } from './model_field';
import { Trouble } from './trouble';
import { useDoing } from './doing';

const SAMPLE = 'Tokens are pieces of words: unbelievable, 12345, 臺灣, 🙂.';

/** A token as it is shown: bytes that are no text stand in hex. */
const shown = ({ piece }: Piece): string =>
  typeof piece === 'string' ? piece : piece.map((byte) => `⟨${byte.toString(16).padStart(2, '0')}⟩`).join('');

/** Into which tokens a text is cut. */
export function TokenizerBench() {
  const text = useSignal(SAMPLE);
  const found = useSignal<{ pieces: Piece[]; characters: number } | null>(null);
  const doing = useDoing();
  const run = () =>
    doing.begin(async (signal) => {
      found.value = { pieces: await tokenize(model.value, text.value, signal), characters: [...text.value].length };
    });
  const pieces = found.value?.pieces ?? [];
  return (
    <form
      class="bench"
      onSubmit={(event) => {
        event.preventDefault();
        void run();
      }}
    >
      <ModelField value={model} what="any" />
      <label>
        {t('text')}
        <textarea rows={4} value={text.value} onInput={(event) => (text.value = event.currentTarget.value)} />
      </label>
      <div class="actions">
        <button type="submit" class="primary" disabled={doing.isBusy.value || model.value === '' || text.value === ''}>
          {t('tokenize')}
        </button>
      </div>
      {doing.error.value !== null && <Trouble error={doing.error.value} onRetry={() => void run()} />}
      {found.value && (
        <section class="result" aria-label={t('result')}>
          <ol class="pieces">
            {pieces.map((piece, i) => (
              <li key={i} title={t('token-id', { id: piece.id })}>
                <span>{shown(piece)}</span>
                <small>{piece.id}</small>
              </li>
            ))}
          </ol>
          <p class="facts">
            {t('token-count', {
              count: number(pieces.length),
              characters: number(found.value.characters),
              ratio: number(found.value.characters / Math.max(1, pieces.length), 2),
            })}
          </p>
        </section>
      )}
    </form>
  );
}
