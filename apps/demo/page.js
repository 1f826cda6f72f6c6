// Plays the original and the result of the Video tab in step: what is done to one, both do.
(() => {
  const FAR = 0.12; // seconds between the two that are noticed
  const pair = () => Array.from(document.querySelectorAll("#video-pair video"));
  const other = (video) => pair().find((one) => one !== video);
  const follow = (act) => (event) => {
    const video = event.target;
    if (!(video instanceof HTMLVideoElement) || !video.closest("#video-pair")) return;
    const twin = other(video);
    if (twin) act(video, twin);
  };
  const align = (video, twin) => {
    // The result of a preview is shorter; the longer one waits at its end.
    const time = Math.min(video.currentTime, twin.duration || Infinity);
    if (Math.abs(twin.currentTime - time) > FAR) twin.currentTime = time;
  };
  const on = (name, act) => document.addEventListener(name, follow(act), true);
  on("play", (video, twin) => {
    pair()[0].muted = true; // one sound is enough
    align(video, twin);
    if (twin.paused) twin.play().catch(() => {});
  });
  on("pause", (video, twin) => {
    if (!twin.paused) twin.pause();
    align(video, twin);
  });
  on("seeked", (video, twin) => align(video, twin));
  on("ratechange", (video, twin) => {
    if (twin.playbackRate !== video.playbackRate) twin.playbackRate = video.playbackRate;
  });
  on("timeupdate", (video, twin) => {
    if (video === pair()[1] && !video.paused) align(video, twin);
  });
})();
