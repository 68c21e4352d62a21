import type { Signal } from '@preact/signals';
import { useEffect, useRef, useState } from 'preact/hooks';
import { again, live, say as ask } from '../chat/answer';
import { update } from '../chat/conversations';
import { speedOf } from '../chat/speed';
import { choose, place, type Conversation, type Turn } from '../chat/tree';
import { number, t } from '../i18n';
import { Markdown } from '../markdown/view';
import { showsProbabilities } from '../settings';
import { CopyButton } from './copy';
import { Icon, type IconName } from './icon';
import { short } from './model_picker';
import { Pictures } from './pictures';
import { Probabilities } from './probabilities';
import { kept, Trouble } from './trouble';

interface TurnProperties {
  conversation: Conversation;
  turn: Turn;
  isWriting: boolean;
  /** The id of the turn that is being edited. */
  editing: Signal<string | null>;
}

/** One turn with what can be done with it. */
export function TurnView(properties: TurnProperties) {
  const { turn, editing } = properties;
  const name = turn.role === 'user' ? t('you-said') : t('assistant-said', { model: short(turn.model ?? '') || t('assistant') });
  return (
    <article class={`turn ${turn.role}`} aria-label={name}>
      {turn.role === 'assistant' ? (
        <Answer {...properties} />
      ) : editing.value === turn.id ? (
        <Editor turn={turn} onDone={() => (editing.value = null)} />
      ) : (
        <Question {...properties} />
      )}
    </article>
  );
}

function Question({ conversation, turn, editing }: TurnProperties) {
  return (
    <>
      <Pictures of={turn.pictures ?? []} />
      <div class="said">{turn.text}</div>
      <div class="deeds">
        <Versions conversation={conversation} turn={turn} />
        <Deed icon="pen" label={t('edit')} onClick={() => (editing.value = turn.id)} />
        <CopyButton text={turn.text} />
      </div>
    </>
  );
}

/** A question that is written anew: the old one stays beside it. */
function Editor({ turn, onDone }: { turn: Turn; onDone: () => void }) {
  const field = useRef<HTMLTextAreaElement>(null);
  const [text, setText] = useState(turn.text);
  useEffect(() => {
    field.current?.focus();
    field.current?.setSelectionRange(turn.text.length, turn.text.length);
  }, []);
  const save = () => {
    if (text.trim() === '' || live.value) return;
    onDone();
    void ask(text.trim(), turn.pictures ?? [], turn.parent);
  };
  return (
    <form
      class="editor"
      onSubmit={(event) => {
        event.preventDefault();
        save();
      }}
      onKeyDown={(event) => {
        if (event.key === 'Escape') {
          event.preventDefault();
          onDone();
        } else if (event.key === 'Enter' && !event.shiftKey && !event.isComposing && event.target === field.current) {
          event.preventDefault();
          save();
        }
      }}
    >
      <textarea
        ref={field}
        aria-label={t('edit-message')}
        rows={Math.min(10, text.split('\n').length + 1)}
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
      />
      <div class="actions end">
        <button type="button" onClick={onDone}>
          {t('cancel')}
        </button>
        <button type="submit" class="primary" disabled={text.trim() === '' || live.value !== null}>
          {t('save-and-send')}
        </button>
      </div>
    </form>
  );
}

function Answer({ conversation, turn, isWriting }: TurnProperties) {
  const isEmpty = turn.text === '' && !turn.thinking && !turn.toolCalls;
  return (
    <>
      {turn.thinking && <Thoughts text={turn.thinking} isOpen={isWriting && turn.text === ''} />}
      {isEmpty && isWriting && (
        <p class="waiting">
          <span class="unseen">{t('answering')}</span>
          <i aria-hidden="true" />
          <i aria-hidden="true" />
          <i aria-hidden="true" />
        </p>
      )}
      {showsProbabilities.value && turn.tokens ? <Probabilities tokens={turn.tokens} /> : <Markdown text={turn.text} />}
      {turn.toolCalls?.map((call, i) => (
        <details key={i} class="call">
          <summary>
            <Icon name="tool" />
            {t('tool-call', { name: call.name })}
          </summary>
          <pre tabIndex={0}>{call.arguments}</pre>
        </details>
      ))}
      {turn.warnings?.map((warning) => (
        <p key={warning} class="note">
          <strong>{t('warning')}:</strong> {warning}
        </p>
      ))}
      {turn.finish === 'length' && <p class="note">{t('cut-off')}</p>}
      {turn.finish === 'cancelled' && <p class="aside">{t('answer-stopped')}</p>}
      {turn.error && <Trouble error={kept(turn.error)} onRetry={live.value ? undefined : () => void again(turn)} />}
      {!isWriting && (
        <div class="deeds">
          <Versions conversation={conversation} turn={turn} />
          <CopyButton text={turn.text} />
          <Deed icon="again" label={t('regenerate')} onClick={() => void again(turn)} isOff={live.value !== null} />
          <Facts turn={turn} />
        </div>
      )}
      {!isWriting && showsProbabilities.value && !turn.tokens && !turn.error && <p class="aside">{t('no-probabilities')}</p>}
    </>
  );
}

function Thoughts({ text, isOpen }: { text: string; isOpen: boolean }) {
  return (
    <details class="thoughts" open={isOpen}>
      <summary>{t(isOpen ? 'thinking' : 'thought')}</summary>
      <div>{text}</div>
    </details>
  );
}

/** How fast and how much. */
function Facts({ turn }: { turn: Turn }) {
  const speed = speedOf(turn);
  const { usage, timing } = turn;
  const facts = [
    speed !== null && t('tokens-per-second', { speed: number(speed, speed < 10 ? 1 : 0) }),
    usage && t('tokens-written', { count: number(usage.completion) }),
    timing && t('first-token', { seconds: number(timing.first / 1000, 2) }),
    usage && usage.cached > 0 && t('cached-tokens', { count: number(usage.cached), total: number(usage.prompt) }),
  ];
  return <span class="facts">{facts.filter(Boolean).join(' · ')}</span>;
}

function Versions({ conversation, turn }: { conversation: Conversation; turn: Turn }) {
  const { index, sisters } = place(conversation, turn);
  if (sisters.length < 2) return null;
  const turnTo = (sister: Turn | undefined) => sister && void update(choose(conversation, sister));
  const isBusy = live.value !== null;
  return (
    <span class="versions" role="group" aria-label={t('version-of', { index: index + 1, count: sisters.length })}>
      <Deed icon="left" label={t('previous-version')} onClick={() => turnTo(sisters[index - 1])} isOff={isBusy || index === 0} />
      <span aria-hidden="true">
        {index + 1} / {sisters.length}
      </span>
      <Deed icon="right" label={t('next-version')} onClick={() => turnTo(sisters[index + 1])} isOff={isBusy || index === sisters.length - 1} />
    </span>
  );
}

const Deed = (properties: { icon: IconName; label: string; onClick: () => void; isOff?: boolean }) => (
  <button
    type="button"
    class="quiet small"
    aria-label={properties.label}
    title={properties.label}
    disabled={properties.isOff ?? false}
    onClick={properties.onClick}
  >
    <Icon name={properties.icon} />
  </button>
);
