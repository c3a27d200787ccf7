// Asking for the access token.

import * as api from "./api.js";
import { byId, showError } from "./dom.js";

export class TokenDialog {
  constructor() {
    this.dialog = byId("token-dialog");
    this.input = byId("token-input");
    this.error = byId("token-error");
    this.done = () => {};
    this.dialog.addEventListener("cancel", (event) => event.preventDefault());
    byId("token-form").addEventListener("submit", (event) => { event.preventDefault(); this.take(); });
    byId("forget-token").hidden = !api.token.get();
    byId("forget-token").addEventListener("click", () => { api.token.forget(); location.reload(); });
  }

  take() {
    const value = this.input.value.trim();
    // A header takes printable ASCII; anything else cannot be a token of ours.
    const problem = value ? (/^[\x21-\x7e]+$/.test(value) ? "" : "A token has only letters, digits and signs.") : "Which token?";
    showError(this.error, problem);
    this.input.setAttribute("aria-invalid", String(problem !== ""));
    if (problem) return;
    api.token.set(value);
    this.input.value = "";
    this.dialog.close();
    byId("forget-token").hidden = false;
    this.done();
  }

  prompt(wasWrong) {
    showError(this.error, wasWrong ? "This token is not accepted." : "");
    this.input.setAttribute("aria-invalid", String(wasWrong));
    if (!this.dialog.open) this.dialog.showModal();
    this.input.focus();
    return new Promise((resolve) => { this.done = resolve; });
  }
}
