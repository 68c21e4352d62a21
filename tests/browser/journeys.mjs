// The journeys of a person on the page, in real Chromium, with a real server and a real model. `run.sh` prepares them.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile, mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isFine, isOpenToAll, launch, picture, tabTo, visit } from './browser.mjs';
import { end, run, serve } from './server.mjs';

const MODEL = 'smollm2-135m-instruct';

/** Milliseconds for a model to be fetched, loaded, or to answer on a busy machine. */
const LONG = 240_000;

const ANSWERED = '.turn.assistant:last-of-type [aria-label="Answer again"]';
const home = await mkdtemp(join(tmpdir(), 'rhetor-browser-'));
const browser = await launch();

/** The text of the last answer. */
const answer = (page) => page.locator('.turn.assistant').last().locator('.prose').innerText();

/** Waits until the last answer is complete. */
const answered = (page) => page.waitForSelector(ANSWERED, { timeout: LONG });

async function fetchAndChatByKeyboard(server) {
  const visitor = await visit(browser, server.base);
  const { page } = visitor;
  await page.waitForSelector('a[href="#/models"].button');
  await tabTo(visitor, 'a[href="#/models"].button');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.offers button');
  await tabTo(visitor, `[aria-label="Fetch ${MODEL}"]`);
  await page.keyboard.press('Enter');
  await page.waitForSelector('progress');
  await picture(visitor, 'fetching');
  await page.waitForSelector(`[aria-label="Chat: ${MODEL}"]`, { timeout: LONG });
  await tabTo(visitor, `[aria-label="Chat: ${MODEL}"]`);
  await page.keyboard.press('Enter');
  await page.waitForSelector('#message');
  await tabTo(visitor, '#message');
  await page.keyboard.type('Tell me a long story about a fox and a river.');
  await page.keyboard.press('Enter');
  // Words come before the end: the answer streams.
  await page.waitForFunction(() => (document.querySelector('.turn.assistant .prose')?.textContent ?? '').length > 20, null, { timeout: LONG });
  assert.equal(await page.locator(ANSWERED).count(), 0, 'the answer is still being written');
  const early = (await answer(page)).length;
  await page.waitForFunction((length) => document.querySelector('.turn.assistant .prose').textContent.length > length, early + 20, { timeout: LONG });
  await picture(visitor, 'streaming');
  await page.keyboard.press('Escape');
  await answered(page);
  assert.match(await page.locator('.turn.assistant').last().innerText(), /Stopped\./);
  const stopped = await answer(page);
  await page.waitForTimeout(1000);
  assert.equal(await answer(page), stopped, 'nothing is written after the stop');
  await picture(visitor, 'stopped');
  isFine(visitor);
  await visitor.close();
}

async function editAndRegenerateAndReload(server) {
  const visitor = await visit(browser, server.base);
  const { page } = visitor;
  await page.waitForSelector('.menu.models summary .name');
  await page.click('[aria-label="Show options"]');
  await page.fill('.options input[max="1000000"]', '24');
  await page.locator('.options input[max="1000000"]').blur();
  await page.click('.bar [aria-label="Hide options"]');
  await page.fill('#message', 'Name a colour.');
  await page.keyboard.press('Enter');
  await answered(page);
  const first = await answer(page);
  assert.notEqual(first, '');
  await page.click(ANSWERED);
  await page.waitForSelector('[aria-label="Version 2 of 2"]', { timeout: LONG });
  await answered(page);
  const second = await answer(page);
  await page.click('.turn.user [aria-label="Edit"]');
  await page.fill('.editor textarea', 'Name an animal.');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.turn.user [aria-label="Version 2 of 2"]', { timeout: LONG });
  await answered(page);
  const third = await answer(page);
  await picture(visitor, 'branches');
  await page.reload();
  await answered(page);
  assert.equal(await page.locator('.turn.user .said').innerText(), 'Name an animal.');
  assert.equal(await answer(page), third);
  await page.click('.turn.user [aria-label="Previous version"]');
  await page.waitForSelector('.turn.user >> text=Name a colour.');
  assert.equal(await answer(page), second);
  await page.click('.turn.assistant [aria-label="Previous version"]');
  await page.waitForSelector('.turn.assistant [aria-label="Version 1 of 2"]');
  assert.equal(await answer(page), first);
  await page.reload();
  await answered(page);
  assert.equal(await answer(page), first, 'the branch that was chosen is shown after a reload, too');
  assert.match(await page.locator('.deeds .facts').innerText(), /tokens/);
  isFine(visitor);
  await visitor.close();
}

async function probabilitiesAndErrors(server) {
  const visitor = await visit(browser, server.base);
  const { page, faults } = visitor;
  await page.waitForSelector('.menu.models summary .name');
  await page.click('[aria-label="Show options"]');
  await page.fill('.options input[max="1000000"]', '12');
  await page.locator('.options input[max="1000000"]').blur();
  await page.click('[aria-label="Token probabilities"]');
  await page.fill('#message', 'Say hello.');
  await page.keyboard.press('Enter');
  await answered(page);
  const tokens = await page.locator('[data-token]').allInnerTexts();
  assert.ok(tokens.length > 1, 'each token stands alone');
  await page.hover('[data-token="0"]');
  assert.equal(await page.locator('.alternatives tbody tr').count(), 5);
  await picture(visitor, 'probabilities');
  isFine(visitor);
  // More than the context holds is refused with both numbers, and another try is offered.
  await page.fill('#message', 'word '.repeat(12_000));
  await page.keyboard.press('Enter');
  await page.waitForSelector('.trouble .said', { timeout: LONG });
  assert.match(await page.locator('.trouble .said').innerText(), /\d{4}/);
  await page.waitForSelector('.trouble >> text=Try again');
  await picture(visitor, 'refused');
  assert.deepEqual(faults.filter((fault) => !fault.includes('400')), []);
  await visitor.close();
}

async function aCurveWhileTraining(server, runs) {
  const text = join(home, 'text.txt');
  const words = 'the quick brown fox jumps over the lazy dog and runs along the river to the sea';
  await writeFile(text, Array.from({ length: 4000 }, (_, i) => words.split(' ').slice(i % 9, 3 + (i % 13)).join(' ')).join('\n'));
  const recipe = join(home, 'tiny.toml');
  await writeFile(
    recipe,
    `name = "tiny"\nsummary = "a curve to be drawn"\ndata = [${JSON.stringify(text)}]\nvalidation = "tail 5%"\n` +
      `validation-max = 20\ntokenizer = "train characters"\nobjective = "causal-lm"\nwindows = "anywhere"\nseq-len = 48\nbatch-size = 8\n` +
      `steps = 100000\noptimizer = "adamw"\nlearning-rate = 2e-3\nwarmup = 40\nschedule = "cosine"\nvalidate-every = 50\n\n[config]\n` +
      `architectures = ["LlamaForCausalLM"]\nmodel_type = "llama"\nhidden_size = 32\nintermediate_size = 64\nnum_hidden_layers = 2\n` +
      `num_attention_heads = 2\nnum_key_value_heads = 2\nmax_position_embeddings = 64\nrms_norm_eps = 1e-6\ntie_word_embeddings = false\n`,
  );
  const training = run(home, 'train', recipe, '--out', join(runs, 'tiny'), '--threads', '1');
  const visitor = await visit(browser, server.base);
  const { page } = visitor;
  try {
    await page.goto(`${server.base}/#/training`);
    const ended = new Promise((_, reject) => {
      training.child.on('exit', (code) => reject(new Error(`training ended with ${code}: ${training.said.slice(-4).join('\n')}`)));
    });
    ended.catch(() => undefined);
    const step = () => page.locator('.latest').getAttribute('data-step').then(Number);
    await Promise.race([page.waitForFunction(() => Number(document.querySelector('.latest')?.dataset.step) > 5, null, { timeout: LONG }), ended]);
    const before = await step();
    const path = () => page.locator('.chart .tone-a path').last().getAttribute('d');
    const drawn = await path();
    await page.waitForFunction((step) => Number(document.querySelector('.latest').dataset.step) > step, Math.max(before, 60), { timeout: LONG });
    assert.notEqual(await path(), drawn, 'the curve grows while the run goes on');
    await page.waitForSelector('.chart .tone-b path', { state: 'attached' });
    assert.equal(await page.locator('.run > header .state').innerText(), 'running');
    await page.locator('.chart').first().focus();
    await page.keyboard.press('ArrowLeft');
    assert.match(await page.locator('.values').innerText(), /step \d+/);
    await page.check('text=Logarithmic axis');
    await page.click('text=Values as a table');
    await page.waitForSelector('.run tbody tr:nth-child(6)');
    await page.locator('h1').scrollIntoViewIfNeeded();
    await picture(visitor, 'training');
    isFine(visitor);
  } finally {
    training.child.removeAllListeners('exit');
    await end(training);
    await visitor.close();
  }
}

/** Every page, in both themes and both languages, wide and narrow. */
async function openToAll(server) {
  for (const colorScheme of ['light', 'dark']) {
    const visitor = await visit(browser, server.base, { colorScheme });
    const { page } = visitor;
    await page.waitForSelector('.menu.models summary .name');
    await page.click('[aria-label="Show options"]');
    await page.fill('.options input[max="1000000"]', '16');
    await page.locator('.options input[max="1000000"]').blur();
    await page.fill('#message', 'Write `code`, a **list**, a table.');
    await page.keyboard.press('Enter');
    await answered(page);
    for (const name of ['chat', 'playground', 'models', 'training', 'settings']) {
      await page.goto(`${server.base}/#/${name}`);
      await page.waitForSelector(`main.page-${name} h1`);
      await page.waitForTimeout(300);
      await isOpenToAll(visitor, `${name}, ${colorScheme}`);
      await picture(visitor, `${name}-${colorScheme}`);
    }
    for (const tab of ['Fill in the middle', 'Embeddings', 'Tokenizer']) {
      await page.goto(`${server.base}/#/playground`);
      await page.getByRole('tab', { name: tab }).click();
      await isOpenToAll(visitor, `${tab}, ${colorScheme}`);
    }
    await page.keyboard.press('Control+/');
    await page.waitForSelector('dialog[open]');
    await isOpenToAll(visitor, `shortcuts, ${colorScheme}`);
    isFine(visitor);
    await visitor.close();
  }
}

async function narrowAndChinese(server) {
  const visitor = await visit(browser, server.base, { width: 360, height: 740 });
  const { page } = visitor;
  await page.goto(`${server.base}/#/settings`);
  await page.selectOption('select', 'zh-Hant');
  assert.equal(await page.locator('h1').innerText(), '設定');
  assert.equal(await page.locator('html').getAttribute('lang'), 'zh-Hant');
  for (const name of ['chat', 'playground', 'models', 'training', 'settings']) {
    await page.goto(`${server.base}/#/${name}`);
    await page.waitForSelector(`main.page-${name} h1`);
    await page.waitForTimeout(300);
    const [width, shown] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(width <= shown, `${name} is ${width} px wide`);
    await isOpenToAll(visitor, `${name}, narrow`);
    await picture(visitor, `${name}-narrow`);
  }
  isFine(visitor);
  await visitor.close();
}

async function playground(server) {
  const visitor = await visit(browser, server.base);
  const { page } = visitor;
  await page.goto(`${server.base}/#/playground`);
  await page.fill('textarea', 'The capital of France is');
  await page.fill('.fields input[max="4096"]', '8');
  await page.click('button[type=submit]');
  await page.waitForSelector('.result .facts', { timeout: LONG });
  await page.waitForSelector('button[type=submit]', { timeout: LONG });
  await page.check('text=Show the prompt’s own probabilities');
  await page.click('button[type=submit]');
  await page.waitForFunction(() => document.querySelector('.result .tokens')?.textContent.includes('France'), null, { timeout: LONG });
  await picture(visitor, 'completion');
  await page.getByRole('tab', { name: 'Tokenizer' }).click();
  await page.click('button[type=submit]');
  await page.waitForSelector('.pieces li', { timeout: LONG });
  const text = (await page.locator('.pieces li span').allTextContents()).join('');
  assert.ok(text.includes('pieces of words'), text);
  await picture(visitor, 'tokenizer');
  isFine(visitor);
  await visitor.close();
}

const runs = join(home, 'runs');
await mkdir(runs);
const server = await serve(home, '--runs', runs);
const JOURNEYS = [
  ['a model is fetched and spoken with by the keyboard alone; the answer streams, and stops', () => fetchAndChatByKeyboard(server)],
  ['an edited question and another answer are branches that outlive a reload', () => editAndRegenerateAndReload(server)],
  ['a curve is drawn while the run goes on', () => aCurveWhileTraining(server, runs)],
  ['tokens show their probabilities; a refusal shows its reason', () => probabilitiesAndErrors(server)],
  ['the playground completes and tokenizes', () => playground(server)],
  ['no page has a serious barrier in either theme', () => openToAll(server)],
  ['pages fit a width of 360 px, in Chinese', () => narrowAndChinese(server)],
];
let [passed, failed] = [0, 0];
const wanted = process.argv[2] ?? '';
for (const [name, journey] of JOURNEYS.filter(([name]) => name.includes(wanted))) {
  const started = Date.now();
  try {
    await journey();
    passed += 1;
    console.log(`ok      ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}\n${error.stack ?? error}`);
  }
}
await browser.close();
await server.stop();
await rm(home, { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
