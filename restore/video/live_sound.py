"""Sound on its way from the input to the output, which the picture takes longer for.

Packets wait here until the picture of their time is written. What may wait is bounded: sound that
is far ahead of the picture goes out early, and where nobody takes it at all the oldest is lost.
"""

from __future__ import annotations

import contextlib
import io
import logging
import threading
from collections import deque
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from restore.live_config import StreamFormatChoice
from restore.video.containers import codec_name, describe
from restore.video.passage import stream_tags
from restore.video.timestamps import Clock

log = logging.getLogger("restore.video")

WAITING_BYTES = 32 << 20
"""Sound of one stream that may wait; of AAC more than half an hour."""

_SOUND = ("matroska", "nut", "mpegts")
_AAC_RATES = (
    *(96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350),
)
_MPEGTS = ("aac", "ac3", "dts", "eac3", "mp1", "mp2", "mp3", "opus", "truehd")
"""Sound that libavformat marks in MPEG-TS so that others know what it is."""


class Sound:
    """One stream of sound; filled by one thread, emptied by another.

    Args:
        source: where it comes from.
        head: beginning of its first packet, if one has come already.
    """

    def __init__(self, source: AudioStream, head: bytes = b"") -> None:
        self.source = source
        self._head = head
        self._target: Any = None
        self._negative = True
        self._unit = Fraction(source.time_base or 1)
        samples = source.codec_context.frame_size or 1
        rate = Fraction(source.rate, samples) if source.rate else None
        self._clock = Clock(self._unit, rate)
        self._packets: deque[Packet[Any]] = deque()
        self._held = 0
        self._lost = False
        self._lock = threading.Lock()

    def add_to(self, result: OutputContainer, form: StreamFormatChoice) -> None:
        """Add a stream for it to the output."""
        target = result.add_stream_from_template(self.source, opaque=True)
        target.metadata.update(stream_tags(self.source))
        self._target, self._negative = target, form == "matroska"
        context = self.source.codec_context
        if form == "matroska" and context.name == "aac" and not context.extradata:
            # From MPEG-TS. The muxer takes the headers off the packets, but wants to know at its
            # beginning what they say.
            target.codec_context.extradata = _aac_config(self._head, context.rate, context.channels)

    def put(self, packet: Packet[Any]) -> None:
        """Add a packet of the source; its times are made to increase."""
        packet.pts = packet.dts = self._clock.stamp(packet.pts, packet.dts)
        with self._lock:
            self._packets.append(packet)
            self._held += packet.size
            while self._held > WAITING_BYTES:
                self._held -= self._packets.popleft().size
                if not self._lost:
                    self._lost = True
                    log.warning(
                        "%s is more than %d MiB ahead of the picture; its oldest part is left out",
                        *(describe(self.source), WAITING_BYTES >> 20),
                    )

    def take(self, until: Fraction | None, *, beyond: int = 0) -> list[Packet[Any]]:
        """Packets up to a time in seconds, for the stream that `add_to` made; None = all.

        Args:
            until: the time.
            beyond: this many packets after it as well.
        """
        taken: list[Packet[Any]] = []
        with self._lock:
            while self._packets:
                time = (self._packets[0].pts or 0) * self._unit
                if until is not None and time > until and self._held <= WAITING_BYTES // 2:
                    beyond -= 1
                    if beyond < 0:
                        break
                packet = self._packets.popleft()
                self._held -= packet.size
                if time >= 0 or self._negative:  # else what only warms the decoder up
                    packet.stream = self._target
                    taken.append(packet)
        return taken


def sound_streams(streams: Iterable[AudioStream], form: StreamFormatChoice) -> list[AudioStream]:
    """Those streams that the format `form` can hold as they are; says which it cannot."""
    kept = []
    for stream in streams:
        if _fits(stream, form):
            kept.append(stream)
        elif form in _SOUND:
            log.warning(
                "%s does not fit %s and is left out; --stream-format matroska or nut may keep it",
                *(describe(stream), form),
            )
        else:
            log.warning("%s is left out: %s holds pictures only", describe(stream), form)
    return kept


def _aac_config(head: bytes, rate: int, channels: int) -> bytes:
    """AudioSpecificConfig (ISO 14496-3, 1.6.2.1) of AAC with ADTS headers (1.A.3.2).

    Args:
        head: beginning of a packet; where it is no such header, AAC-LC is taken.
        rate: samples a second.
        channels: number of them.
    """
    kind, frequency, layout = 2, _AAC_RATES.index(rate) if rate in _AAC_RATES else 3, channels
    if len(head) >= 4 and head[0] == 0xFF and head[1] >> 4 == 0xF:
        kind, frequency = (head[2] >> 6) + 1, head[2] >> 2 & 15
        layout = (head[2] & 1) << 2 | head[3] >> 6
    return (kind << 11 | frequency << 7 | layout << 3).to_bytes(2, "big")


def _fits(stream: AudioStream, form: StreamFormatChoice) -> bool:
    """Found out by writing a header, but for MPEG-TS, which takes everything without a name."""
    name = codec_name(stream)
    if form not in _SOUND or name is None or stream.codec_context is None:
        return False
    if form == "mpegts":
        return name in _MPEGTS
    with contextlib.suppress(ValueError, av.FFmpegError):
        trial = av.open(io.BytesIO(), "w", format=form)
        trial.add_stream_from_template(stream, opaque=True)
        trial.start_encoding()
        trial.close()
        return True
    return False
