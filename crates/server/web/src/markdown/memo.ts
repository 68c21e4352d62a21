import { Component, h, type ComponentChildren, type ComponentType } from 'preact';

/** A part of the page that is drawn anew only when `isSame` says that its properties changed. */
export function memo<P extends object>(
  part: (properties: P) => ComponentChildren,
  isSame: (before: P, after: P) => boolean,
): ComponentType<P> {
  return class Memo extends Component<P> {
    override shouldComponentUpdate(next: P) {
      return !isSame(this.props, next);
    }
    override render() {
      return h(part as ComponentType<P>, this.props);
    }
  };
}
