import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { live, stop } from '../chat/answer';
import { current, currentId, notKept } from '../chat/conversations';
import { t } from '../i18n';
import { isFlag, kept } from '../kept';
import { Composer, focusComposer } from '../parts/composer';
import { ConversationList, focusSearch } from '../parts/conversation_list';
import { ContextMeter } from '../parts/context_meter';
import { Icon } from '../parts/icon';
import { ModelPicker } from '../parts/model_picker';
import { Options } from '../parts/options';
import { Thread } from '../parts/thread';
import { showsProbabilities } from '../settings';

const showsList = kept('list', true, isFlag);
const showsOptions = kept('options', false, isFlag);

/** On a narrow page lists lie above the conversation and begin closed. */
const isNarrow = () => matchMedia('(max-width: 860px)').matches;

/** Talking with a model. */
export function ChatView() {
  const editing = useSignal<string | null>(null);
  useEffect(() => {
    if (isNarrow()) {
      showsList.value = false;
      showsOptions.value = false;
    }
    const onKey = (event: KeyboardEvent) => {
      const control = event.ctrlKey || event.metaKey;
      const key = event.key.toLowerCase();
      if (event.key === 'Escape' && live.value && !event.defaultPrevented && !document.querySelector('dialog[open]')) stop();
      else if (control && event.shiftKey && key === 'o') begin();
      else if (control && event.shiftKey && key === 'f') {
        showsList.value = true;
        requestAnimationFrame(focusSearch);
      } else if (event.altKey && key === 'm') focusComposer();
      else if (event.altKey && event.key === 'ArrowUp') {
        editing.value = 'last';
      } else return;
      if (event.key !== 'Escape') event.preventDefault();
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, []);
  const title = current.value?.title || t('new-conversation');
  return (
    <div class={`chat${showsList.value ? ' with-list' : ''}${showsOptions.value ? ' with-options' : ''}`}>
      {showsList.value && (
        <ConversationList
          onNew={begin}
          onChosen={() => {
            if (isNarrow()) showsList.value = false;
          }}
        />
      )}
      <section class="talk" aria-labelledby="talk-title">
        <h1 id="talk-title" class="unseen">
          {title}
        </h1>
        <div class="bar">
          <Toggle
            icon="panel"
            label={t(showsList.value ? 'hide-conversations' : 'show-conversations')}
            isOn={showsList.value}
            onClick={() => {
              showsList.value = !showsList.value;
              if (isNarrow()) showsOptions.value = false;
            }}
          />
          <ModelPicker />
          <span class="space" />
          <ContextMeter />
          <Toggle
            icon="tint"
            label={t('probabilities')}
            isOn={showsProbabilities.value}
            isPressed
            onClick={() => {
              showsProbabilities.value = !showsProbabilities.value;
            }}
          />
          <Toggle
            icon="sliders"
            label={t(showsOptions.value ? 'hide-options' : 'show-options')}
            isOn={showsOptions.value}
            onClick={() => {
              showsOptions.value = !showsOptions.value;
              if (isNarrow()) showsList.value = false;
            }}
          />
        </div>
        {notKept.value && (
          <p class="note" role="alert">
            {t('not-kept', { reason: notKept.value })}
          </p>
        )}
        <Thread editing={editing} />
        <Composer />
      </section>
      {showsOptions.value && <Options onClose={() => (showsOptions.value = false)} />}
    </div>
  );
}

function begin() {
  currentId.value = '';
  if (isNarrow()) showsList.value = false;
  requestAnimationFrame(focusComposer);
}

interface ToggleProperties {
  icon: 'panel' | 'tint' | 'sliders';
  label: string;
  isOn: boolean;
  /** Whether it is a switch; otherwise it opens and closes something. */
  isPressed?: boolean;
  onClick: () => void;
}

const Toggle = ({ icon, label, isOn, isPressed = false, onClick }: ToggleProperties) => (
  <button
    type="button"
    class={`quiet${isOn ? ' on' : ''}`}
    aria-label={label}
    title={label}
    {...(isPressed ? { 'aria-pressed': isOn } : { 'aria-expanded': isOn })}
    onClick={onClick}
  >
    <Icon name={icon} />
  </button>
);
