import { useSignal } from '@preact/signals';
import { bytes, moment, number, t } from '../i18n';
import { isFlag, isText, kept } from '../kept';
import { Trouble } from '../parts/trouble';
import type { Run } from '../api/runs';
import { Chart, nearest, type Line } from '../training/chart';
import { useCurves, useRuns } from '../training/follow';
import { best, type Curves } from '../training/metrics';
import { smooth } from '../training/smooth';

const chosen = kept('run', '', isText);
const isLogarithmic = kept('run-log', false, isFlag);
const smoothing = kept('run-smoothing', 0.6, (value): value is number => typeof value === 'number' && value >= 0 && value < 1);

/** Seconds without a step after which a run that is not finished counts as stopped. */
const IDLE = 60;

/** Rows of the table that stands for the curves. */
const ROWS = 50;

/** Training runs and their curves, as they grow. */
export function TrainingView() {
  const known = useRuns();
  const { runs, enabled, error } = known.value;
  const run = runs?.find(({ name }) => name === chosen.value) ?? runs?.[0];
  return (
    <div class="sheet training">
      <h1>{t('training')}</h1>
      {error !== null && <Trouble error={error} />}
      {runs === null && error === null && <p class="empty">{t('loading')}</p>}
      {runs !== null && !enabled && <p class="empty">{t('runs-off')}</p>}
      {runs?.length === 0 && enabled && <p class="empty">{t('no-runs')}</p>}
      {runs && run && (
        <div class="columns">
          <nav class="runs" aria-label={t('runs')}>
            <ul>
              {runs.map((each) => (
                <li key={each.name}>
                  <button
                    type="button"
                    aria-current={each.name === run.name ? 'true' : undefined}
                    onClick={() => (chosen.value = each.name)}
                  >
                    <span class="title">{each.name}</span>
                    <span class="facts">
                      <State of={each} /> · {moment(each.modified_at)} · {bytes(each.bytes)}
                    </span>
                  </button>
                </li>
              ))}
            </ul>
          </nav>
          <RunView key={run.name} run={run} />
        </div>
      )}
    </div>
  );
}

function State({ of }: { of: Run }) {
  const state = of.finished ? 'finished' : Date.now() / 1000 - of.modified_at < IDLE ? 'active' : 'idle';
  return <span class={`state ${state}`}>{t(`run-${state}`)}</span>;
}

const writeLoss = (value: number) => number(value, value < 0.1 ? 4 : 3);
const writeRate = (value: number) => (value === 0 ? '0' : value.toExponential(1).replace('e-', 'e−').replace('e+', 'e'));

function RunView({ run }: { run: Run }) {
  const curves = useCurves(run.name).value;
  const showsTable = useSignal(false);
  if (curves === null) return <p class="empty">{t('loading')}</p>;
  const { training, validation, rate, speed } = curves;
  const last = training.at(-1);
  const lowest = best(validation);
  const smoothed = smooth(training, smoothing.value);
  const losses: Line[] = [
    { name: t('training-loss'), tone: 'a', points: smoothed, ...(smoothing.value > 0 ? { faint: training } : {}) },
    ...(validation.length > 0 ? [{ name: t('validation-loss'), tone: 'b' as const, points: validation }] : []),
  ];
  return (
    <section class="run" aria-labelledby="run-title">
      <header>
        <h2 id="run-title">{run.name}</h2>
        <State of={run} />
      </header>
      <p class="latest" data-step={last?.step ?? 0}>
        {last ? t('latest-step', { step: number(last.step), loss: writeLoss(last.value) }) : t('waiting-for-steps')}
        {lowest && ` · ${t('best-validation', { loss: writeLoss(lowest.value), step: number(lowest.step) })}`}
        {speed !== null && ` · ${t('tokens-a-second', { count: number(speed) })}`}
      </p>
      <div class="row controls">
        <label class="check">
          <input type="checkbox" checked={isLogarithmic.value} onChange={(event) => (isLogarithmic.value = event.currentTarget.checked)} />
          {t('log-axis')}
        </label>
        <label class="slider">
          {t('smoothing')}
          <input
            type="range"
            min={0}
            max={0.99}
            step={0.01}
            value={smoothing.value}
            onInput={(event) => (smoothing.value = event.currentTarget.valueAsNumber)}
          />
          <output>{number(smoothing.value, 2)}</output>
        </label>
      </div>
      {last && (
        <>
          <figure>
            <figcaption>
              {t('loss-in-nats')}
              {losses.map((line) => (
                <span key={line.name} class={`key tone-${line.tone}`}>
                  {line.name}
                </span>
              ))}
            </figcaption>
            <Chart label={t('curve-of', { name: run.name })} lines={losses} isLogarithmic={isLogarithmic.value} height={320} write={writeLoss} />
          </figure>
          <figure>
            <figcaption>{t('learning-rate')}</figcaption>
            <Chart
              label={`${t('learning-rate')}: ${run.name}`}
              lines={[{ name: t('learning-rate'), tone: 'c', points: rate }]}
              isLogarithmic={false}
              height={130}
              write={writeRate}
            />
          </figure>
          <details open={showsTable.value} onToggle={(event) => (showsTable.value = event.currentTarget.open)}>
            <summary>{t('values-as-table')}</summary>
            {showsTable.value && <Values of={curves} />}
          </details>
        </>
      )}
    </section>
  );
}

/** The curves for those who do not see them: some of the steps, and every one that was validated. */
function Values({ of: { training, validation, rate } }: { of: Curves }) {
  const gap = Math.max(1, Math.ceil(training.length / ROWS));
  const measured = new Map(validation.map(({ step, value }) => [step, value]));
  const rows = training.filter(({ step }, i) => i % gap === 0 || i === training.length - 1 || measured.has(step));
  return (
    <div class="table" tabIndex={0} role="region" aria-label={t('values-as-table')}>
      <table>
        <thead>
          <tr>
            {(['step', 'training-loss', 'validation-loss', 'learning-rate'] as const).map((word) => (
              <th key={word} scope="col" class="align-right">
                {t(word)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map(({ step, value }) => (
            <tr key={step}>
              <th scope="row" class="align-right">
                {number(step)}
              </th>
              <td class="align-right">{writeLoss(value)}</td>
              <td class="align-right">{measured.has(step) ? writeLoss(measured.get(step) ?? NaN) : ''}</td>
              <td class="align-right">{writeRate(nearest(rate, step)?.value ?? 0)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
