"""`restore doctor`: what this machine offers, what is missing, and the command that brings it.

Every probe survives what it looks for: a package that cannot be imported is a finding, not the
end of the report.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import restore
from restore.errors import RestoreError, install_command

T = TypeVar("T")

PACKAGES: dict[str, str] = {
    "torch": "torch",
    "numpy": "numpy",
    "pillow": "PIL",
    "opencv-python-headless": "cv2",
    "av": "av",
    "safetensors": "safetensors",
    "psutil": "psutil",
    "click": "click",
    "rich": "rich",
    "pyyaml": "yaml",
}
"""Distributions that the core needs, with the name that each is imported by."""

FORMATS: dict[str, str] = {
    "png": "zlib",
    "jpg": "jpg",
    "webp": "webp",
    "tiff": "libtiff",
    "avif": "avif",
}
"""Picture formats, with the feature of Pillow that reads and writes each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something that keeps the core from working."""

    what: str
    """What is wrong, in one line."""
    fix: str
    """The command or step that mends it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """Something that a network can run on."""

    name: str
    """Name for `--device`."""
    model: str
    """What it is, in its maker's words."""
    free_bytes: int | None
    """Memory that can be taken now; None where the system does not say."""
    threads: int | None = None
    """Threads that PyTorch uses on it, for a CPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extra:
    """An optional part of the package."""

    missing: tuple[str, ...]
    """Distributions of it that are not installed."""
    command: str
    """What installs it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """Everything that `restore doctor` reports."""

    ok: bool
    """Whether pictures and clips can be restored here."""
    restore: str
    """Version of this package."""
    python: str
    """Version of Python."""
    platform: str
    """Operating system and processor."""
    packages: dict[str, str | None]
    """Version of each package of the core, None when it cannot be imported."""
    ffmpeg: dict[str, str]
    """Versions of the FFmpeg libraries inside PyAV."""
    devices: tuple[Device, ...]
    """CPU first."""
    disk_free_bytes: dict[str, int]
    """Free space where results (the current folder) and temporary files go."""
    encoders: dict[str, str | None]
    """For each `--codec` the software encoder that opens, None when there is none."""
    hardware_encoders: tuple[str, ...]
    """Encoders of the graphics hardware that open."""
    formats: dict[str, bool]
    """Picture formats, and whether they can be read and written."""
    models: dict[str, str | None]
    """Registered methods with their weight file, None when it is missing."""
    extras: dict[str, Extra]
    """Optional parts."""
    problems: tuple[Problem, ...] = ()
    """What has to be mended first; empty when `ok`."""


class Findings:
    """Runs probes; those that fail become problems."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, what: str, fix: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(what=what, fix=fix))

    def attempt(self, probe: Callable[[], T], otherwise: T, what: str, fix: str) -> T:
        """What `probe` returns, or `otherwise` and a problem."""
        try:
            return probe()
        except Exception as error:  # a broken library may raise anything; it is a finding
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            self.add(f"{what}: {line}", fix)
            return otherwise


def examine() -> Health:
    """Look at this machine. It takes a few seconds; a small picture is restored on the way."""
    found = Findings()
    packages = {name: package_version(name, module) for name, module in PACKAGES.items()}
    broken = [name for name, version in packages.items() if version is None]
    if broken:
        found.add(f"cannot be imported: {', '.join(broken)}", pip(*broken))
    codecs: dict[str, str | None]
    codecs = found.attempt(software_encoders, {}, "encoders cannot be listed", pip("av"))
    if codecs and codecs["h264"] is None:
        found.add("no H.264 encoder opens, so that clips cannot be written", pip("av"))
    again = "in the folder of restore: pip install --force-reinstall --no-deps ."
    health = Health(
        ok=True,
        restore=restore.__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        packages=packages,
        ffmpeg=found.attempt(ffmpeg_libraries, {}, "PyAV does not load", pip("av")),
        devices=found.attempt(devices, (), "devices cannot be listed", pip("torch")),
        disk_free_bytes=disk_free(),
        encoders=codecs,
        hardware_encoders=found.attempt(hardware_encoders, (), "hardware encoders", pip("av")),
        formats=found.attempt(formats, {}, "Pillow does not load", pip("pillow")),
        models=found.attempt(models, {}, "models cannot be listed", again),
        extras=extras(),
    )
    found.attempt(self_test, None, "a test picture could not be restored", again)
    return replace(health, ok=not found.problems, problems=tuple(found.problems))


def pip(*names: str) -> str:
    """The command that installs `names` again with this Python."""
    return f"{sys.executable} -m pip install --force-reinstall --no-deps {' '.join(names)}"


def package_version(name: str, module: str) -> str | None:
    """Version of a distribution; None when `module` cannot be imported, whatever the reason."""
    try:
        imported = importlib.import_module(module)
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # another distribution brings the module
        return str(getattr(imported, "__version__", "unknown"))
    except Exception:  # half an installation may raise anything; None is the finding
        return None


def ffmpeg_libraries() -> dict[str, str]:
    """Versions of the FFmpeg libraries that PyAV carries."""
    import av

    return {
        name: ".".join(map(str, version)) for name, version in sorted(av.library_versions.items())
    }


def devices() -> tuple[Device, ...]:
    """What networks can run on here; the CPU comes first."""
    import torch

    from restore.memory import free_memory

    cpu = torch.device("cpu")
    name = platform.processor() or platform.machine()
    found = [
        Device(name="cpu", model=name, free_bytes=free_memory(cpu), threads=torch.get_num_threads())
    ]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.device("cuda", index)
            model = torch.cuda.get_device_name(device)
            found.append(Device(name=str(device), model=model, free_bytes=free_memory(device)))
    if torch.backends.mps.is_available():
        found.append(Device(name="mps", model="Apple GPU", free_bytes=None))
    return tuple(found)


def disk_free() -> dict[str, int]:
    """Bytes free in the current folder and in the one for temporary files."""
    folders = {str(Path.cwd()), tempfile.gettempdir()}
    return {folder: shutil.disk_usage(folder).free for folder in sorted(folders)}


def software_encoders() -> dict[str, str | None]:
    """For each `--codec` its encoder, None where this build of FFmpeg lacks it."""
    import av

    from restore.video.encoders import SOFTWARE

    def is_there(name: str) -> bool:
        try:
            av.Codec(name, "w")
        except ValueError:  # PyAV's UnknownCodecError
            return False
        return True

    return {
        codec: encoder.name if is_there(encoder.name) else None
        for codec, encoder in SOFTWARE.items()
    }


def hardware_encoders() -> tuple[str, ...]:
    """Encoders of the graphics hardware that open on this machine."""
    from restore.video.encode import available_hardware_encoders

    return tuple(available_hardware_encoders())


def formats() -> dict[str, bool]:
    """Picture formats, and whether this build of Pillow reads and writes them."""
    from PIL import features

    return {name: bool(features.check(feature)) for name, feature in FORMATS.items()}


def models() -> dict[str, str | None]:
    """Registered methods with the path of their weights."""
    from restore.inventory import list_models

    return {entry.name: str(entry.weights) if entry.weights else None for entry in list_models()}


def extras() -> dict[str, Extra]:
    """Optional parts of this package, as its metadata lists them."""
    wanted: dict[str, list[str]] = {}
    try:
        requirements = importlib.metadata.requires("restore") or []
    except importlib.metadata.PackageNotFoundError:  # run from a folder without installing
        requirements = []
    for line in requirements:
        match = re.match(r"([\w.-]+).*;.*extra == ['\"]([\w-]+)['\"]", line)
        if match and match[1] != "restore":  # `all` is made of the others
            wanted.setdefault(match[2], []).append(match[1])
    return {
        name: Extra(
            missing=tuple(dist for dist in dists if not is_installed(dist)),
            command=install_command(name),
        )
        for name, dists in sorted(wanted.items())
    }


def is_installed(distribution: str) -> bool:
    """Whether a distribution of that name is installed, in any version."""
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def self_test() -> None:
    """Restore a picture of 8 x 8 pixels on the CPU with the default method.

    Raises:
        RestoreError: the method does not load, or its result is not a picture.
    """
    import numpy as np

    result = restore.load(device="cpu").restore(np.full((8, 8, 3), 128, np.uint8))
    if not 64 <= float(result.mean()) <= 192:
        raise RestoreError(f"a gray picture came out with a mean of {result.mean():.0f} of 255")


def report_lines(health: Health) -> list[str]:
    """The report as text, one finding a line."""
    lines = [f"restore {health.restore}, Python {health.python}, {health.platform}"]

    def section(title: str, rows: dict[str, str]) -> None:
        width = max(map(len, rows), default=0)
        lines.append("")
        lines.append(title)
        lines.extend(f"  {name:<{width}}  {value}".rstrip() for name, value in rows.items())

    section("Packages", {n: v or "CANNOT BE IMPORTED" for n, v in health.packages.items()})
    section("FFmpeg inside PyAV", health.ffmpeg)
    section("Devices", {d.name: describe_device(d) for d in health.devices})
    section("Free disk", {n: gib(v) for n, v in health.disk_free_bytes.items()})
    section("Encoders", {n: v or "none" for n, v in health.encoders.items()})
    section("Hardware encoders", dict.fromkeys(health.hardware_encoders or ("none",), ""))
    section("Picture formats", {n: "yes" if v else "no" for n, v in health.formats.items()})
    not_here = "weights not here; 'restore models pull {}' gets them"
    section("Models", {n: v or not_here.format(n) for n, v in health.models.items()})
    section("Optional parts", {n: describe_extra(e) for n, e in health.extras.items()})
    lines.append("")
    for problem in health.problems:
        lines.append(f"problem: {problem.what}")
        lines.append(f"    fix: {problem.fix}")
    lines.append(
        "Pictures and clips can be restored here." if health.ok else "The core does not work."
    )
    return lines


def describe_device(device: Device) -> str:
    """One line on a device."""
    threads = f", {device.threads} threads" if device.threads else ""
    free = f", {gib(device.free_bytes)} free" if device.free_bytes is not None else ""
    return f"{device.model}{threads}{free}"


def describe_extra(extra: Extra) -> str:
    """One line on an optional part."""
    return f"{', '.join(extra.missing)} missing: {extra.command}" if extra.missing else "installed"


def gib(count: int) -> str:
    """Bytes in GiB."""
    return f"{count / 2**30:.1f} GiB"
