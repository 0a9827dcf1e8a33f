// Files dropped anywhere on the page.

/** `root` takes the files, `overlay` shows that it would; `onFiles(files)`. */
export function dropZone(root, overlay, onFiles) {
  let depth = 0; // dragenter and dragleave come for every child too
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const show = (change) => {
    depth = Math.max(0, depth + change);
    overlay.hidden = depth === 0;
  };
  root.addEventListener("dragenter", (event) => hasFiles(event) && show(1));
  root.addEventListener("dragleave", (event) => hasFiles(event) && show(-1));
  root.addEventListener("dragover", (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  root.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    show(-depth);
    onFiles([...event.dataTransfer.files]);
  });
}
