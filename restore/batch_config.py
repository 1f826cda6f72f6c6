"""Settings of `restore batch`: those of pictures and clips, and how the work is shared out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from restore.config import (
    CodecChoice,
    EncoderChoice,
    ExtChoice,
    ImageConfig,
    SizeConfig,
    VideoConfig,
    check_choice,
    check_quality,
    flag,
    same_flag,
)
from restore.errors import OptionError

EngineChoice = Literal["local", "ray"]
Part = TypeVar("Part", ImageConfig, VideoConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchConfig(SizeConfig):
    """`restore batch`: a folder of pictures and clips in, the same tree out."""

    tags_file: str | None = same_flag(ImageConfig, "tags_file")
    ext: ExtChoice = flag("auto", "--ext", help="Format of pictures; auto = that of the input.")
    quality: int = same_flag(ImageConfig, "quality")
    max_pixels: int = flag(
        500_000_000, "--max-pixels", help="Refuse pictures and results with more pixels than this."
    )
    codec: CodecChoice = same_flag(VideoConfig, "codec")
    encoder: EncoderChoice = same_flag(VideoConfig, "encoder")
    crf: float | None = same_flag(VideoConfig, "crf")
    preset: str | None = same_flag(VideoConfig, "preset")
    encoder_option: tuple[str, ...] = same_flag(VideoConfig, "encoder_option")
    pix_fmt: str | None = same_flag(VideoConfig, "pix_fmt")
    audio: bool = same_flag(VideoConfig, "audio")
    scene_threshold: float = same_flag(VideoConfig, "scene_threshold")
    temporal: bool = same_flag(VideoConfig, "temporal")
    segment: int | None = same_flag(
        VideoConfig,
        "segment",
        help="Clips are shared out in pieces of one or more of these, 1 frame or more; default: "
        "as 'restore video' has it.",
    )
    engine: EngineChoice = flag(
        "local", "--engine", help="Who does the work: processes of this machine, or Ray."
    )
    address: str | None = flag(
        None,
        "--address",
        help="Ray cluster to use, such as auto or HOST:PORT; default: one on this machine alone.",
    )
    workers: int = flag(
        0,
        "-w",
        "--workers",
        metavar="N",
        help="How many work at once, each with the model loaded; 0 = one a GPU, else by the cores.",
    )
    attempts: int = flag(
        3,
        "--attempts",
        metavar="N",
        help="How often an item is tried when its worker dies or the system fails, 1 or more.",
    )
    watch: bool = flag(False, "--watch", help="Go on looking for new files until Ctrl-C.")
    poll: float = flag(5.0, "--poll", metavar="SECONDS", help="How often --watch looks; above 0.")
    include: tuple[str, ...] = flag(
        (),
        "--include",
        metavar="PATTERN",
        multiple=True,
        help="Take only what matches: a name ('*.jpg') or a path below SRC ('day1/*').",
    )
    exclude: tuple[str, ...] = flag(
        (), "--exclude", metavar="PATTERN", multiple=True, help="Leave out what matches, likewise."
    )
    overwrite: bool = flag(
        False,
        "--overwrite",
        help="Start again: replace all results in DST, those of other settings too.",
    )
    dry_run: bool = flag(False, "--dry-run", help="Say what would be done, and do nothing.")
    json: bool = flag(False, "--json", help="Report to stdout as one JSON object a line.")

    def __post_init__(self) -> None:
        super(BatchConfig, self).__post_init__()
        check_choice("engine", self.engine, get_args(EngineChoice))
        check_choice("ext", self.ext, get_args(ExtChoice))
        check_quality(self.quality)
        if self.address is not None and self.engine != "ray":
            raise OptionError(
                f"the address {self.address} is that of a Ray cluster; add --engine ray"
            )
        if self.workers < 0:
            raise OptionError(f"workers {self.workers} is not possible; give 1 or more, or 0")
        if self.attempts < 1:
            raise OptionError(f"attempts {self.attempts} is not possible; give 1 or more")
        if not self.poll > 0:
            raise OptionError(f"poll {self.poll:g} is not possible; give seconds above 0")
        if self.watch and self.dry_run:
            raise OptionError("both --watch and --dry-run were given; give one of them")
        self.pictures()
        self.clips()

    def pictures(self) -> ImageConfig:
        """The settings of one picture; a result in the way was looked for before."""
        return self._part(ImageConfig, overwrite=True)

    def clips(self) -> VideoConfig:
        """The settings of one clip; unfinished work of a worker that died is gone on with."""
        return self._part(VideoConfig, overwrite=True, resume=True)

    def _part(self, kind: type[Part], **fixed: Any) -> Part:
        own = {field.name for field in dataclasses.fields(self)} - {"json", "dry_run"}
        shared = [field.name for field in dataclasses.fields(kind) if field.name in own]
        return kind(**{**{name: getattr(self, name) for name in shared}, **fixed})

    def stamp(self) -> dict[str, Any]:
        """Every setting that changes a result; the same folder takes no others."""
        free = {
            *("tile", "device", "engine", "address", "workers", "attempts", "watch", "poll"),
            *("include", "exclude", "overwrite", "dry_run", "json", "max_pixels"),
        }
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name not in free}
