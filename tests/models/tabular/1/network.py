"""A small network on the breast-cancer table of scikit-learn: (N, 30) raw values -> 2 logits.

Trained when it is made, in numpy with a fixed seed, so that Triton's copy and a test's are alike.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer

TRAINING = 200
"""Rows the network learns from; the others are for calibration and tests."""
_HIDDEN, _STEPS, _RATE, _DECAY = 32, 300, 0.01, 1e-3


def rows():
    """All rows in a fixed random order, those for training first: (569, 30) float32 and labels."""
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return x[order].astype(np.float32), y[order]


class Network:
    """Standardisation, one hidden layer of tanh, logits."""

    def __init__(self):
        x, y = rows()
        x, y = x[:TRAINING], np.eye(2)[y[:TRAINING]]
        self.mean, self.std = x.mean(0), x.std(0)
        rng = np.random.default_rng(1)
        self.weights = [
            rng.normal(0, x.shape[1] ** -0.5, (x.shape[1], _HIDDEN)),
            np.zeros(_HIDDEN),
            rng.normal(0, _HIDDEN**-0.5, (_HIDDEN, 2)),
            np.zeros(2),
        ]
        self._train((x - self.mean) / self.std, y)

    def _train(self, z, y):
        """Adam on the cross-entropy, all rows at once."""
        first = [np.zeros_like(w) for w in self.weights]
        second = [np.zeros_like(w) for w in self.weights]
        for step in range(1, _STEPS + 1):
            hidden, logits = self._forward(z)
            wrong = (_softmax(logits) - y) / len(z)
            inner = (wrong @ self.weights[2].T) * (1 - hidden**2)
            slopes = [z.T @ inner, inner.sum(0), hidden.T @ wrong, wrong.sum(0)]
            for i, slope in enumerate(slopes):
                slope = slope + _DECAY * self.weights[i]
                first[i] = 0.9 * first[i] + 0.1 * slope
                second[i] = 0.999 * second[i] + 0.001 * slope**2
                size = np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8
                self.weights[i] = self.weights[i] - _RATE * first[i] / (1 - 0.9**step) / size

    def _forward(self, z):
        hidden = np.tanh(z @ self.weights[0] + self.weights[1])
        return hidden, hidden @ self.weights[2] + self.weights[3]

    def logits(self, x):
        """(N, 30) -> (N, 2) float32."""
        return self._forward((x - self.mean) / self.std)[1].astype(np.float32)

    def slope(self, x, y):
        """Gradient of logit 1 - y less logit y with respect to the standardised row, (N, 30)."""
        hidden, _ = self._forward((x - self.mean) / self.std)
        direction = (self.weights[2][:, 1] - self.weights[2][:, 0]) * np.where(y, -1, 1)[:, None]
        return ((1 - hidden**2) * direction) @ self.weights[0].T


def _softmax(logits):
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)
