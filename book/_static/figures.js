/* On a phone a large figure is drawn at less than half of its size; below it stands a link to all of it. */
"use strict";
const offer = () => {
    if (innerWidth > 600) return;
    document.querySelectorAll(".bd-content :is(div.cell_output, figure.plot) img").forEach(image => {
        if (image.naturalWidth < 2 * image.clientWidth || image.closest("a")) return;
        const link = document.createElement("a");
        link.className = "whole";
        link.href = image.currentSrc;
        image.replaceWith(link);
        link.append(image);
    });
};
addEventListener("load", offer);
addEventListener("resize", offer);
