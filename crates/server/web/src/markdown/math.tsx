import { useEffect, useRef, useState } from 'preact/hooks';

/** What of Temml is used: TeX in, MathML elements out. */
interface Typesetter {
  render(source: string, into: HTMLElement, options: object): void;
}

let loading: Promise<Typesetter> | null = null;

/** The typesetter comes with the first formula. */
const typesetter = (): Promise<Typesetter> =>
  (loading ??= import('temml').then((module) => module.default as unknown as Typesetter));

/** Longer formulas stay TeX. */
const LONGEST = 4000;

/** A formula in TeX, as MathML; its source until it is set, and where it cannot be. */
export function Mathematics({ source, display = false }: { source: string; display?: boolean }) {
  const place = useRef<HTMLSpanElement>(null);
  const [isSet, setSet] = useState(false);
  useEffect(() => {
    let isGone = false;
    setSet(false);
    if (source.length > LONGEST) return;
    const set = async () => {
      const { render } = await typesetter();
      if (isGone || !place.current) return;
      try {
        // No macro of a formula lives on, none may name an address, and expansions are counted.
        render(source, place.current, {
          displayMode: display, throwOnError: true, trust: false, maxExpand: 500, maxSize: [20, 400], macros: {}, strict: false,
        });
        setSet(true);
      } catch {
        place.current.replaceChildren();
      }
    };
    void set();
    return () => {
      isGone = true;
    };
  }, [source, display]);
  return (
    <span class={display ? 'math display' : 'math'} tabIndex={display ? 0 : undefined}>
      <span ref={place} />
      {!isSet && <code>{source}</code>}
    </span>
  );
}
