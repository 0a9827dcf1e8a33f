// REST and sign-in. Every function resolves with the parsed answer or rejects with an ApiError made for people.

const TOKEN_KEY = "apex.token";
const RENEW_BEFORE_MS = 60_000; // a token with less life than this is replaced before use
const PAGE_SIZE = 200; // the contract's largest page
const MAX_PAGES = 25;

/**
 * What went wrong, in words for the person at the page. `code` is the contract's reason. `signInNeeded`: another token
 * would help; `isFinal`: nothing would.
 */
class ApiError extends Error {
  constructor(message, { code = "", status = 0, retryable = false } = {}) {
    super(message);
    this.code = code;
    this.status = status;
    this.retryable = retryable;
    this.signInNeeded = status === 401;
    this.isFinal = status === 403;
  }
}

export class Api {
  #token = "";
  #expiresAtMs = 0;
  #pendingToken = null;
  #storage;

  /** `storage` keeps a token that a person brought (sessionStorage: this tab only). */
  constructor(storage) {
    this.#storage = storage;
    this.#token = storage.getItem(TOKEN_KEY) ?? "";
    this.#expiresAtMs = this.#token ? Infinity : 0;
  }

  /** Signs in with a token that a person pasted. */
  useToken(token) {
    this.#token = token;
    this.#expiresAtMs = Infinity;
    this.#storage.setItem(TOKEN_KEY, token);
  }

  /** A usable token; `fresh` refuses the one at hand. Callers at the same time share one request. */
  token({ fresh = false } = {}) {
    if (!fresh && this.#token && Date.now() < this.#expiresAtMs - RENEW_BEFORE_MS) return Promise.resolve(this.#token);
    this.#pendingToken ??= this.#newToken().finally(() => {
      this.#pendingToken = null;
    });
    return this.#pendingToken;
  }

  async #newToken() {
    const response = await reach("/auth/dev-token", json("POST", {}));
    if (response.status === 404) throw new ApiError("Sign in with an access token.", { status: 401 });
    const body = await answer(response);
    this.#storage.removeItem(TOKEN_KEY); // not before there is another: a service that is away takes nobody's token
    this.#token = body.token;
    this.#expiresAtMs = Date.parse(body.expires_at);
    return this.#token;
  }

  async #request(path, init = {}) {
    const send = async (fresh) => {
      const headers = { ...init.headers, authorization: `Bearer ${await this.token({ fresh })}` };
      return reach(`/api/v1${path}`, { ...init, headers });
    };
    const response = await send(false);
    return response.status === 401 ? send(true) : response;
  }

  async #json(path, init) {
    return answer(await this.#request(path, init));
  }

  threads({ query = "", pageToken = "", pageSize = 50 } = {}) {
    return this.#json(`/threads?${new URLSearchParams({ page_size: pageSize, page_token: pageToken, query })}`);
  }

  renameThread(threadId, title) {
    return this.#json(`/threads/${encodeURIComponent(threadId)}`, json("PATCH", { title }));
  }

  deleteThread(threadId) {
    return this.#json(`/threads/${encodeURIComponent(threadId)}`, { method: "DELETE" });
  }

  /** All messages of a thread, in order. */
  messages(threadId) {
    return this.#all(`/threads/${encodeURIComponent(threadId)}/messages`, {}, "messages");
  }

  runs(threadId) {
    return this.#all("/runs", { thread_id: threadId }, "runs");
  }

  files() {
    return this.#all("/files", {}, "files");
  }

  /** The frames of a run after a cursor, as on the socket; of a finished run all that is left. */
  async runEvents(runId, afterSeq = 0) {
    const events = [];
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const cursor = events.at(-1)?.seq ?? afterSeq;
      const body = await this.#json(`/runs/${encodeURIComponent(runId)}/events?after_seq=${cursor}`);
      const news = body.events ?? [];
      events.push(...news);
      if (!news.length || ["agent_completed", "agent_error"].includes(news.at(-1).type)) break;
    }
    return events;
  }

  /** The content of a file as a Blob, for saving or for a picture. */
  async fileContent(fileId) {
    const response = await this.#request(`/files/${encodeURIComponent(fileId)}/content`);
    if (!response.ok) await answer(response);
    return response.blob();
  }

  /** Uploads a file. `onProgress(fraction)`; `signal` aborts. XMLHttpRequest, for fetch does not tell progress. */
  async upload(file, { onProgress, signal }) {
    const token = await this.token();
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("POST", "/api/v1/files");
      request.setRequestHeader("authorization", `Bearer ${token}`);
      request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
      request.onerror = () => reject(unreachable());
      request.onabort = () => reject(new ApiError("The upload was cancelled.", { code: "CANCELLED" }));
      request.onload = () => {
        const body = parsed(request.responseText);
        if (request.status >= 200 && request.status < 300) resolve(body);
        else reject(problem(request.status, body));
      };
      signal.addEventListener("abort", () => request.abort());
      const form = new FormData();
      form.append("file", file);
      request.send(form);
    });
  }

  async #all(path, parameters, field) {
    const items = [];
    let pageToken = "";
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const query = new URLSearchParams({ ...parameters, page_size: PAGE_SIZE, page_token: pageToken });
      const body = await this.#json(`${path}?${query}`);
      items.push(...(body[field] ?? []));
      pageToken = body.next_page_token ?? "";
      if (!pageToken) break;
    }
    return items;
  }
}

const json = (method, body) => ({
  method,
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body),
});

async function reach(path, init) {
  try {
    return await fetch(path, init);
  } catch {
    throw unreachable();
  }
}

async function answer(response) {
  const body = parsed(await response.text());
  if (!response.ok) throw problem(response.status, body);
  return body;
}

function parsed(text) {
  try {
    return text ? JSON.parse(text) : {};
  } catch {
    return {};
  }
}

function problem(status, body) {
  const payload = body.payload ?? {};
  const details = (payload.violations ?? []).map((violation) => violation.description).join(" ");
  const message = [payload.message, details].filter(Boolean).join(" ");
  return new ApiError(message || `The service answered with status ${status}.`, {
    code: payload.code ?? "",
    status,
    retryable: payload.retryable === true,
  });
}

const unreachable = () =>
  new ApiError("The service cannot be reached.", { code: "SERVICE_UNAVAILABLE", retryable: true });
