"""The words of the page, each with what it means: tooltips, and a list at the page's end."""

from __future__ import annotations

GLOSSARY: dict[str, str] = {
    "golden": "The side that is right by definition: the framework's own computation (pta).",
    "actual": "The side under test: the accelerated computation (acl).",
    "label": "One tensor of the model, recorded on both sides under one name.",
    "rank": "One process of the job, as torchrun counts them.",
    "task": "One turn of a dialogue, or one step; set_task_id() starts the next.",
    "layer": "What the number in a label's name says; labels without one have a row of their own.",
    "relative L2": "The norm of the error divided by that of golden: sqrt(Σd² / Σx²).",
    "worst row": "The largest relative L2 error of a row. A row is the last axis of the whole tensor: one token.",
    "margin": "Error ÷ limit: the largest error of the label divided by its limit. Above 1 it diverged.",
    "limit": "The same as fail: above it a label is diverged.",
    "warn": "Above warn an error is drift: more than noise, and no reason to fail.",
    "fail": "Above fail an error is diverged. It comes from the dtype and the depth, or from a measured floor.",
    "floor": "The measured difference of two correct computations of a label. warn and fail may be multiples of it.",
    "status": "What became of a label on a rank: match, drift, diverged, nonfinite, mismatch, missing or failed.",
    "own": "Wrong although what came before is right: the fault is here.",
    "inherited": "Wrong because a label before it is.",
    "own error": "The error of what was computed from golden's values (--local): the label's own one.",
    "excused": "The policy lets it differ or ignores it.",
    "layout": "How a rank's tensor is part of the whole one.",
    "call site": "The line that recorded the label. A click copies it.",
    "shape": "Of the tensor on its first rank: golden's, and actual's where it has another.",
    "dtype": "The element type: golden's, and actual's where it has another.",
}
