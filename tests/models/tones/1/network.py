"""A small convolutional network that tells tones by their timbre: (N, 1024) -> 4 logits.

Trained when it is made, in numpy with a fixed seed, so that Triton's copy and a test's are alike.
"""

import numpy as np

LENGTH = 1024
CLASSES = 4
_RATE_HZ = 8000
_OVERTONE_HZ = (800, 1100, 1450, 1850)
_KERNEL, _STRIDE, _FILTERS = 32, 16, 16
_ROWS, _STEPS, _RATE = 200, 80, 0.03


def tones(count, seed):
    """Tones with a faint overtone, of which the label says which: (count, 1024) float32."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, count)
    t = np.arange(LENGTH) / _RATE_HZ

    def each(low, high):
        return rng.uniform(low, high, (count, 1))

    def wave(pitch):
        vibrato = each(0, 3) * np.sin(2 * np.pi * each(4, 10) * t + each(0, 6))
        tremolo = 1 + each(0, 0.4) * np.sin(2 * np.pi * each(3, 12) * t + each(0, 6))
        return tremolo * np.sin(2 * np.pi * pitch * t + vibrato + each(0, 6))

    x = each(0.2, 0.6) * wave(each(250, 450))
    x += each(0.04, 0.1) * wave(np.array(_OVERTONE_HZ)[y][:, None] * each(0.95, 1.05))
    noise = rng.standard_normal(x.shape) * 10 ** each(-3.3, -2.7)
    return np.clip(x + noise, -1, 1).astype(np.float32), y


class Network:
    """Rectified filters over the wave at one loudness, their mean over time, logits."""

    def __init__(self):
        x, y = tones(_ROWS, seed=1)
        rng = np.random.default_rng(2)
        self.weights = [
            rng.normal(0, _KERNEL**-0.5, (_KERNEL, _FILTERS)),
            rng.normal(0, 1, (_FILTERS, CLASSES)),
            np.zeros(CLASSES),
        ]
        self._train(x, np.eye(CLASSES)[y])

    def _train(self, x, y):
        """Adam on the cross-entropy, all tones at once."""
        first = [np.zeros_like(w) for w in self.weights]
        second = [np.zeros_like(w) for w in self.weights]
        frames = _frames(x)
        for step in range(1, _STEPS + 1):
            active, pooled, logits = self._forward(frames)
            wrong = (_softmax(logits) - y) / len(x)
            inner = (wrong @ self.weights[1].T)[:, None] * (active > 0) / frames.shape[1]
            slopes = [
                frames.reshape(-1, _KERNEL).T @ inner.reshape(-1, _FILTERS),
                pooled.T @ wrong,
                wrong.sum(0),
            ]
            for i, slope in enumerate(slopes):
                first[i] = 0.9 * first[i] + 0.1 * slope
                second[i] = 0.999 * second[i] + 0.001 * slope**2
                size = np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8
                self.weights[i] = self.weights[i] - _RATE * first[i] / (1 - 0.9**step) / size

    def _forward(self, frames):
        active = np.maximum(frames @ self.weights[0], 0)
        pooled = active.mean(1)
        return active, pooled, pooled @ self.weights[1] + self.weights[2]

    def logits(self, x):
        """(N, 1024) -> (N, 4) float32."""
        return self._forward(_frames(x))[2].astype(np.float32)

    def slope(self, x, y):
        """Gradient of the cross-entropy with respect to the wave at its loudness, (N, 1024)."""
        frames = _frames(x)
        active, _, logits = self._forward(frames)
        wrong = _softmax(logits) - np.eye(CLASSES)[y]
        inner = (wrong @ self.weights[1].T)[:, None] * (active > 0) / frames.shape[1]
        back = inner @ self.weights[0].T  # (N, L, kernel)
        slope = np.zeros(x.shape)
        for i in range(back.shape[1]):
            slope[:, i * _STRIDE : i * _STRIDE + _KERNEL] += back[:, i]
        return slope / _level(x)


def _level(x):
    """Loudness, (N, 1)."""
    return 3 * np.sqrt((x.astype(np.float64) ** 2).mean(1, keepdims=True)) + 1e-3


def _frames(x):
    """(N, 1024) -> (N, L, kernel) float64."""
    windows = np.lib.stride_tricks.sliding_window_view(x / _level(x), _KERNEL, axis=1)
    return windows[:, ::_STRIDE]


def _softmax(logits):
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)
