// What makes the page handier; it works without all of this: copy buttons, and times as the clock on the wall shows them.
"use strict";

const SHOWN_MS = 2000;

function copyButton(name, source) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button quiet small no-print";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy: ${name}`);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source); // refused: then marked, for Ctrl-C
      button.textContent = "Marked";
    }
    setTimeout(() => { button.textContent = "Copy"; }, SHOWN_MS);
  });
  return button;
}

if (navigator.clipboard) { // a browser gives it to loopback and https only
  for (const block of document.querySelectorAll(".copy")) {
    block.classList.add("with-button");
    block.append(copyButton(block.querySelector("pre").getAttribute("aria-label"), block.querySelector("code")));
  }
  for (const secret of document.querySelectorAll(".secret")) secret.after(copyButton("the password", secret));
  for (const code of document.querySelectorAll(".user-code")) code.after(copyButton("the code", code));
}

for (const moment of document.querySelectorAll("time[datetime]")) {
  const when = new Date(moment.dateTime);
  if (Number.isNaN(when.valueOf())) continue;
  moment.title = moment.textContent.trim();
  moment.textContent = when.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}
