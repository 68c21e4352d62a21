import { useEffect, useId, useRef, useState } from 'preact/hooks';
import { number, t } from '../i18n';
import { linear, logarithmic, type Axis } from './axis';
import type { Point } from './metrics';
import { thin } from './smooth';

/** One line of a chart; `faint` is the line before it was smoothed. */
export interface Line {
  name: string;
  tone: 'a' | 'b' | 'c';
  points: Point[];
  faint?: Point[];
}

interface ChartProperties {
  label: string;
  lines: Line[];
  isLogarithmic: boolean;
  height: number;
  /** How a value is written. */
  write: (value: number) => string;
}

const LEFT = 62;
const RIGHT = 14;
const TOP = 12;
const BOTTOM = 26;

/** Points of a line in the picture: more than the eye can tell apart are thinned out. */
const MOST = 900;

/** Lines over steps, with the values at the step that is pointed at. */
export function Chart({ label, lines, isLogarithmic, height, write }: ChartProperties) {
  const [width, setWidth] = useState(720);
  const [at, setAt] = useState<number | null>(null);
  const place = useRef<HTMLDivElement>(null);
  const hint = useId();
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const observer = new ResizeObserver(([entry]) => entry && setWidth(Math.max(260, entry.contentRect.width)));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const values = lines.flatMap((line) => [...line.points, ...(line.faint ?? [])].map((point) => point.value));
  const steps = lines.flatMap((line) => [line.points[0]?.step ?? 0, line.points.at(-1)?.step ?? 0]);
  const y = (isLogarithmic ? logarithmic : linear)(values, height > 200 ? 5 : 2);
  const last = Math.max(1, ...steps);
  const x: Axis = linear([0, last], width > 500 ? 8 : 4);
  const left = (step: number) => LEFT + ((width - LEFT - RIGHT) * step) / last;
  const top = (value: number) => TOP + (height - TOP - BOTTOM) * (1 - y.place(value));
  const path = (points: Point[]) => {
    let isDown = false;
    return thin(points, MOST)
      .map(({ step, value }) => {
        const isThere = Number.isFinite(value);
        const piece = isThere ? `${isDown ? 'L' : 'M'}${left(step).toFixed(1)} ${top(value).toFixed(1)}` : '';
        isDown = isThere;
        return piece;
      })
      .join('');
  };
  const all = lines[0]?.points ?? [];
  const move = (by: number) => {
    const now = at === null ? all.length - 1 : all.findIndex((point) => point.step >= at);
    setAt(all[Math.max(0, Math.min(all.length - 1, now + by))]?.step ?? null);
  };
  const told = lines.flatMap(({ name, tone, points }) => {
    const point = at === null ? undefined : nearest(points, at);
    return point ? [{ name, tone, point }] : [];
  });
  return (
    <div
      class="chart"
      ref={place}
      tabIndex={0}
      role="group"
      aria-label={label}
      aria-describedby={hint}
      onMouseMove={(event) => {
        const box = event.currentTarget.getBoundingClientRect();
        const step = ((event.clientX - box.left - LEFT) / (width - LEFT - RIGHT)) * last;
        setAt(nearest(all, step)?.step ?? null);
      }}
      onMouseLeave={() => setAt(null)}
      onBlur={() => setAt(null)}
      onKeyDown={(event) => {
        const by = event.key === 'ArrowRight' ? 1 : event.key === 'ArrowLeft' ? -1 : 0;
        if (by === 0) return;
        event.preventDefault();
        move(by * (event.shiftKey ? 10 : 1));
      }}
    >
      <p id={hint} class="unseen">
        {t('curve-hint')}
      </p>
      <svg width={width} height={height} viewBox={`0 0 ${width} ${height}`} aria-hidden="true">
        {y.ticks.map((tick) => (
          <g key={tick}>
            <line class="grid" x1={LEFT} x2={width - RIGHT} y1={top(tick)} y2={top(tick)} />
            <text x={LEFT - 8} y={top(tick) + 4} class="end">
              {write(tick)}
            </text>
          </g>
        ))}
        {x.ticks
          .filter((tick) => tick <= last)
          .map((tick) => (
            <text key={tick} x={left(tick)} y={height - 6} class={tick > last * 0.97 ? 'end' : 'middle'}>
              {number(tick)}
            </text>
          ))}
        {lines.map((line) => (
          <g key={line.name} class={`tone-${line.tone}`}>
            {line.faint && <path class="faint" d={path(line.faint)} />}
            <path d={path(line.points)} />
            {line.points.length < 40 && line.tone === 'b' &&
              line.points
                .filter(({ value }) => Number.isFinite(value))
                .map(({ step, value }) => <circle key={step} cx={left(step)} cy={top(value)} r="3" />)}
          </g>
        ))}
        {at !== null && <line class="cursor" x1={left(at)} x2={left(at)} y1={TOP} y2={height - BOTTOM} />}
        {told.map(({ name, tone, point }) => (
          <circle key={name} class={`tone-${tone} dot`} cx={left(point.step)} cy={top(point.value)} r="4" />
        ))}
      </svg>
      {told.length > 0 && at !== null && (
        <div class={`values${left(at) > width / 2 ? ' at-left' : ''}`} role="status">
          <p>
            {t('step')} {number(told[0]?.point.step ?? at)}
          </p>
          {told.map(({ name, tone, point }) => (
            <p key={name} class={`tone-${tone}`}>
              {name} <b>{write(point.value)}</b>
            </p>
          ))}
        </div>
      )}
    </div>
  );
}

/** The point whose step is nearest; points are in the order of their steps. */
export function nearest(points: Point[], step: number): Point | undefined {
  let [low, high] = [0, points.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((points[middle]?.step ?? 0) < step) low = middle;
    else high = middle;
  }
  const [a, b] = [points[low], points[high]];
  return a && b && Math.abs(b.step - step) < Math.abs(a.step - step) ? b : (a ?? b);
}
