"""The scikit-learn face: `ChaosClassifier` and `ChaosRegressor`. Alone imports scikit-learn (pip install
'chaos-sgd[sklearn]'), and is not loaded by `import chaos`.

>>> from chaos.estimators import ChaosClassifier  # doctest: +SKIP
>>> ChaosClassifier(epochs=20, n_jobs=-1).fit(X, y).predict(X)  # doctest: +SKIP
"""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as _error:
    raise ImportError("chaos.estimators needs scikit-learn: pip install 'chaos-sgd[sklearn]'") from _error

from .classifier import ChaosClassifier
from .regressor import ChaosRegressor

__all__ = ["ChaosClassifier", "ChaosRegressor"]
