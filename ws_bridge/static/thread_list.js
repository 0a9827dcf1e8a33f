// The list of conversations at the side of the page. Pure.

export function initialThreads() {
  return { items: [], query: "", nextPageToken: "", status: "loading", error: "" };
}

/** Actions on the list; any other action returns the same list. */
export function threadsAction(threads, action) {
  switch (action.type) {
    case "threads_searched":
      return { ...threads, query: action.query, status: "loading", error: "" };
    case "threads_loaded": {
      if (action.query !== threads.query) return threads; // an answer to an earlier search
      const items = action.append ? mergeItems(threads.items, action.threads) : sorted(action.threads);
      return { ...threads, items, nextPageToken: action.nextPageToken ?? "", status: "ready", error: "" };
    }
    case "threads_failed":
      return { ...threads, status: "failed", error: action.message };
    case "thread_renamed":
      return upsertThread(threads, { thread_id: action.threadId, title: action.title });
    default:
      return threads;
  }
}

/** Adds or changes a thread. While a search narrows the list, nothing new appears in it. */
export function upsertThread(threads, thread) {
  if (!thread.thread_id) return threads;
  const known = threads.items.find((item) => item.thread_id === thread.thread_id);
  if (!known && threads.query) return threads;
  const rest = threads.items.filter((item) => item !== known);
  return { ...threads, items: sorted([...rest, { title: "", update_time: "", ...known, ...defined(thread) }]) };
}

/** A message went to this thread: it moves to the top, and keeps its title if it has one. */
export function touchThread(threads, thread) {
  const known = threads.items.find((item) => item.thread_id === thread.thread_id);
  const { title, create_time, ...rest } = thread;
  return upsertThread(threads, known ? { ...rest, title: known.title || title } : { title, create_time, ...rest });
}

export function removeThread(threads, threadId) {
  return { ...threads, items: threads.items.filter((item) => item.thread_id !== threadId) };
}

function mergeItems(known, more) {
  const ids = new Set(more.map((item) => item.thread_id));
  return sorted([...known.filter((item) => !ids.has(item.thread_id)), ...more]);
}

// RFC 3339 in UTC with a fixed number of digits sorts as text; ids (UUIDv7) break the tie.
const sorted = (items) =>
  [...items].sort((a, b) => compare(b.update_time ?? "", a.update_time ?? "") || compare(b.thread_id, a.thread_id));

const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

const defined = (thread) => Object.fromEntries(Object.entries(thread).filter(([, value]) => value !== undefined));
