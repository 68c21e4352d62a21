// A page in a new browser, that fails on whatever a person would not want: errors, foreign hosts, barriers.
import AxeBuilder from '@axe-core/playwright';
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

export const launch = () => chromium.launch({ executablePath: CHROMIUM, args: FLAGS });

/** A page of a new user, and what went wrong on it. */
export async function visit(browser, base, { colorScheme = 'light', width = 1280, height = 800 } = {}) {
  const context = await browser.newContext({ colorScheme, viewport: { width, height }, locale: 'en-US', reducedMotion: 'reduce' });
  const faults = [];
  await context.addInitScript(() => {
    addEventListener('securitypolicyviolation', (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
  });
  const page = await context.newPage();
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) faults.push(`${message.type()}: ${message.text()}`);
  });
  page.on('pageerror', (error) => faults.push(`error: ${error.stack}`));
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (url.origin !== base && !['data:', 'blob:'].includes(url.protocol)) faults.push(`request to ${url}`);
  });
  await page.goto(`${base}/`);
  return { page, faults, close: () => context.close() };
}

/** Fails if anything went wrong so far. */
export function isFine({ faults }) {
  assert.deepEqual(faults, []);
}

/** Fails if axe finds a barrier that is serious or critical. */
export async function isOpenToAll({ page }, where) {
  const { violations } = await new AxeBuilder({ page }).analyze();
  const barriers = violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.target.join(' ')} ${node.any[0]?.message ?? ''}`).join('; ')}`);
  assert.deepEqual(barriers, [], where);
}

/** Keeps a picture of the page in the folder SCREENSHOTS, if that is set. */
export async function picture({ page }, name) {
  const folder = process.env.SCREENSHOTS;
  if (folder) await page.screenshot({ path: join(folder, `${name}.png`) });
}

/** Presses Tab until an element is focused; fails if it is not reached. */
export async function tabTo({ page }, selector) {
  for (let presses = 0; presses < 80; presses += 1) {
    await page.keyboard.press('Tab');
    if (await page.evaluate((wanted) => document.activeElement?.matches(wanted) ?? false, selector)) return;
  }
  assert.fail(`${selector} is not reached by the Tab key`);
}
