/**
 * The address of a link as it may stand in the page, or `null`: `http`, `https` and `mailto` only, for a model's words
 * are not to be trusted. Addresses without a scheme would lead into this page, and are refused too.
 */
export function safeAddress(address: string): string | null {
  // Browsers drop tabs and line breaks within addresses, and control characters around them.
  const bare = address.replace(/[\u0000-\u0020\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202f\u2060\ufeff]/g, '');
  if (!/^(https?:\/\/|mailto:)/i.test(bare)) return null;
  try {
    const url = new URL(bare);
    return ['http:', 'https:', 'mailto:'].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}
