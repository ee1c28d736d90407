"""scikit-learn's SGDClassifier at each client; the layer averages coef_ and intercept_, weighted by
the clients' samples.
"""

import numpy as np
from sklearn.linear_model import SGDClassifier

from privfl import PrivateAggregation
from privfl.crypto import SecAgg
from privfl.data import load
from privfl.dp import Clip

digits = load("digits")
x, y = digits.train.x.flatten(1).numpy().astype(np.float64), digits.train.y.numpy()
clients = {f"ward {i}": (x[i::5], y[i::5]) for i in range(5)}
sizes = {name: len(labels) for name, (_, labels) in clients.items()}
coef, intercept = np.zeros((10, 64)), np.zeros(10)
# scikit-learn computes in float64, and a round in float32: said, so that nothing is cut in silence
layer = PrivateAggregation(bound=Clip(l2=50.0), channel=SecAgg(bits=24), float64="round")
classifier = SGDClassifier(loss="log_loss", random_state=0)
classifier.partial_fit(x[:1], y[:1], classes=range(10))  # makes room for ten classes
for _ in range(5):
    updates = {}
    for name, (features, labels) in clients.items():
        classifier.coef_, classifier.intercept_ = coef.copy(), intercept.copy()
        classifier.partial_fit(features, labels)
        updates[name] = (classifier.coef_ - coef, classifier.intercept_ - intercept)
    (step, shift), receipt = layer.aggregate(updates, weights=sizes)
    coef, intercept = coef + step, intercept + shift

classifier.coef_, classifier.intercept_ = coef, intercept
accuracy = classifier.score(digits.test.x.flatten(1).numpy(), digits.test.y.numpy())
print(f"accuracy {accuracy:.3f}; the server read {receipt.server_reads}")
