// What must outlive a reload of this tab: messages that no service has acknowledged, and the text being written.

const KEY = "apex.kept";

/** `storage` is sessionStorage, or anything with getItem and setItem. */
export class Keeper {
  #storage;
  #written = "";

  constructor(storage) {
    this.#storage = storage;
    /** What was kept: {threadKey, turn} of each unacknowledged message, in order. */
    this.turns = [];
    /** The text that was being written. */
    this.draft = "";
    try {
      Object.assign(this, JSON.parse(storage.getItem(KEY) ?? "{}"));
    } catch {
      // Not ours, or of another version: nothing is restored.
    }
  }

  keepTurns(turns) {
    this.turns = Object.entries(turns).flatMap(([threadKey, list]) =>
      list
        .filter((turn) => turn.delivery === "waiting" || turn.delivery === "sent")
        .map((turn) => ({ threadKey, turn })),
    );
    this.#write();
  }

  keepDraft(text) {
    this.draft = text;
    this.#write();
  }

  #write() {
    const value = JSON.stringify({ turns: this.turns, draft: this.draft });
    if (value === this.#written) return;
    this.#written = value;
    try {
      this.#storage.setItem(KEY, value);
    } catch {
      // No room: the page works on, it only forgets more on a reload.
    }
  }
}
