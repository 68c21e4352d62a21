import { useSignal, type Signal } from '@preact/signals';
import type { Token } from '../api/chat';
import { complete, echo } from '../api/playground';
import { model } from '../chat/conversations';
import { number, t } from '../i18n';
import { ModelField } from './model_field';
import { Probabilities } from './probabilities';
import { Trouble } from './trouble';
import { useDoing, type Doing } from './doing';

/** How many alternatives of each token are asked for: the most that the API has. */
const ALTERNATIVES = 5;

/** What follows a text, with the probability of each token. */
export function CompletionBench() {
  const prompt = useSignal('');
  const limit = useSignal(64);
  const temperature = useSignal(1);
  const echoes = useSignal(false);
  const tokens = useSignal<Token[]>([]);
  const doing = useDoing();
  const run = () =>
    doing.begin(async (signal) => {
      tokens.value = [];
      const fields = {
        model: model.value, prompt: prompt.value || t('prompt-placeholder'), max_tokens: limit.value,
        temperature: temperature.value, logprobs: ALTERNATIVES,
      };
      if (echoes.value) {
        tokens.value = (await echo(fields, signal)).tokens;
        return;
      }
      for await (const piece of complete(fields, signal)) tokens.value = [...tokens.value, ...piece.tokens];
    });
  const mean = tokens.value.reduce((sum, token) => sum + token.logprob, 0) / Math.max(1, tokens.value.length);
  return (
    <Bench doing={doing} onRun={run} verb={t('complete')} capability="completion">
      <label>
        {t('prompt')}
        <textarea rows={5} placeholder={t('prompt-placeholder')} value={prompt.value} onInput={(event) => (prompt.value = event.currentTarget.value)} />
      </label>
      <div class="fields wide">
        <NumberField label={t('max_tokens')} value={limit} min={echoes.value ? 0 : 1} max={4096} step={1} />
        <NumberField label={t('temperature')} value={temperature} min={0} max={2} step={0.05} />
        <label class="check">
          <input type="checkbox" checked={echoes.value} onChange={(event) => (echoes.value = event.currentTarget.checked)} />
          {t('echo-prompt')}
        </label>
      </div>
      {tokens.value.length > 0 && (
        <section class="result" aria-label={t('result')}>
          <Probabilities tokens={tokens.value} />
          <p class="facts">{t('mean-logprob', { value: number(mean, 3), perplexity: number(Math.exp(-mean), 2) })}</p>
        </section>
      )}
    </Bench>
  );
}

/** What lies between two texts. */
export function FillInBench() {
  const before = useSignal('def mean(numbers):\n    ');
  const after = useSignal('\n    return total / len(numbers)\n');
  const limit = useSignal(64);
  const text = useSignal('');
  const doing = useDoing();
  const run = () =>
    doing.begin(async (signal) => {
      text.value = '';
      const fields = { model: model.value, prompt: before.value, suffix: after.value, max_tokens: limit.value, temperature: 0 };
      for await (const piece of complete(fields, signal)) text.value += piece.text;
    });
  return (
    <Bench doing={doing} onRun={run} verb={t('fill')} capability="completion">
      <label>
        {t('before-gap')}
        <textarea class="mono" rows={5} value={before.value} onInput={(event) => (before.value = event.currentTarget.value)} />
      </label>
      <label>
        {t('after-gap')}
        <textarea class="mono" rows={4} value={after.value} onInput={(event) => (after.value = event.currentTarget.value)} />
      </label>
      <div class="fields wide">
        <NumberField label={t('max_tokens')} value={limit} min={1} max={4096} step={1} />
      </div>
      {text.value !== '' && (
        <section class="result" aria-label={t('result')}>
          <pre class="filled" tabIndex={0}>
            {before.value}
            <mark>{text.value}</mark>
            {after.value}
          </pre>
        </section>
      )}
    </Bench>
  );
}

interface BenchProperties {
  doing: Doing;
  onRun: () => Promise<void>;
  verb: string;
  capability: string;
  children: preact.ComponentChildren;
}

/** The frame of what is tried on the model of the chat: the model, a button that runs and stops, what went wrong. */
function Bench({ doing, onRun, verb, capability, children }: BenchProperties) {
  const [fields, result] = Array.isArray(children) ? [children.slice(0, -1), children.at(-1)] : [children, null];
  return (
    <form
      class="bench"
      onSubmit={(event) => {
        event.preventDefault();
        void onRun();
      }}
    >
      <ModelField value={model} what={capability} />
      {fields}
      <div class="actions">
        {doing.isBusy.value ? (
          <button type="button" onClick={doing.stop}>
            {t('stop')}
          </button>
        ) : (
          <button type="submit" class="primary" disabled={model.value === ''}>
            {verb}
          </button>
        )}
      </div>
      {doing.error.value !== null && <Trouble error={doing.error.value} onRetry={() => void onRun()} />}
      {result}
    </form>
  );
}

interface NumberProperties {
  label: string;
  value: Signal<number>;
  min: number;
  max: number;
  step: number;
}

const NumberField = ({ label, value, min, max, step }: NumberProperties) => (
  <label>
    <span>{label}</span>
    <input
      type="number"
      min={min}
      max={max}
      step={step}
      required
      value={value.value}
      onChange={(event) => {
        if (event.currentTarget.reportValidity()) value.value = event.currentTarget.valueAsNumber;
      }}
    />
  </label>
);
