import type { Signal } from '@preact/signals';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { live, say as ask } from '../chat/answer';
import { conversations, current, model } from '../chat/conversations';
import { path } from '../chat/tree';
import { t } from '../i18n';
import { models, problem, refresh } from '../models';
import { say } from './announce';
import { Icon } from './icon';
import { Trouble } from './trouble';
import { TurnView } from './turn';

/** Milliseconds between two pieces of an answer that screen readers are told. */
const TELLING = 4000;

/** The turns of the conversation that is shown. */
export function Thread({ editing }: { editing: Signal<string | null> }) {
  const conversation = current.value;
  const place = useRef<HTMLDivElement>(null);
  const [isAtEnd, setAtEnd] = useState(true);
  const turns = conversation ? path(conversation) : [];
  const writing = live.value && live.value.conversation === conversation?.id ? live.value.turn : null;
  const last = turns.findLast((turn) => turn.role === 'user')?.id;
  const toEnd = () => {
    setAtEnd(true);
    if (place.current) place.current.scrollTop = place.current.scrollHeight;
  };
  useEffect(() => {
    if (editing.value === 'last') editing.value = last ?? null;
  }, [editing.value]);
  // The end stays in sight while an answer grows, unless the reader went elsewhere.
  useLayoutEffect(() => {
    if (isAtEnd && place.current) place.current.scrollTop = place.current.scrollHeight;
  }, [writing, turns.length, conversation?.id]);
  useLayoutEffect(() => toEnd(), [last, conversation?.id]);
  useTelling(writing?.text ?? null, writing?.id ?? null);
  return (
    <div
      class="thread"
      ref={place}
      role="region"
      aria-label={t('thread-label')}
      tabIndex={0}
      onScroll={(event) => {
        const { scrollHeight, scrollTop, clientHeight } = event.currentTarget;
        setAtEnd(scrollHeight - scrollTop - clientHeight < 48);
      }}
    >
      <div class="turns">
        {conversations.value !== null && turns.length === 0 && <Greeting />}
        {conversation &&
          turns.map((turn) => (
            <TurnView
              key={turn.id}
              conversation={conversation}
              turn={writing?.id === turn.id ? writing : turn}
              isWriting={writing?.id === turn.id}
              editing={editing}
            />
          ))}
      </div>
      {!isAtEnd && (
        <button type="button" class="round to-end" onClick={toEnd} aria-label={t('scroll-down')} title={t('scroll-down')}>
          <Icon name="down" />
        </button>
      )}
    </div>
  );
}

/** Tells screen readers an answer in whole sentences, not more often than they can follow. */
function useTelling(text: string | null, id: string | null) {
  const told = useRef({ id: '', end: 0, at: 0 });
  useEffect(() => {
    const state = told.current;
    if (id === null) {
      if (state.id !== '') say(t('answer-finished'));
      told.current = { id: '', end: 0, at: 0 };
      return;
    }
    if (state.id !== id) {
      told.current = { id, end: 0, at: performance.now() };
      say(t('answering'));
      return;
    }
    if (performance.now() - state.at < TELLING || text === null) return;
    const piece = /^[\s\S]*[.!?。！？\n]/.exec(text.slice(state.end))?.[0];
    if (!piece) return;
    told.current = { id, end: state.end + piece.length, at: performance.now() };
    say(piece.trim());
  }, [text, id]);
}

function Greeting() {
  const isReady = model.value !== '' && (models.value?.length ?? 0) > 0;
  return (
    <div class="greeting">
      <h2>{t('greeting-title')}</h2>
      <p>{t('greeting-text')}</p>
      {problem.value !== null && <Trouble error={problem.value} onRetry={() => void refresh()} />}
      {models.value?.length === 0 && problem.value === null && <p class="note">{t('no-models')}</p>}
      {isReady && (
        <ul>
          {(['suggestion1', 'suggestion2', 'suggestion3'] as const).map((word) => (
            <li key={word}>
              <button type="button" onClick={() => void ask(t(word), [], null)}>
                {t(word)}
              </button>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
