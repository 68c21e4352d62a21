import { t } from '../i18n';
import { CompletionBench, FillInBench } from '../parts/completion_bench';
import { EmbeddingBench } from '../parts/embedding_bench';
import { TokenizerBench } from '../parts/tokenizer_bench';
import { Tabs } from '../parts/tabs';

/** A model without a conversation around it. */
export const PlaygroundView = () => (
  <div class="sheet">
    <h1>{t('playground')}</h1>
    <Tabs
      label={t('playground')}
      tabs={[
        { name: t('completion'), view: CompletionBench },
        { name: t('fill-in'), view: FillInBench },
        { name: t('embeddings'), view: EmbeddingBench },
        { name: t('tokenizer'), view: TokenizerBench },
      ]}
    />
  </div>
);
