// Files: from the user's disk to the service, and from the service back.

const KEEP_ADDRESS_MS = 60_000; // the browser may still be writing a download

/** `dispatch(action)` tells the reducer; `tell(text)` tells the user. */
export class Files {
  #api;
  #dispatch;
  #tell;
  #uploads = new Map(); // attachment id → AbortController

  constructor({ api, dispatch, tell }) {
    this.#api = api;
    this.#dispatch = dispatch;
    this.#tell = tell;
  }

  /** Uploads a file as an attachment of the next message. */
  async upload(file) {
    const id = crypto.randomUUID();
    const controller = new AbortController();
    this.#uploads.set(id, controller);
    const change = (patch) => this.#dispatch({ type: "attachment_changed", id, patch });
    const begun = { status: "uploading", progress: 0, fileId: "", error: "" };
    this.#dispatch({ type: "attachment_added", attachment: { id, name: file.name, sizeBytes: file.size, ...begun } });
    try {
      const onProgress = (progress) => change({ progress });
      const stored = await this.#api.upload(file, { onProgress, signal: controller.signal });
      change({ status: "ready", progress: 1, fileId: stored.file_id, name: stored.name });
    } catch (error) {
      if (error.code !== "CANCELLED") change({ status: "failed", error: error.message });
    } finally {
      this.#uploads.delete(id);
    }
  }

  /** Takes an attachment off the next message; an upload under way ends. */
  detach(id) {
    this.#uploads.get(id)?.abort();
    this.#dispatch({ type: "attachment_removed", id });
  }

  /** Saves a run's file on the user's disk. */
  async download(artifact) {
    try {
      const address = URL.createObjectURL(await this.#api.fileContent(artifact.artifactId));
      Object.assign(document.createElement("a"), { href: address, download: artifact.name }).click();
      setTimeout(() => URL.revokeObjectURL(address), KEEP_ADDRESS_MS);
    } catch (error) {
      this.#tell(`${artifact.name} could not be downloaded. ${error.message}`);
    }
  }

  /** An address that an `img` can show, or null. */
  async picture(artifact) {
    try {
      return URL.createObjectURL(await this.#api.fileContent(artifact.artifactId));
    } catch {
      return null; // its name and the download stay; a picture is a convenience
    }
  }

  /** The text of a file, or null. */
  async text(artifact) {
    try {
      return await (await this.#api.fileContent(artifact.artifactId)).text();
    } catch (error) {
      this.#tell(`${artifact.name} could not be read. ${error.message}`);
      return null;
    }
  }

  /** Names for the files of earlier messages. */
  async loadNames() {
    try {
      this.#dispatch({ type: "files_loaded", files: await this.#api.files() });
    } catch {
      // Chips of earlier messages say "A file" instead of its name.
    }
  }
}
