/* What scrolls is reachable by keyboard: the theme sees to it when a page is loaded and when its width changes, and
   here when something is unfolded. */
"use strict";
document.addEventListener("toggle", () => window.dispatchEvent(new Event("resize")), { capture: true });
