"""The line in a result's tags that says how it was made.

    restore 0.1.0 model=compact dtype=fp32 seed=0 scale=4 frames=181 job=0f3a9c51d27e

The job's number is the same for the same input and wishes. By it a run with `resume` recognises a
result that is complete already: a process can be killed in its very last moment, when the work
folder is gone and the success not yet told.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from restore import __version__
from restore.errors import InputError
from restore.method import OPTIONS
from restore.video.journal import Journal, fingerprint
from restore.video.plan import VideoPlan
from restore.video.probe import open_clip

_WISHES = (
    *("model", "weights", "base", "seed", "color_fix", "temporal", "tags_file", *OPTIONS),
    *("scene_threshold", "start", "end", "audio"),
)


def job_number(plan: VideoPlan) -> str:
    """What identifies the input and the user's wishes."""
    spec = plan.spec
    facts = {
        "source": fingerprint(plan.info.path),
        **{name: getattr(plan.config, name) for name in _WISHES},
        "video": [spec.encoder, spec.options, spec.pix_fmt, spec.width, spec.height],
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def make_stamp(plan: VideoPlan, settings: Mapping[str, Any], journal: Journal) -> str:
    """The line for a result.

    Args:
        plan: the job.
        settings: what the restorer was set to.
        journal: what was done; a result of a damaged input gets no number, as it is to be made
            again when the input is whole.
    """
    words = [f"{name}={settings[name]}" for name in ("model", "dtype", "seed") if name in settings]
    words += [f"scale={plan.spec.width / plan.info.width:g}", f"frames={journal.frames}"]
    if journal.ending is not None and journal.ending.damaged is None:
        words.append(f"job={job_number(plan)}")
    return " ".join([f"restore {__version__}", *words])


def frames_of_finished(plan: VideoPlan) -> int | None:
    """Frames in the file at the result's name when it is this very job's result, else None."""
    if not plan.path.is_file():
        return None
    with contextlib.suppress(InputError), open_clip(plan.path) as container:
        pattern = rf"\brestore .* frames=(\d+) job={job_number(plan)}\b"
        for value in container.metadata.values():
            if match := re.search(pattern, value):
                return int(match.group(1))
    return None
